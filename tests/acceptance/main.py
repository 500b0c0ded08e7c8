"""The command line of the acceptance scenarios; see `script/acceptance --help`."""

import argparse
import os
import signal
import sys

from bench.frame import machine, versions
from tests.acceptance import bridges, buffered, cluster, datacenters, faults, traffic
from tests.acceptance.frame import Scenario, progress, record
from tests.lab.processes import LabError

SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (
        bridges.SCENARIO,
        buffered.SCENARIO,
        cluster.SCENARIO,
        datacenters.SCENARIO,
        faults.SCENARIO,
        traffic.SCENARIO,
    )
}
"""All there are, by name."""


def main() -> int:
    """Plays one scenario, or all; gives the exit code: 1 if anything was not as it must be."""
    listing = "\n".join(f"  {each.name:<12} {each.about}" for each in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="script/acceptance",
        description="Plays a scenario on real parts in network namespaces and writes what it saw into docs/.",
        epilog=f"scenarios:\n{listing}\n  {'all':<12} one after the other",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="which scenario (below)")
    parser.add_argument("--quick", action="store_true", help="shorter faults; writes nothing")
    arguments = parser.parse_args()
    chosen = list(SCENARIOS.values()) if arguments.name == "all" else [SCENARIOS.get(arguments.name)]
    if os.geteuid() != 0:
        print("script/acceptance needs root: it makes network namespaces", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is cleaned up
    good = True
    for scenario in chosen:
        if scenario is None:
            print(f"there is no scenario {arguments.name!r}; there are:\n{listing}", file=sys.stderr)
            return 2
        progress(f"{scenario.name}: {scenario.about}")
        try:
            report = scenario.run(arguments.quick)
        except LabError as error:
            print(f"acceptance: {scenario.name}: {error}", file=sys.stderr)
            good = False
            continue
        print("\n".join(report.lines))
        good &= not report.broken
        if not arguments.quick:
            about = {**machine(), **versions()}
            record(
                scenario,
                report,
                f"{about['cpu']}, {about['cores']} cores, kernel {about['kernel']}, Consul {about['consul']}, "
                f"Python {about['python']}",
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
