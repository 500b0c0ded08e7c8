"""What every lease source does the same way: says what is wrong, keeps to its networks, looks again and again."""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container
from typing import Final

import msgspec
import structlog

from radius_bridge.identity.events import Lease
from radius_bridge.leases.outbox import Outbox, Submit
from radius_bridge.policy.members import Prefix
from radius_bridge.process import together

LOOK: Final = 0.5
"""Seconds between two looks at a file."""

TICK: Final = 0.001
"""Seconds between two things that happened at the same time."""

REMEMBERED: Final = 4096
"""Addresses whose last news is remembered, the latest ones."""

_log = structlog.get_logger(__name__)


class Trouble(Exception):
    """A source cannot be read, or not believed; `str()` says which, why, and the way out. Never "no leases"."""


class Source(ABC):
    """One `[[lease]]`. `run` does the work until cancelled."""

    def __init__(self, name: str, networks: Container[Prefix], submit: Submit) -> None:
        self.name = name
        self.networks = networks
        """The only addresses that it may name."""
        self.counters: Counter[str] = Counter()
        self.problem = ""
        """What is wrong now; empty while it works."""
        self.submit = submit

    @abstractmethod
    async def run(self) -> None:
        """Works until cancelled."""

    def say(self, problem: str) -> None:
        """Notes what is wrong now, or with "" that nothing is; logged and counted when it changes."""
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            self.counters["problems"] += 1
            _log.error(
                "lease source in trouble: what it gave so far stays until it ends", source=self.name, why=problem
            )
        else:
            _log.info("lease source works again", source=self.name)


class Watcher(Source):
    """A source that is looked at every so often, and gives what has changed."""

    every: float = LOOK
    """Seconds between two looks."""

    def __init__(self, name: str, networks: Container[Prefix], submit: Submit) -> None:
        super().__init__(name, networks, submit)
        self._outbox = Outbox(submit, self.counters)
        self._order = Order()

    async def run(self) -> None:
        """Looks until cancelled."""
        async with together() as tasks:
            tasks.create_task(self._outbox.run(), name=f"leases of {self.name}")
            tasks.create_task(self._watch(), name=f"lease source {self.name}")

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Trouble as trouble:
                self.say(str(trouble))
            else:
                self.say("")
            await asyncio.sleep(self.every)

    @abstractmethod
    async def look(self) -> None:
        """Reads what is new and offers it. Raises Trouble."""

    async def offer(self, lease: Lease) -> None:
        """Passes a lease on."""
        if lease.address not in self.networks:
            self.counters["outside_networks"] += 1
            return
        await self._outbox.put(self._order.put(lease, time.time()))


class Order:
    """The times of what one source says of an address, made to rise as it says it.

    DHCP servers tell whole seconds, or not at all when a lease was given back: what was given back and given again
    within a second would else be in either order.
    """

    def __init__(self, slack: float = math.inf) -> None:
        """Something said later is later if it seems up to `slack` seconds earlier; beyond, it is late news."""
        self._slack = slack
        self._said: dict[Prefix, float] = {}

    def put(self, lease: Lease, now: float) -> Lease:
        """The same lease, given after what was said before; no later than `now` (epoch seconds) otherwise.

        Nobody is given anything from the future, nor longer for that: a DHCP server's clock may be ahead.
        """
        at = min(lease.at, now)
        expires = lease.expires - (lease.at - at)
        last = self._said.pop(lease.address, -math.inf)
        if last - self._slack < at <= last:
            at = last + TICK
        self._said[lease.address] = max(at, last)
        if len(self._said) > REMEMBERED:
            del self._said[next(iter(self._said))]
        if at == lease.at:
            return lease
        return msgspec.structs.replace(lease, at=at, expires=at if lease.expires <= lease.at else expires)
