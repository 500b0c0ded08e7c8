"""20,000 events through two bridges under faults; what Consul holds in the end must be what a reference says."""

import asyncio
import random
import time

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.settings import ConsulSettings
from tests.acceptance.frame import Report, Scenario, told
from tests.lab.consul import ConsulServer
from tests.lab.identity import Outcome, Run, island
from tests.lab.processes import PROJECT

SEED = 4

FAULTS = {
    "kill": "SIGKILL, started again",
    "lapse": "the leader paused (SIGSTOP) until the other one has its lock",
    "cut": "connections to Consul end, and none is made for up to 2 s",
    "pause": "SIGSTOP for up to 2 s",
    "freeze": "nothing arrives at Consul, and nothing comes from there, for up to 6 s",
}


def run_bridges(quick: bool) -> Report:
    """Plays one run with every kind of fault, most of them more than once."""
    islands, rounds = (200, 1) if quick else (1400, 3)
    report = Report()
    dice = random.Random(SEED)
    faults = [*FAULTS] * rounds
    dice.shuffle(faults)
    began = time.monotonic()
    with ConsulServer(on_disk=True) as server:
        outcome = asyncio.run(_run(server, dice, islands, faults))
    took = time.monotonic() - began
    report.must(not outcome.violations, f"{len(outcome.violations)} violations: {'; '.join(outcome.violations[:5])}")
    report.lines += [
        f"{outcome.events:,} events (Starts, Interim-Updates, Stops, leases, restarts of NASes; in any order, every "
        "sixth repeated), each told to one of two bridges, and again until one says that it is recorded: "
        f"{told(took)}. Violations (an address in two users' groups at any look; at the end, an owner or a time "
        f"other than the reference says): {len(outcome.violations)}.",
        "",
    ]
    report.table(["fault", "what", "times"], [[name, what, str(outcome.faults[name])] for name, what in FAULTS.items()])
    return report


async def _run(server: ConsulServer, dice: random.Random, islands: int, faults: list[str]) -> Outcome:
    root = "acceptance"
    async with Consul(ConsulSettings(url=server.url, root=root)) as consul:
        some = [island(number, dice) for number in range(islands)]
        return await Run(server.url, root, dice, some, faults).run(consul)


SCENARIO = Scenario(
    "bridges",
    "20,000 events through two bridges that are killed, paused and cut off, against a reference",
    run_bridges,
    PROJECT / "docs/reliability.md",
)
