"""How commands print: errors, JSON, tables, times."""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer

from radius_bridge.policy.expiry import format_duration, is_over

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OK, FAILED, USAGE = 0, 1, 2
"""Exit codes: done; not done (Consul, nothing to do); the command or a file is wrong."""


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Ends the command with an error on stderr."""
    typer.secho(f"error: {message}", err=True, fg="red" if sys.stderr.isatty() else None)
    raise typer.Exit(code)


def until(expires: float, now: float) -> str:
    """An expiry for people: `for good`, or the time and what is left."""
    if expires < 0:
        return "for good"
    if is_over(expires, now):
        return "over"
    return f"{moment(expires)} ({format_duration(expires - now)} left)"


def ending(expires: float) -> str:
    """The same at the end of a sentence, now: `for good`, or `until …`."""
    told = until(expires, time.time())
    return told if expires < 0 else f"until {told}"


def moment(epoch: float) -> str:
    """A point in time for people: local time."""
    try:
        return datetime.fromtimestamp(epoch, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):  # anybody may have written it: milliseconds, say
        return "after the year 9999"


def print_json(value: Any) -> None:
    """JSON for programs."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_table(columns: list[str], rows: list[list[str]], empty: str) -> None:
    """A table for people, or the sentence `empty`; plain lines of full width when piped."""
    if not rows:
        typer.echo(empty)
        return
    from rich.console import Console  # noqa: PLC0415 — most commands print no table
    from rich.table import Table  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else 400)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console.print(table)


def warn(problem: str) -> None:
    """A warning on stderr; what Consul holds may be part of it."""
    typer.echo(f"warning: {printable(problem)}", err=True)


def printable(text: str) -> str:
    """Text that cannot move a terminal's cursor, whoever wrote it."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _plain(cell: str) -> str:
    """A cell that neither markup nor control characters can change."""
    return printable(cell).replace("[", "\\[")
