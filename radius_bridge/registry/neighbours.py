"""What other bridges record: so that a session on one, and its Stop, or the lease of its address, on another meet.

Everything is read once, at the start, and before that the feed is looked at for the first time. So nothing is missed:
- Announced is only what is committed. What the feed had told by that look, be it gone from there since, was committed
  before the reading, and is in it. (A server that lags behind shows an earlier feed: more of it is still to come.)
- So is what was not announced by then, if it was committed before its folder was read, consistently. What is committed
  later is announced later: looks from the first one on bring it, or show a gap (registry.positions), or that we were
  away for too long; and then everything is read again.
What nobody announces, because its writer died before it could, others know when a lane comes upon it: as ever.
"""

import asyncio
import random
import time
from collections import Counter
from typing import Final

import structlog

from radius_bridge.process import together
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.poll import BACKOFF, Poll, backoff
from radius_bridge.registry.positions import News

SPREAD: Final = 2.0
"""Seconds over which bridges spread their reads of everything after a gap."""

LASTING: Final = 4.0
"""Seconds over which one of them reads each of its folders."""

PAUSE: Final = 30.0
"""Seconds between two of them, at least: what lanes know is only a hint."""

_log = structlog.get_logger(__name__)


def is_incomplete(news: News) -> bool:
    """True if others recorded what the news do not tell."""
    return bool(news.gaps) or news.again or news.rewound or news.missed


class Neighbours:
    """Tells the lanes of every session, binding and restart that is recorded: `load` at the start, and then `run`."""

    def __init__(self, consul: Consul, keys: Keys, lanes: Lanes) -> None:
        self._lanes = lanes
        # Bridges are few, and their records large: they read each as it comes.
        self._poll = Poll(consul, keys, keys.identity_changes, pauses=(0.0, 0.0), own=lambda: lanes.identity.key)
        self._missed = asyncio.Event()
        self._missed.set()
        self.counters: Counter[str] = self._poll.counters

    async def load(self) -> None:
        """Reads all that is recorded, as fast as others' turns allow. Raises RegistryError; then call it again."""
        await self._poll.look(at_once=True)  # the reading has what it brings
        async with together(RegistryError) as tasks:
            # A busy bridge's announcements do not stand for as long as a large reading takes.
            following = tasks.create_task(self._follow(), name="identity feed")
            await self._read(0.0)
            following.cancel()

    async def run(self) -> None:
        """Follows until cancelled; errors of Consul are counted, logged and waited out.

        Reads everything first, if it was not loaded.
        """
        async with together() as tasks:
            tasks.create_task(self._follow(), name="identity feed")
            tasks.create_task(self._make_up(), name="everything")

    async def _follow(self) -> None:
        async for news in self._poll.news():
            self._lanes.learn(
                [
                    Entry(change.key, change.index, raw=change.value)
                    for change in news.changes
                    if change.value is not None
                ]
            )
            if is_incomplete(news):
                self._missed.set()

    async def _read(self, spread: float) -> None:
        """Reads everything: what was missed until now is in it."""
        self._missed.clear()
        try:
            await self._lanes.load(spread)
        except RegistryError:
            self._missed.set()
            raise

    async def _make_up(self) -> None:
        """Reads everything again whenever some may have been missed."""
        failures = 0
        while True:
            await self._missed.wait()
            await asyncio.sleep(random.uniform(0, SPREAD))  # noqa: S311 - spreads load
            began = time.monotonic()
            try:
                await self._read(LASTING)
            except RegistryError as error:
                _log.warning("sessions and bindings not read", error=str(error))
                await asyncio.sleep(backoff(failures, BACKOFF))
                failures += 1
                continue
            failures = 0
            await asyncio.sleep(max(0.0, began + PAUSE - time.monotonic()))
