"""The command line of the benchmarks; see `script/bench --help`."""

import argparse
import json
import os
import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from bench import (
    agent_delta,
    agent_load,
    datapath,
    every,
    fanout,
    herd,
    ingest,
    login,
    logins,
    model,
    results,
    scale,
    tamper,
)
from bench.frame import Bench, Figures, Result, machine, progress, versions
from bench.tidy import end_by_unwinding, sweep
from tests.lab.processes import PROJECT, LabError

BENCHES: dict[str, Bench] = {
    bench.name: bench
    for bench in (
        login.BENCH,
        logins.BENCH,
        scale.BENCH,
        fanout.BENCH,
        herd.BENCH,
        ingest.BENCH,
        agent_load.BENCH,
        agent_delta.BENCH,
        datapath.BENCH,
        tamper.BENCH,
    )
}
"""All there are, by name, in the order in which `all` runs them."""

RESULTS = PROJECT / "bench/results.json"
"""The figures of the last `all`; RESULTS.md beside it says them for people."""

SCALE = PROJECT / "docs/scale.md"

ALL, MODEL = "all", "model"


def main() -> int:
    """Runs one benchmark, all of them, or the model; gives the exit code."""
    listing = "\n".join(f"  {bench.name:<12} {bench.about}" for bench in BENCHES.values())
    listing += f"\n  {ALL:<12} one after the other; writes bench/RESULTS.md, bench/results.json and docs/scale.md"
    listing += f"\n  {MODEL:<12} from the figures of the last `all`: hosts per datacenter; writes docs/scale.md"
    parser = argparse.ArgumentParser(
        prog="script/bench",
        description="Measures one thing on this machine with real parts; and, in the same run, what one would use "
        "without us.\nNeeds root: everything happens in network namespaces, which are gone when it ends.",
        epilog=f"""\
benchmarks:
{listing}

examples:
  script/bench login --quick                           a first look
  script/bench fanout --json | jq .figures             to follow over time
  script/bench all                                     everything: some 20 minutes, on a machine that does nothing else

What goes on is told on stderr. The unit ends the name of a figure: p99_ms, per_s, bytes. The exit code is 0 if
everything was measured, 1 if something failed (`all` goes on with the others), 2 if it was not understood.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="which benchmark (below)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: each done within 45 s or so")
    arguments = parser.parse_args()
    if arguments.name not in {*BENCHES, ALL, MODEL}:
        print(f"there is no benchmark {arguments.name!r}; there are:\n{listing}", file=sys.stderr)
        return 2
    if arguments.name == MODEL:
        return _guarded(_model)
    if os.geteuid() != 0:
        print("script/bench needs root: it makes network namespaces, and rules inside them only", file=sys.stderr)
        return 2
    end_by_unwinding()
    sweep()
    if arguments.name == ALL:
        return _all(arguments.quick, arguments.json)
    return _guarded(lambda: _one(BENCHES[arguments.name], arguments.quick, arguments.json))


def _guarded(act: Callable[[], None]) -> int:
    try:
        act()
    except (LabError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _one(bench: Bench, quick: bool, as_json: bool) -> None:
    progress(f"{bench.name}: {bench.about}{' (quick)' if quick else ''}")
    result = bench.run(quick)
    if as_json:
        print(json.dumps(as_object(bench, result)))
    else:
        show(result)


def _all(quick: bool, as_json: bool) -> int:
    found = every.measure(BENCHES.values(), quick)
    content = results.encode(found)
    RESULTS.write_bytes(content)
    text = results.render(found)
    RESULTS.with_name("RESULTS.md").write_text(text, encoding="utf-8")
    print(content.decode() if as_json else text, end="")
    failed = [name for name, outcome in found.benches.items() if outcome.failure]
    if _guarded(lambda: _record(model.report(found))):
        failed.append(MODEL)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _model() -> None:
    report = model.report(results.decode(RESULTS.read_bytes()))
    _record(report)
    print(report, end="")


def _record(report: str) -> None:
    SCALE.write_text(model.put_into(SCALE.read_text(encoding="utf-8"), report), encoding="utf-8")


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
    for path, value in results.flat(figures):
        table.add_row(".".join(path), f"{value:g}")
    return table


if __name__ == "__main__":
    sys.exit(main())
