"""Random fault runs: thousands of logins through two bridges that are killed, paused and cut off from Consul.

Each run is made by a seed that is told with what it violates: `python -m soak.identity SEED` shows it again.
"""

import asyncio
import random
import sys
import time
from collections import Counter

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.settings import ConsulSettings
from soak.frame import Failed, Figures, Soak, progress
from tests.lab.consul import ConsulServer
from tests.lab.identity import Outcome, Run, island

FAULTS = ("kill", "pause", "cut", "freeze")

LARGE = 1400
"""Islands of the first run: 20,000 events."""

SMALL = (60, 250)
"""Islands of the others: between these."""

EVERY = 60.0
"""Seconds between two reports."""


def run(seconds: float) -> Figures:
    """Runs for about so long: one large run and as many small ones as there is time for. Raises Failed."""
    began = time.monotonic()
    first = int(time.time())
    told = began
    runs = events = violations = 0
    faults: Counter[str] = Counter()
    worst = ""
    with ConsulServer() as server:
        while not runs or time.monotonic() - began < seconds:
            seed = first + runs
            outcome = asyncio.run(one(server.url, seed, LARGE if not runs else None))
            runs += 1
            events += outcome.events
            faults += outcome.faults
            if outcome.violations:
                violations += len(outcome.violations)
                worst = worst or f"seed {seed}: {'; '.join(outcome.violations[:3])}"
                progress(f"seed {seed} violates: {'; '.join(outcome.violations[:10])}")
            if time.monotonic() - told > EVERY:
                told = time.monotonic()
                progress(f"{runs} runs, {events} events, {faults.total()} faults, {violations} violations")
    if violations:
        raise Failed(f"{violations} violations in {runs} runs ({faults.total()} faults); {worst}")
    return {"runs": runs, "events": events, "faults": faults.total(), **faults, "violations": violations}


async def one(url: str, seed: int, islands: int | None = None) -> Outcome:
    """One run, below a root of its own."""
    dice = random.Random(seed)
    count = dice.randint(*SMALL) if islands is None else islands
    some = [island(number, dice) for number in range(count)]
    faults = [dice.choice(FAULTS) for _ in range(dice.randint(2, 5) if islands is None else 12)]
    root = f"soak-{seed}"
    async with Consul(ConsulSettings(url=url, root=root)) as consul:
        return await Run(url, root, dice, some, faults).run(consul)


SOAK = Soak("identity", "logins through two bridges that are killed, paused and cut off, against a reference", run)

if __name__ == "__main__":
    with ConsulServer() as again:
        print(asyncio.run(one(again.url, int(sys.argv[1]), LARGE if "--large" in sys.argv else None)))
