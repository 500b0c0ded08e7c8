"""Many members into the kernel: a service's set built aside, filled and put in place, by the agent's dataplane.

Beside it `ipset restore` doing the same, from a file that is there already.
"""

import statistics
import tempfile
import time
from pathlib import Path

from bench.dataplanes import BACKENDS, Members, Restore, desired, inside, members, service
from bench.frame import Bench, Result, progress
from bench.tidy import namespace
from tests.lab.processes import LabError

SIZES = (65_000, 500_000)


def run_bench(quick: bool) -> Result:
    """Each in turn, several times; the median counts."""
    figures: dict[str, dict[str, float]] = {}
    restore: dict[str, float] = {}
    for size in SIZES:
        rounds = (3 if quick else 9) if size < 100_000 else (1 if quick else 5)
        held = members(size)
        with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder:
            for number, backend in enumerate(BACKENDS):
                progress(f"{size:,} members, {backend}, {rounds} times")
                ours, without = _measure(backend, held, rounds, Path(folder))
                figures.setdefault(f"{backend}_seconds" if number else "seconds", {})[str(size)] = ours
                restore.setdefault(str(size), without)
    return Result(figures, {"ipset_restore_seconds": restore})


def _measure(backend: str, held: Members, rounds: int, folder: Path) -> tuple[float, float]:
    """Seconds of ours, and of `ipset restore`."""
    peer = Restore(folder / "restore", held)
    only = service()
    full, empty = desired((only,), held), desired((only,), {})
    ours: list[float] = []
    without: list[float] = []

    async def work() -> None:
        peer.prepare()
        with BACKENDS[backend](folder / "lock") as dataplane:
            for _ in range(rounds):
                await dataplane.apply(empty, time.time())
                began = time.perf_counter()
                change = await dataplane.apply(full, time.time())
                ours.append(time.perf_counter() - began)
                if change.added != len(held):
                    raise LabError(f"{len(held):,} members became {change.summary()}")
                without.append(peer.seconds())

    with namespace("load") as host:
        inside(host, work)
    return round(statistics.median(ours), 4), round(statistics.median(without), 4)


BENCH = Bench(
    "agent-load",
    "65,000 and 500,000 members into the kernel, beside `ipset restore`",
    run_bench,
    means="Seconds until the set is in place; a start, and any change that is too large to be sent member by member. "
    "Each side has its members ready: a Python mapping for ours, a file for `ipset restore`.",
)
