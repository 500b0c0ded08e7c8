"""One long poll on a feed: what is new in it, and when it must not be trusted to go on from where it was."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from radius_bridge.registry import meta
from radius_bridge.registry.consul import Consistency, Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Snapshot
from radius_bridge.registry.positions import AWAY, News, Positions

WAIT: Final = 30.0
"""Seconds that one poll waits: after a restore from an older snapshot a blocked poll can be blind."""

STALE: Final = 5.0
"""Seconds without contact to the leader, from which a server's answer is not good enough."""

BACKOFF: Final = (0.25, 30.0)
"""First and longest pause (seconds, before jitter) after an error."""

CALM: Final = 0.05
"""Seconds after an answer without news: polls of a missing prefix wake for every write to any key."""

PAUSE: Final = (0.005, 0.1)
"""First and longest pause (seconds) under load, after which one answer brings what several would have. Less than
`feed.FRESH`, so that nothing is missed."""

FEW: Final = 2
"""Changes in one answer up to which there is no load: a login is one, or two with its IPv6 address."""

SKEW: Final = 5.0
"""Seconds by which a writer's clock may differ from ours."""

_ALARMS: Final = 20

_log = structlog.get_logger(__name__)


class Poll:
    """Follows the records of one feed.

    `counters` are for monitoring: `polls`, `announced` (entries), `gaps`, `absences`, `rewinds`, `forged`, `skewed`,
    `failures`, `confirmed` (answers that were asked of the leader again).
    """

    def __init__(
        self,
        consul: Consul,
        keys: Keys,
        feed: str,
        *,
        pauses: tuple[float, float] = PAUSE,
        own: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`feed` is `keys.access_changes` or `keys.identity_changes`; `pauses` are the first and longest under load.

        `own` gives the key of our own record in it, if there is one.
        """
        self._consul = consul
        self._keys = keys
        self._feed = feed
        self._pauses = pauses
        self._own = own
        self._clock = clock
        self._positions = Positions(keys)
        self._index = 0
        """The index of the newest answer since the last rewind."""
        self._since = 0
        """The index since which the next look waits for something new; 0 if it is to be answered at once."""
        self._seen_at = 0.0
        """When the last look was answered (epoch seconds); 0 before the first one."""
        self._generation = ""
        """Of the registry, as far as we know it."""
        self._is_another = False
        """True if it has become another one, and nobody has been told yet."""
        self._followed = False
        """True if the last look was answered: a record that the next one finds was written while that waited."""
        self.counters: Counter[str] = Counter()
        self.alarms: deque[str] = deque(maxlen=_ALARMS)
        """What a person should look at, newest last."""
        self._skewed: deque[str] = deque(maxlen=_ALARMS)
        """Writers whose clock differs: they write many times a second, and are told once."""
        self.last_contact = 0.0
        """Monotonic time at which Consul last told us how things are; 0 before the first time."""
        self.trouble = ""
        """What is wrong with our contact to Consul; empty if it answered when it was last asked."""

    async def news(self) -> AsyncIterator[News]:
        """Gives what is new, for ever; errors of Consul are counted, logged and waited out.

        What the first look brings is empty, and says that the feed can be reached. Read prefixes after it has come, and
        again (all of them) after one that is `rewound`, `again` or `missed`.
        """
        failures = 0
        pause = 0.0
        while True:
            try:
                news = await self.look()
            except RegistryError as error:
                if not failures:
                    _log.warning("feed not followed for now", feed=self._feed, error=str(error))
                await asyncio.sleep(backoff(failures, BACKOFF))
                failures += 1
                continue
            failures = 0
            yield news
            pause = next_pause(pause, len(news.changes), self._pauses)
            await asyncio.sleep(pause if news.changes or news.clocks else CALM)

    async def look(self, *, at_once: bool = False) -> News:
        """What is new since the last look; waits for it, up to `WAIT` seconds, unless `at_once` or this is the first.

        Raises RegistryError. If it does, or is cancelled, nothing is lost: the next one brings it.
        """
        since = 0 if at_once else self._since
        asked, asked_at = time.monotonic(), self._clock()
        followed, self._followed = self._followed, False
        try:
            if not followed:
                await self._check_registry("default")
            news, snapshot = await self._ask(since)
            if snapshot.index == since and not news.rewound:
                await self._check_registry("stale")  # nothing is new, so that no news is lost if this fails
        except RegistryError as error:
            self.counters["failures"] += 1
            self.trouble = str(error)
            self._since = 0
            raise
        self.trouble = ""
        if self._is_another and not news.rewound:
            news = self._begin_again(snapshot)
        self._is_another = False
        # By the clock on the wall: a host that was suspended has been away too.
        answered_at = self._clock()
        news.missed = self._seen_at > 0 and (asked_at - self._seen_at > AWAY or answered_at - asked_at > WAIT + AWAY)
        self._seen_at = answered_at
        self.counters["absences"] += news.missed
        self.last_contact = time.monotonic()
        is_news = snapshot.index != since or news.rewound
        # Woken early and nothing new: so a restore wakes a poll. One that does not wait will see it.
        self._since = snapshot.index if is_news or self.last_contact - asked >= WAIT / 2 else 0
        self._note(news, followed)
        self._followed = True
        return news

    async def _ask(self, index: int) -> tuple[News, Snapshot]:
        """What Consul has, and what of it is new: once that is taken, nothing waits that could be cancelled."""
        self.counters["polls"] += 1
        snapshot = await self._consul.read(self._feed, index=index, wait=WAIT, consistency="stale")
        if not snapshot.known_leader or snapshot.last_contact > STALE:
            snapshot = await self._consul.read(self._feed)
        news = None
        if snapshot.index >= self._index and (self._index or not snapshot.missing):
            news = self._positions.read(snapshot.entries, self._clock(), self._own())
        if news is None or news.rewound:
            # A server that lags behind, a lost registry, or a restored one: the leader knows.
            self.counters["confirmed"] += 1
            snapshot = await confirmed(self._consul, self._keys, self._feed)
            news = self._positions.read(snapshot.entries, self._clock(), self._own())
            if news.rewound or snapshot.index < self._index:
                news = self._begin_again(snapshot)
                self._generation = ""
        self._index = snapshot.index
        return news, snapshot

    async def _check_registry(self, consistency: Consistency) -> None:
        """Notes if the sentinel is of another generation than it was. Raises RegistryError if it has gone.

        A registry that was lost and begun anew may show in nothing else, once its index has overtaken ours.
        """
        found = await meta.read(self._consul, self._keys, consistency=consistency)
        if found is None and self._generation:
            found = await meta.expect(self._consul, self._keys, self._feed)
        generation = "" if found is None else found.generation
        self._is_another |= self._generation not in ("", generation)
        self._generation = generation

    def _begin_again(self, snapshot: Snapshot) -> News:
        self.counters["rewinds"] += 1
        _log.warning("Consul has gone back: everything is to be read again", feed=self._feed)
        self._positions.forget()
        self._positions.read(snapshot.entries, self._clock(), self._own())
        return News(rewound=True)

    def _note(self, news: News, followed: bool) -> None:
        self.counters["announced"] += len(news.changes)
        self.counters["gaps"] += len(news.gaps)
        for writer, reason in news.gaps.items():
            _log.info("gap in the feed", writer=writer, reason=reason)
        for forgery in news.forged:
            self._alarm("forged", "forged entry in the feed, discarded", forgery)
        now = self._clock()
        for writer, clock in news.clocks.items():
            # A record that waited for us is old for another reason than its writer's clock.
            differs = clock - now > SKEW or (followed and now - clock > SKEW)
            if differs and writer not in self._skewed:
                self._skewed.append(writer)
                self._alarm("skewed", "clocks differ", f"{writer}: its clock is {clock - now:+.1f} s from ours")
            elif not differs and writer in self._skewed:
                self._skewed.remove(writer)

    def _alarm(self, counter: str, what: str, detail: str) -> None:
        self.counters[counter] += 1
        self.alarms.append(f"{what}: {detail}")
        _log.error(what, detail=detail)


async def confirmed(consul: Consul, keys: Keys, prefix: str) -> Snapshot:
    """What the leader says; RegistryError if nothing is left because the registry itself is gone."""
    snapshot = await consul.read(prefix, consistency="consistent")
    if snapshot.missing:
        await meta.expect(consul, keys, prefix)
    return snapshot


def next_pause(pause: float, changes: int, limits: tuple[float, float] = PAUSE, few: int = FEW) -> float:
    """Seconds to wait before the next turn, given those before the last one and the number of changes that it brought.

    Under load (more than `few`) we take turns less often, and each brings more: every wake-up of every host, and every
    transaction, costs Consul something.
    """
    first, longest = limits
    if changes > few:
        return min(longest, max(first, 2 * pause))
    return pause / 2 if pause > first else 0.0


def backoff(failures: int, limits: tuple[float, float]) -> float:
    """Seconds to wait after so many failures one after the other: full jitter between nothing and what grows so."""
    first, longest = limits
    return random.uniform(0, min(longest, first * 2 ** min(failures, 16)))  # noqa: S311 - spreads retries
