"""The command line of the benchmarks; see `script/bench --help`."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.table import Table

from bench import fanout, ingest, login, logins, scale
from bench.frame import Bench, Figures, Result, machine, progress, versions
from tests.lab.processes import LabError

BENCHES: dict[str, Bench] = {
    bench.name: bench for bench in (login.BENCH, logins.BENCH, scale.BENCH, fanout.BENCH, ingest.BENCH)
}
"""All there are, by name."""


def main() -> int:
    """Runs one benchmark; gives the exit code."""
    listing = "\n".join(f"  {bench.name:<12} {bench.about}" for bench in BENCHES.values())
    parser = argparse.ArgumentParser(
        prog="script/bench",
        description="Measures one thing on this machine with real parts; and, in the same run, what one would use "
        "without us.",
        epilog=f"benchmarks:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="which benchmark (below)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: done within 45 s")
    arguments = parser.parse_args()
    bench = BENCHES.get(arguments.name)
    if bench is None:
        print(f"there is no benchmark {arguments.name!r}; there are:\n{listing}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("script/bench needs root: it makes network namespaces, and rules inside them only", file=sys.stderr)
        return 2
    progress(f"{bench.name}: {bench.about}{' (quick)' if arguments.quick else ''}")
    try:
        result = bench.run(arguments.quick)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(as_object(bench, result)))
    else:
        show(result)
    return 0


def as_object(bench: Bench, result: Result) -> dict[str, object]:
    """The result as the one JSON object that `--json` prints."""
    return {
        "bench": bench.name,
        "figures": result.figures,
        "peers": result.peers,
        "machine": machine(),
        "versions": versions(),
    }


def show(result: Result) -> None:
    """The result for people."""
    console = Console(highlight=False)
    for title, figures in (("radius-bridge", result.figures), ("without it", result.peers)):
        if figures:
            console.print(_table(title, figures))
    about = {**machine(), **versions()}
    console.print(", ".join(f"{key} {value}" for key, value in about.items()), style="dim", soft_wrap=True)


def _table(title: str, figures: Figures) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    table.add_column("", justify="right")
    for key, value in flat(figures):
        table.add_row(key, f"{value:g}")
    return table


def flat(figures: Figures, path: str = "") -> Iterator[tuple[str, float]]:
    """Nested figures as lines: `idle.p99_ms`."""
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{key}.")
        else:
            yield path + key, value


if __name__ == "__main__":
    sys.exit(main())
