"""Who was refused: a bounded table of what the kernel logs (agent.nflog), by address and service."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

from agent.dataplane.errors import DataplaneError
from agent.dataplane.kinds import short_name
from agent.dataplane.rules import LOG_PREFIX, REFUSED
from agent.nflog import Logged, NflogSocket
from radius_bridge.policy.members import Prefix

MOST: Final = 1000
"""Pairs of address and service that are remembered; of more, those that were refused last."""

TOLD: Final = 5
"""Addresses that are told in Consul: who was refused most often."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Entry:
    count: int
    first: float
    last: float


class RefusedTable:
    """Who was refused where, how often, and when. Pure; times are epoch seconds."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._entries: dict[tuple[Prefix, str], _Entry] = {}
        self.counters: Counter[str] = Counter()
        """`logged`, `forgotten` (pairs, for want of room), `foreign` (not our rules'), `lost` (how often more came than
        there was room for)."""

    def add(self, logged: Iterable[Logged], now: float) -> None:
        """These were refused."""
        for each in logged:
            if not each.prefix.startswith(LOG_PREFIX):
                self.counters["foreign"] += 1
                continue
            self.counters["logged"] += 1
            key = each.source, each.prefix.removeprefix(LOG_PREFIX)
            entry = self._entries.pop(key, None) or _Entry(0, now, now)
            entry.count += 1
            entry.last = now
            self._entries[key] = entry  # the last refused comes last
            if len(self._entries) > self._most:
                del self._entries[next(iter(self._entries))]
                self.counters["forgotten"] += 1

    def rows(self, services: Collection[str], user_of: Callable[[Prefix], str]) -> list[dict[str, Any]]:
        """All of them, the last refused first; `services` are this host's, `user_of` may give an empty name."""
        named = {REFUSED + short_name(name): name for name in services}
        return [
            {
                "address": str(address),
                "user": user_of(address),
                "service": named.get(what, what.removeprefix(REFUSED)),
                "count": entry.count,
                "first": round(entry.first, 3),
                "last": round(entry.last, 3),
            }
            for (address, what), entry in reversed(self._entries.items())
        ]

    def top(self) -> dict[str, int]:
        """The addresses that were refused most often, and how often."""
        found: Counter[str] = Counter()
        for (address, _), entry in self._entries.items():
            found[str(address)] += entry.count
        return dict(found.most_common(TOLD))


class RefusedLog:
    """Fills the table with what the kernel logs."""

    def __init__(self, group: int, clock: Callable[[], float] = time.time) -> None:
        self._group = group
        self._clock = clock
        self.table = RefusedTable()
        self.error = ""
        """Why nothing is heard; empty if it is."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens while the context is open; to be entered in the event loop and the network namespace."""
        try:
            heard = NflogSocket(self._group)
        except DataplaneError as error:
            self.error = str(error)
            log.warning("who is refused is not heard, only counted", error=self.error)
            yield
            return

        def hear() -> None:
            self.table.add(heard.take(), self._clock())
            self.table.counters["lost"] = heard.lost

        loop = asyncio.get_running_loop()
        loop.add_reader(heard.fileno(), hear)
        try:
            yield
        finally:
            loop.remove_reader(heard.fileno())
            heard.close()
