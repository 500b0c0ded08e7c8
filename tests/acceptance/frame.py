"""What every acceptance scenario shares: what it must show, and where the report goes."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.estate import Login, Nas
from tests.lab.processes import PROJECT


@dataclass
class Report:
    """What a scenario saw: Markdown for docs/, and what was not as it must be."""

    lines: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def must(self, holds: bool, what: str) -> None:
        """Notes a condition of the scenario."""
        if not holds:
            self.broken.append(what)
            progress(f"BROKEN: {what}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Adds a table."""
        self.lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]


@dataclass(frozen=True)
class Scenario:
    """One scenario; `run` gets True when it is to be short."""

    name: str
    about: str
    run: Callable[[bool], Report]
    document: Path
    """Where its results stand, between two comments that name it."""


def progress(text: str) -> None:
    """Tells on stderr what goes on."""
    print(f"acceptance: {text}", file=sys.stderr, flush=True)


def record(scenario: Scenario, report: Report, about: str) -> None:
    """Puts the results into the scenario's document, in place of earlier ones. ValueError if it has no place."""
    text = scenario.document.read_text(encoding="utf-8")
    begin, end = f"<!-- script/acceptance {scenario.name} -->", f"<!-- end {scenario.name} -->"
    body = "\n".join([begin, f"Measured {time.strftime('%Y-%m-%d')}: {about}.", "", *report.lines, end])
    changed, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: body, text, count=1, flags=re.DOTALL)
    if not count:
        raise ValueError(f"{scenario.document.relative_to(PROJECT)}: there is no {begin} … {end}")
    scenario.document.write_text(changed, encoding="utf-8")


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that `percent` of them do not exceed (nearest rank)."""
    rank = max(1, -(-len(values) * percent // 100))
    return sorted(values)[int(rank) - 1]


def told(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def latencies(logins: Sequence[Login], datacenter: str) -> list[float]:
    """Seconds from request to kernel."""
    return [login.in_kernel[datacenter] - login.sent for login in logins if login.opens]


def longest_gap(nas: Nas, since: float, until: float) -> float:
    """The longest time in which no login was answered (monotonic times)."""
    moments = sorted(login.answered for login in nas.logins if since <= login.answered <= until)
    return max((b - a for a, b in zip([since, *moments], [*moments, until], strict=True)), default=0.0)
