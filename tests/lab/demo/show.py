"""What the demo shows: its steps story by story, what was expected, what was seen, how long it took."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tests.lab.processes import LabError

Seen = tuple[str, float]
"""What a step saw, and the seconds that it is about."""

_MARKS = {"running": "[yellow]…[/]", "good": "[green]✔[/]", "bad": "[red]✘[/]"}
_COLOURS = {"running": "yellow", "good": "green", "bad": "red"}
_WIDTHS = {"STEP": 57, "EXPECTED": 36, "SEEN": 20}
_WIDE = 130
"""Columns of a terminal that has room for them."""


class NotAsExpected(Exception):
    """A step showed something else than it should; `str()` is what it showed."""


@dataclass
class Step:
    """One row."""

    story: str
    what: str
    expected: str
    seen: str = ""
    seconds: float | None = None
    state: Literal["running", "good", "bad"] = "running"


@dataclass
class Show:
    """All steps, and the table of the present story, which grows on a terminal."""

    console: Console
    steps: list[Step] = field(default_factory=list)
    _story: str = ""
    _live: Live | None = None

    @contextmanager
    def story(self, name: str, heading: str) -> Iterator[None]:
        """What is done within belongs to one story; its table grows on a terminal, and comes at its end elsewhere."""
        self._story = name
        self.console.print(f"\n[bold]{escape(heading)}[/]")
        if self.console.is_terminal:
            with Live(console=self.console, auto_refresh=False) as self._live:
                yield
            self._live = None
            return
        try:
            yield
        finally:
            self.console.print(self._table())

    def step(self, what: str, expected: str, act: Callable[[], Seen]) -> None:
        """Does one step. Raises NotAsExpected, LabError or OSError as `act` does, after it was shown."""
        step = Step(self._story, what, expected)
        self.steps.append(step)
        self._refresh()
        try:
            step.seen, step.seconds = act()
            step.state = "good"
        except (NotAsExpected, LabError, OSError) as error:
            step.seen = str(error).partition("\n")[0]
            step.state = "bad"
            raise
        finally:
            self._refresh()

    def as_json(self) -> list[dict[str, Any]]:
        """The steps for programs; `seconds` is null for one that failed."""
        return [
            {
                "story": step.story,
                "step": step.what,
                "expected": step.expected,
                "seen": step.seen,
                "seconds": None if step.seconds is None else round(step.seconds, 6),
                "ok": step.state == "good",
            }
            for step in self.steps
        ]

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("", no_wrap=True)
        # Where there is room, the stories' tables stand below each other as one.
        is_wide = self.console.width >= _WIDE
        for column, width in _WIDTHS.items():
            table.add_column(column, width=width if is_wide else None, overflow="fold")
        table.add_column("MS", justify="right", width=8 if is_wide else None, no_wrap=True)
        for step in self.steps:
            if step.story == self._story:
                milliseconds = "" if step.seconds is None else f"{step.seconds * 1000:,.1f}"
                seen = f"[{_COLOURS[step.state]}]{escape(step.seen)}[/]"
                table.add_row(_MARKS[step.state], escape(step.what), escape(step.expected), seen, milliseconds)
        return table

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
