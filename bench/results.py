"""What all benchmarks measured: kept as bench/results.json, and written for people as bench/RESULTS.md. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """What came of one benchmark."""

    about: str
    means: str
    seconds: float
    """How long it took."""
    figures: dict[str, Any] = {}
    """Nested figures, as in `bench.frame.Figures`."""
    peers: dict[str, Any] = {}
    failure: str = ""
    """Why it has no figures; empty if it has."""


class Results(msgspec.Struct, frozen=True):
    """One run of all benchmarks on one machine."""

    date: str
    """The day it began, `2026-11-22`."""
    quick: bool
    seconds: float
    machine: dict[str, str | int]
    versions: dict[str, str]
    benches: dict[str, Outcome]
    """By name, in the order they ran."""


def encode(results: Results) -> bytes:
    """As a JSON file."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"


def decode(content: bytes) -> Results:
    """Reads that file. Raises ValueError that names what is wrong."""
    try:
        return msgspec.json.decode(content, type=Results)
    except msgspec.DecodeError as error:
        raise ValueError(f"no results of benchmarks: {error}") from None


def flat(figures: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Nested figures one by one: `("idle", "p99_ms"), 48.5`."""
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*path, key))
        else:
            yield (*path, key), value


def render(results: Results) -> str:
    """The Markdown of RESULTS.md."""
    about = results.machine
    software = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    short = ", with `--quick`: few repetitions, good for a first look only" if results.quick else ""
    lines = [
        "# What was measured",
        "",
        f"Written by `script/bench all` on {results.date}, which took {_duration(results.seconds)}{short}.",
        "Do not edit it: run that on your own machine before you rely on any of it. For programs: `results.json`.",
        "",
        f"- Machine: {about.get('cpu')}, {about.get('cores')} cores, "
        f"{int(about.get('memory_bytes', 0)) / 2**30:.0f} GiB, kernel {about.get('kernel')}.",
        "- All parts share it: Consul (dev mode), bridge, agents, and who puts load on them.",
        f"- Versions: {software}.",
        "",
    ]
    for name, outcome in results.benches.items():
        lines += [f"## {name}: {outcome.about}", ""]
        if outcome.failure:
            lines += [f"**Failed** after {outcome.seconds:.0f} s:", "", "```", outcome.failure, "```", ""]
            continue
        if outcome.means:
            lines += [outcome.means, ""]
        lines += [*_table(outcome), "", f"Took {outcome.seconds:.0f} s.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(outcome: Outcome) -> list[str]:
    """Ours, then what one would use without us, in the same columns.

    A figure by number (of members, hosts, …) has a column for each; another one has its group as its column.
    """
    rows: dict[str, dict[str, float]] = {}
    for prefix, figures in (("", outcome.figures), ("*without us:* ", outcome.peers)):
        for path, value in flat(figures):
            *parents, key = path
            row, column = ("_".join(parents), key) if key.isdigit() else (key, "_".join(parents))
            rows.setdefault(prefix + row, {})[column] = value
    for values in rows.values():
        if values.get("") in [value for column, value in values.items() if column]:
            del values[""]  # said again for who follows the key
    columns = sorted(dict.fromkeys(column for row in rows.values() for column in row), key=_order)
    return [
        f"| | {' | '.join(map(_words, columns))} |",
        f"|---|{'---:|' * len(columns)}",
        *(
            f"| {_words(name)} | {' | '.join(_number(row[column]) if column in row else '' for column in columns)} |"
            for name, row in rows.items()
        ),
    ]


def _order(column: str) -> tuple[int, int]:
    """The ungrouped first, numbers in their order, groups as they come."""
    if column.isdigit():
        return 1, int(column)
    return (2, 0) if column else (0, 0)


def _words(key: str) -> str:
    return f"{int(key):,}" if key.isdigit() else key.replace("_", " ")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
