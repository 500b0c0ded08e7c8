"""What other bridges record: so that a session on one, and its Stop, or the lease of its address, on another meet."""

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


def is_incomplete(news: News, own: str) -> bool:
    """True if others recorded what the news do not tell. `own` is the key of our record, whose gaps tell nothing: what
    we wrote we know, and under load we read it too seldom.
    """
    return bool(news.gaps.keys() - {own}) or news.again or news.rewound or news.missed


class Neighbours:
    """Tells the lanes of every session, binding and restart that the identity feed announces; `run` does the work."""

    def __init__(self, consul: Consul, keys: Keys, lanes: Lanes) -> None:
        self._lanes = lanes
        # Bridges are few, and their records large: they read each as it comes.
        self._poll = Poll(consul, keys, keys.identity_changes, pauses=(0.0, 0.0))
        self._missed = asyncio.Event()
        self.counters: Counter[str] = self._poll.counters

    async def run(self) -> None:
        """Follows until cancelled; errors of Consul are counted, logged and waited out."""
        self._missed.set()  # what was recorded between the lanes' own first reading and our first look
        async with together() as tasks:
            tasks.create_task(self._follow(), name="identity feed")
            tasks.create_task(self._load(), name="everything")

    async def _follow(self) -> None:
        async for news in self._poll.news():
            self._lanes.learn(
                [
                    Entry(change.key, change.index, raw=change.value)
                    for change in news.changes
                    if change.value is not None
                ]
            )
            if is_incomplete(news, self._lanes.identity.key):
                self._missed.set()

    async def _load(self) -> None:
        """Reads everything again whenever some may have been missed."""
        failures = 0
        while True:
            await self._missed.wait()
            await asyncio.sleep(random.uniform(0, SPREAD))  # noqa: S311 - spreads load
            self._missed.clear()
            began = time.monotonic()
            try:
                await self._lanes.load(LASTING)
            except RegistryError as error:
                _log.warning("sessions and bindings not read", error=str(error))
                self._missed.set()
                await asyncio.sleep(backoff(failures, BACKOFF))
                failures += 1
                continue
            failures = 0
            await asyncio.sleep(max(0.0, began + PAUSE - time.monotonic()))
