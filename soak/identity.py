"""Random fault runs: thousands of logins through two bridges that are killed, paused and cut off from Consul.

Each run is made by a seed that is told with what it violates: `python -m soak.identity SEED` shows it again.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from typing import Self

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

AT_ONCE = 3
"""Runs at the same time: most of one is waiting for what a fault has delayed."""

EVERY = 60.0
"""Seconds between two reports."""


def run(seconds: float) -> Figures:
    """Runs for about so long: one large run and as many small ones as there is time for. Raises Failed."""
    with ConsulServer() as server:
        total = asyncio.run(_Runs(server.url, seconds).run())
    if total.worst:
        raise Failed(
            f"{total.violations} violations in {total.runs} runs ({total.faults.total()} faults); {total.worst}"
        )
    counts = {"runs": total.runs, "events": total.events, "faults": total.faults.total()}
    return {**counts, **total.faults, "violations": total.violations}


class _Runs:
    """Runs on one Consul until the time is over, and what they came to."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._first = int(time.time())
        self._begun = 0
        self._ends = time.monotonic() + seconds
        self._told = time.monotonic()
        self.runs = self.events = self.violations = 0
        self.faults: Counter[str] = Counter()
        self.worst = ""

    async def run(self) -> Self:
        """Does them all."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._work())
        return self

    async def _work(self) -> None:
        while not self._begun or time.monotonic() < self._ends:
            number = self._begun
            self._begun += 1
            self._note(self._first + number, await one(self._url, self._first + number, 0 if number else LARGE))

    def _note(self, seed: int, outcome: Outcome) -> None:
        self.runs += 1
        self.events += outcome.events
        self.faults += outcome.faults
        if outcome.violations:
            self.violations += len(outcome.violations)
            self.worst = self.worst or f"seed {seed}: {'; '.join(outcome.violations[:3])}"
            progress(f"seed {seed} violates: {'; '.join(outcome.violations[:10])}")
        if time.monotonic() - self._told > EVERY:
            self._told = time.monotonic()
            faults = self.faults.total()
            progress(f"{self.runs} runs, {self.events} events, {faults} faults, {self.violations} violations")


async def one(url: str, seed: int, islands: int = 0) -> Outcome:
    """One run, below a root of its own: with so many islands, or a few and a few faults."""
    dice = random.Random(seed)
    some = [island(number, dice) for number in range(islands or dice.randint(*SMALL))]
    faults = [dice.choice(FAULTS) for _ in range(12 if islands else dice.randint(2, 5))]
    faults += ["lapse"] if islands else []
    root = f"soak-{seed}"
    async with Consul(ConsulSettings(url=url, root=root)) as consul:
        return await Run(url, root, dice, some, faults).run(consul)


SOAK = Soak("identity", "logins through two bridges that are killed, paused and cut off, against a reference", run)

if __name__ == "__main__":
    with ConsulServer() as again:
        print(asyncio.run(one(again.url, int(sys.argv[1]), LARGE if "--large" in sys.argv else 0)))
