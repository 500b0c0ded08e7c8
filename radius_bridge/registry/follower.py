"""Follows one feed into a view: a single long poll, and reads of prefixes only when they are needed."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from math import inf
from typing import Final

import structlog

from radius_bridge.process import together
from radius_bridge.registry import poll
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.feed import Change, class_of
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.poll import Poll, backoff
from radius_bridge.registry.positions import News
from radius_bridge.registry.prefixes import Failure, PrefixReader
from radius_bridge.registry.view import Changed, View

GAP_SPREAD: Final = 2.0
"""Seconds over which thousands of hosts spread their reads after a gap."""

GAP_PAUSE: Final = 5.0
"""Seconds between two readings for gaps, at least: a broken writer must not make everybody read all the time."""

REWIND_SPREAD: Final = 5.0
"""Seconds over which they spread them after a restored snapshot, or when Consul was away for all of them."""

REFRESH: Final = (900.0, 1800.0)
"""Seconds after which everything is read again, whatever the feed says: between these, at random."""

_log = structlog.get_logger(__name__)


class Follower:
    """Keeps a view of the covered prefixes in step with Consul while `run` runs.

    `changed` is called (in the event loop, never concurrently, it must not block) with every batch of keys whose value
    has become another one; while it runs `view` is already the new state.

    `counters` are for monitoring: those of registry.poll.Poll, and `reads`, `entries_read`, `read_failures`,
    `changes`.
    """

    def __init__(
        self,
        consul: Consul,
        keys: Keys,
        feed: str,
        *,
        changed: Callable[[list[Changed]], None] = lambda _: None,
        read: Callable[[list[Changed]], None] | None = None,
        news: Callable[[list[Change]], None] = lambda _: None,
        refresh: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`feed` is `keys.access_changes` or `keys.identity_changes`.

        `read`, if given, is called in place of `changed` with what reads of prefixes found to be another value: once
        for all that were read together, and also if that is nothing. `news` is called with the entries of the feed
        before they are applied, whether they change anything or not.

        `refresh`: whether to read everything again now and then; without it the caller compares for himself.
        """
        self._keys = keys
        self._changed = changed
        self._read_changed = changed if read is None else read
        self._news = news
        self._reading = asyncio.Lock()
        self._poll = Poll(consul, keys, feed, clock=clock)
        self._refreshes = refresh
        self._begun = False
        self._due: dict[str, float] = {}
        """When each prefix is to be read (monotonic time)."""
        self._wanting: dict[str, int] = {}
        """Prefixes that something was missed of, with the number of the last time."""
        self._misses = 0
        self._read_for_gaps = 0.0
        self._failures = 0
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self.view = View()
        self.counters: Counter[str] = self._poll.counters
        self._reader = PrefixReader(consul, keys, self.view, self.counters)

    @property
    def last_contact(self) -> float:
        """Monotonic time at which Consul last told us how things are; 0 before the first time."""
        return self._poll.last_contact

    @property
    def trouble(self) -> str:
        """What is wrong with our contact to Consul; empty if it answered when it was last asked."""
        return self._poll.trouble

    @property
    def alarms(self) -> tuple[str, ...]:
        """What a person should look at, newest last (forged entries, clock skew); the last 20."""
        return tuple(self._poll.alarms)

    @property
    def is_complete(self) -> bool:
        """True if every covered prefix was read, and nothing was missed since."""
        return self._begun and not self._wanting

    def cover(self, prefixes: Iterable[str]) -> None:
        """Covers more prefixes; `run` reads them at once (many of one folder by one read of the folder).

        What is covered already is left as it is. May be called out of `changed`.
        """
        self._want([prefix for prefix in prefixes if prefix not in self.view.covered], 0.0, cover=True)

    def uncover(self, prefixes: Iterable[str]) -> None:
        """Forgets prefixes; `changed` does not hear of it."""
        for prefix in prefixes:
            self.view.uncover(prefix)
            self._due.pop(prefix, None)
            self._wanting.pop(prefix, None)
        self._note_progress()

    async def wait_complete(self) -> None:
        """Returns when `is_complete`; put a timeout around it."""
        await self._settled.wait()

    async def run(self) -> None:
        """Follows until cancelled; errors of Consul are counted, logged and waited out."""
        async with together() as tasks:
            tasks.create_task(self._follow(), name="feed")
            tasks.create_task(self._read_what_is_due(), name="feed's reads")

    async def _follow(self) -> None:
        async for news in self._poll.news():
            self.take(news)

    def take(self, news: News) -> None:
        """What one look at the feed brought."""
        if news.rewound or news.again:
            self.view.rewind()
        if news.rewound or news.again or news.missed:
            self._want(tuple(self.view.covered), REWIND_SPREAD)
        if news.changes:
            self._news(news.changes)
        changed = [each for change in news.changes for each in self.view.apply(change)]
        if news.gaps:
            classes = {class_of(self._keys, writer) for writer in news.gaps}
            root = f"{self._keys.root}/"
            self._want(
                [
                    prefix
                    for prefix in self.view.covered
                    if any(each and each.concerns(prefix.removeprefix(root)) for each in classes)
                ],
                GAP_SPREAD,
                for_gap=True,
            )
        if not self._begun:
            self._begun = True
            self._note_progress()
        self._tell(changed, self._changed)

    async def read_again(self, prefixes: Iterable[str]) -> bool:
        """Reads those of the prefixes that are covered once more, consistently; False if that failed.

        What is different is heard of before this returns.
        """
        return await self._read({prefix for prefix in prefixes if prefix in self.view.covered}, consistent=True)

    def _want(self, prefixes: Collection[str], spread: float, *, for_gap: bool = False, cover: bool = False) -> None:
        """Has the prefixes read within `spread` seconds; they count as incomplete until then."""
        if not prefixes:
            return
        self._misses += 1
        # One moment for all: prefixes of one folder are read together.
        now = time.monotonic()
        due = now + random.uniform(0, spread)  # noqa: S311 - spreads load
        if for_gap:
            if self._read_for_gaps <= now:
                self._read_for_gaps = max(due, self._read_for_gaps + GAP_PAUSE)
            due = self._read_for_gaps
        for prefix in prefixes:
            if cover:
                self.view.cover(prefix)
            self._wanting[prefix] = self._misses
            self._due[prefix] = min(due, self._due.get(prefix, due))
        self._note_progress()

    def _note_progress(self) -> None:
        self._wake.set()
        if self.is_complete:
            self._settled.set()
        else:
            self._settled.clear()

    def _tell(self, changed: list[Changed], listener: Callable[[list[Changed]], None]) -> None:
        self.counters["changes"] += len(changed)
        if changed or listener is not self._changed:
            listener(changed)

    async def _read_what_is_due(self) -> None:
        refresh = self._next_refresh()
        while True:
            now = time.monotonic()
            if now >= refresh:
                refresh = self._next_refresh()
                for prefix in tuple(self.view.covered):
                    self._due.setdefault(prefix, now)
            due = {prefix for prefix, moment in self._due.items() if moment <= now} if self._begun else set()
            if due:
                for prefix in due:
                    del self._due[prefix]
                await self._read(due)
                continue
            self._wake.clear()
            soonest = min(refresh, *self._due.values()) if self._begun and self._due else refresh
            try:
                async with asyncio.timeout(None if soonest == inf else max(0.0, soonest - now)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _next_refresh(self) -> float:
        return time.monotonic() + random.uniform(*REFRESH) if self._refreshes else inf  # noqa: S311 - spreads load

    async def _read(self, prefixes: set[str], *, consistent: bool = False) -> bool:
        """Reads prefixes, many of one folder together; False if one could not be read.

        What has changed is told at the end, all of it: who goes in one place and comes in another is not cut off. And
        nothing says that it is complete before everybody has heard of what is in it.
        """
        async with self._reading:
            misses: dict[str, int] = {}

            def begin(prefix: str) -> None:
                misses[prefix] = self._wanting.get(prefix, 0)

            found = await self._reader.read(prefixes, begin, consistent=consistent)
            for failure in found.failures:
                self._note_failure(failure)
            for prefix in found.taken:
                if self._wanting.get(prefix) == misses[prefix] and self.view.is_complete(prefix):
                    del self._wanting[prefix]
            self._tell(found.changed, self._read_changed)
            self._note_progress()
        self._failures = self._failures + 1 if found.failures else 0
        return not found.failures

    def _note_failure(self, failure: Failure) -> None:
        self.counters["read_failures"] += 1
        if not self._failures:
            _log.warning("not read for now", prefix=failure.what, error=str(failure.error))
        again = time.monotonic() + backoff(self._failures, poll.BACKOFF)
        for prefix in failure.prefixes & self.view.covered:
            self._due.setdefault(prefix, again)
