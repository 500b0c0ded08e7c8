"""One change of a set that holds many members: somebody logs in or out, in the agent's dataplane alone.

Beside it what one would do without us: fill the set again, or run `ipset` for each change.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

from bench.dataplanes import BACKENDS, FIRST, Members, Restore, desired, inside, members, service
from bench.frame import Bench, Result, percentile, progress
from bench.tidy import namespace
from radius_bridge.policy.members import Prefix
from tests.lab.processes import LabError

SIZES = (1_000, 65_000, 500_000)

FRESH = FIRST + (1 << 23)
"""Who comes and goes has an address from here on."""


def run_bench(quick: bool) -> Result:
    """Members come and go, one at a time."""
    changes, processes = (200, 20) if quick else (2_000, 100)
    figures: dict[str, dict[str, float]] = {}
    peers: dict[str, dict[str, float]] = {}
    for size in SIZES:
        held = members(size)
        with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder:
            for number, backend in enumerate(BACKENDS):
                progress(f"{changes} changes of a set of {size:,}, {backend}")
                with namespace("delta") as host:
                    took = inside(host, partial(_ours, backend, held, changes, Path(folder)))
                for percent in (50, 99):
                    key = f"{backend}_p{percent}_ms" if number else f"p{percent}_ms"
                    figures.setdefault(key, {})[str(size)] = _milliseconds(took, percent)
            rounds = 3 if quick or size > 100_000 else 9
            peer = Restore(Path(folder) / "restore", held)
            with namespace("delta") as host:
                again, each = host.call(partial(_without, peer, rounds, processes))
        peers.setdefault("ipset_restore_p50_ms", {})[str(size)] = _milliseconds(again, 50)
        peers.setdefault("ipset_process_p50_ms", {})[str(size)] = _milliseconds(each, 50)
    return Result(figures, peers)


def _milliseconds(seconds: list[float], percent: int) -> float:
    return round(percentile(seconds, percent) * 1000, 4)


async def _ours(backend: str, held: Members, changes: int, folder: Path) -> list[float]:
    only = service()
    want = desired((only,), held)
    took = []
    with BACKENDS[backend](folder / "lock") as dataplane:
        now = time.time()
        await dataplane.apply(want, now)
        for number in range(changes):
            someone = Prefix(4, FRESH + number // 2, 32)
            if number % 2:
                del held[someone]
            else:
                held[someone] = now + 3600
            began = time.perf_counter()
            change = await dataplane.apply(want, now, {only.name: (someone,)})
            took.append(time.perf_counter() - began)
            if change.added + change.deleted != 1:
                raise LabError(f"one change became {change.summary()}")
    return took


def _without(peer: Restore, rounds: int, processes: int) -> tuple[list[float], list[float]]:
    peer.prepare()
    again = [peer.seconds() for _ in range(rounds)]
    each = [
        peer.change(f"10.200.{number // 512}.{number // 2 % 256}", add=number % 2 == 0) for number in range(processes)
    ]
    return again, each


BENCH = Bench(
    "agent-delta",
    "one change of a set of 1,000, 65,000 and 500,000 members",
    run_bench,
    means="Milliseconds from the dataplane's being told of one member to the kernel's having it; must be flat.",
)
