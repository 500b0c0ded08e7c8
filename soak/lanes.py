"""What follows from one fact for another: hundreds of thousands of short runs on a Consul in memory, with its faults.

Each run is made by a seed that is told with what it violates: `python -m soak.lanes SEED` shows it again.
"""

import asyncio
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import structlog

from soak.frame import Failed, Figures, Soak, progress
from tests.registry.lanes_model import violations

ROUND = 30.0
"""Seconds between two reports."""

LONGEST = 60.0
"""Seconds of one run, at most: then it hangs."""


def run(seconds: float) -> Figures:
    """Runs on all cores for about so long. Raises Failed after the first violations."""
    ends, seed, runs = time.monotonic() + seconds, int(time.time()) * 1000, 0
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, initializer=_be_quiet) as pool:
        while (left := ends - time.monotonic()) > 0:
            firsts = [seed + core for core in range(cores)]
            for count, found in pool.map(_some, firsts, [cores] * cores, [min(ROUND, left)] * cores):
                runs += count
                seed = max(seed, firsts[0] + count * cores)
                if found:
                    raise Failed(f"{found} ({runs} runs)")
            progress(f"{runs} runs, 0 violations")
    return {"runs": runs, "violations": 0}


def _some(seed: int, step: int, seconds: float) -> tuple[int, str]:
    """Runs every `step`th seed for so long: how many that were, and what the last one violates."""
    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        if found := asyncio.run(one(seed)):
            return count, f"seed {seed}: {'; '.join(found)}"
        seed, count = seed + step, count + 1
    return count, ""


def _be_quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


async def one(seed: int) -> list[str]:
    """What one run violates."""
    return await asyncio.wait_for(violations(seed), LONGEST)


SOAK = Soak("lanes", "what follows from one fact for another, on a Consul in memory, against a reference", run)

if __name__ == "__main__":
    print(asyncio.run(one(int(sys.argv[1]))))
