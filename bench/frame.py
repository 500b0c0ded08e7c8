"""What every benchmark shares: its result, percentiles, progress, and what it ran on."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

Figures = Mapping[str, "float | Figures"]
"""Measurements; the unit ends the key: `p99_ms`, `per_s`, `size_bytes`, `ratio`; or several by what differs."""


@dataclass(frozen=True)
class Result:
    """What a benchmark measured: of ours, and of what one would use without us, in the same run."""

    figures: Figures
    peers: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """One benchmark. `run` gets True when it has 45 seconds (`--quick`)."""

    name: str
    about: str
    run: Callable[[bool], Result]
    means: str = ""
    """What its figures say and what they do not, in one line: it stands above its table in RESULTS.md."""


def progress(text: str) -> None:
    """Tells on stderr what goes on."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that `percent` of them do not exceed (nearest rank). Raises ValueError for none."""
    if not values:
        raise ValueError("nothing was measured")
    rank = max(1, -(-len(values) * percent // 100))
    return sorted(values)[int(rank) - 1]


def milliseconds(seconds: Sequence[float], prefix: str = "", *, percents: Sequence[int] = (50, 99)) -> dict[str, float]:
    """Percentiles of durations as figures: `<prefix>p50_ms`, …"""
    return {f"{prefix}p{percent}_ms": round(percentile(seconds, percent) * 1000, 3) for percent in percents}


def machine() -> dict[str, str | int]:
    """What the benchmark ran on."""
    cpuinfo = Path("/proc/cpuinfo").read_text(errors="replace")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Versions of what took part; those of programs that are not there are left out."""
    programs = {
        "consul": ("consul", "version"),
        "freeradius": ("freeradius", "-v"),
        "ipset": ("ipset", "--version"),
        "iptables": ("iptables", "--version"),
        "nft": ("nft", "--version"),
    }
    found = {name: _version(_first_line(*argv)) for name, argv in programs.items()}
    return {
        "radius-bridge": version("radius-bridge"),
        "python": platform.python_version(),
        **{name: number for name, number in found.items() if number},
    }


def _version(line: str) -> str:
    """The first number with a point in it, and how iptables was built."""
    match = re.search(r"\d+(?:\.\d+)+(?: \((?:nf_tables|legacy)\))?", line)
    return match[0] if match else ""


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return ""
    return next(iter(done.stdout.splitlines()), "")
