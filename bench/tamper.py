"""Somebody changes our part of the kernel by hand: how long until it is as desired again.

The agent's own parts are at work, with everything as it is by default; one thing is changed, and the time runs from the
end of the program that did it until the change is undone in the kernel. Changes follow each other at once: what is seen
only by looking waits as long as it can.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import structlog

from agent.dataplane.interface import Dataplane
from agent.dataplane.ipset import IpsetDataplane
from agent.dataplane.nftables import NftablesDataplane
from bench.dataplanes import FIRST, desired, members, service
from bench.frame import Bench, Result, milliseconds, progress
from bench.tidy import namespace
from radius_bridge.policy.members import Prefix
from tests.lab.keeper import Keeper
from tests.lab.netns import Namespace
from tests.lab.processes import LabError

MEMBERS = 1_000

BACKENDS: dict[str, Callable[[Path], Dataplane]] = {"ipset": IpsetDataplane, "nftables": NftablesDataplane}

AT_ONCE = 4
"""Changes that one agent sees: with more it would take them for a fight with another writer, and slow down."""

_SET = f"rb4h.{service().name}"
_TABLE = "inet radius_bridge"
_SOMEBODY = "192.0.2.66"
_MEMBER = str(Prefix(4, FIRST, 32))

KINDS: dict[str, dict[str, str]] = {
    "ipset": {
        "jump_deleted": "iptables -D INPUT -j RB-INPUT",
        "jump_not_first": "iptables -I INPUT 1 -p icmp -j ACCEPT",
        "jump_doubled": "iptables -A INPUT -j RB-INPUT",
        "rule_inserted": "iptables -I RB-INPUT 1 -j ACCEPT",
        "iptables_flushed": "iptables -F",
        "set_flushed": f"ipset flush {_SET}",
        "member_added": f"ipset add {_SET} {_SOMEBODY} timeout 3600",
        "member_deleted": f"ipset del {_SET} {_MEMBER}",
    },
    "nftables": {
        "rule_inserted": f"nft insert rule {_TABLE} input accept",
        "table_deleted": f"nft delete table {_TABLE}",
        "set_flushed": f"nft flush set {_TABLE} {_SET}",
        "member_added": f"nft add element {_TABLE} {_SET} {{ {_SOMEBODY} timeout 1h }}",
        "member_deleted": f"nft delete element {_TABLE} {_SET} {{ {_MEMBER} }}",
    },
}


def run_bench(quick: bool) -> Result:
    """Every kind of change, several times."""
    # Each of them is a warning in the agent's log.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures: dict[str, dict[str, float]] = {}
    for backend, kinds in KINDS.items():
        with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder, namespace("tamper") as host:
            for kind, command in kinds.items():
                is_heard = backend == "nftables" or command.startswith("iptables")
                times = (10 if is_heard else 2) if quick else (30 if is_heard else 5)
                progress(f"{backend}: {kind.replace('_', ' ')}, {times} times")
                took = _repairs(host, backend, Path(folder), command, times)
                for name, value in milliseconds(took).items():
                    figures.setdefault(name, {})[f"{backend}_{kind}"] = value
    return Result(figures)


def _repairs(host: Namespace, backend: str, folder: Path, command: str, times: int) -> list[float]:
    took: list[float] = []
    wanted = desired((service(),), members(MEMBERS))
    with ExitStack() as stack:
        dataplane = BACKENDS[backend](folder / "lock")
        host.call(partial(stack.enter_context, dataplane))
        while len(took) < times:
            with Keeper(host, dataplane, wanted) as keeper:
                for number in range(min(AT_ONCE, times - len(took))):
                    host.run(*command.split())
                    began = time.monotonic()
                    took.append(max(0.0, keeper.wait_repaired(number) - began))
            left = host.call(lambda: asyncio.run(dataplane.compare(wanted, time.time())))
            if left:
                raise LabError(f"{command}: was not put back: {'; '.join(map(str, left))}")
    return took


BENCH = Bench(
    "tamper",
    "our rules and sets are changed by hand: until they are as desired again",
    run_bench,
    means=f"From the end of the program that changed something, with {MEMBERS:,} members; what ipset does not tell of "
    "is seen with the next look, 3 s after the last one.",
)
