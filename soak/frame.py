"""What every soak shares: its result, resident memory, and the page that results are written to."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bench.frame import machine

PAGE = Path(__file__).resolve().parents[1] / "docs" / "soak.md"
"""Where results are kept, the newest at the end."""

Figures = dict[str, float]
"""Measurements; the unit ends the key: `per_s`, `mib`, `seconds`; what has none is a count."""


class Failed(Exception):
    """What must hold did not; `str()` says what, and how to see it again."""


@dataclass(frozen=True)
class Soak:
    """One thing that runs for long. `run` gets the seconds that it has, and raises Failed."""

    name: str
    about: str
    run: Callable[[float], Figures]


def progress(text: str) -> None:
    """Tells on stderr what goes on."""
    print(f"soak: {text}", file=sys.stderr, flush=True)


def resident() -> float:
    """This process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def entry(name: str, minutes: float, figures: Figures, day: date) -> str:
    """A result as a section of the page."""
    about = machine()
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value:,.10g} |" for key, value in figures.items())
    where = f"{about['cores']} cores of {about['cpu']}, kernel {about['kernel']}"
    return f"\n## {day.isoformat()}: {name}, {minutes:g} minutes\n{where}.\n\n| | |\n|---|---:|\n{rows}\n"
