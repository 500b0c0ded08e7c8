"""Where lanes announce: small records of the feed that are written in the same transaction as what they tell of.

So what is committed is announced, and nothing else: whoever dies has done both or nothing. One transaction at a time
writes a page. When it is full it rests until every follower has had the time to read it, and then begins anew: a
transaction never carries much of what earlier ones have said, and followers never read much that is old.
"""

import asyncio
import time
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from radius_bridge.registry.announcer import QUIET, READ_ALL, writer_name
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Conflict, RegistryError
from radius_bridge.registry.feed import (
    ABANDONED,
    BRIEF_KEPT,
    FRESH,
    KEPT_BYTES,
    KEPT_FOR,
    PAGE_BYTES,
    QUIET_BYTES,
    Change,
    Class,
    Log,
    record_key,
)
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import MAX_OPS, Op
from radius_bridge.registry.transport import TRY_TIMEOUT

OCTETS: Final = 96 * 1024
"""What announcing adds to the body of a transaction, at most: a full page and as much as one changes, in base64."""

_log = structlog.get_logger(__name__)


class Page:
    """One record, and what it says. Nobody else writes it."""

    def __init__(self, keys: Keys, clock: Callable[[], float], *, with_folder: bool) -> None:
        """`with_folder`: the folder is a key too, so that a feed without a writer wakes for nothing but itself."""
        self.key = record_key(keys, Class.BRIDGE, writer_name())
        self._folder = f"{self.key.rpartition('/')[0]}/" if with_folder else ""
        self._clock = clock
        self.log = Log(keys)
        self._said: list[bytes] = []
        """What is announced in the transaction under way."""
        self.index = 0
        """Its modify index; 0 while it is not in Consul."""
        self.written = time.monotonic()
        """When it was last written (monotonic seconds)."""
        self.tells_all = False
        """True if it is the first to say that everything is to be read again."""

    @property
    def operations(self) -> int:
        """How many operations announce something on it."""
        return 2 if self._folder else 1

    @property
    def is_full(self) -> bool:
        """True if it is to rest, and then to begin anew."""
        return self.log.size > PAGE_BYTES

    def may_be_written(self, now: float) -> bool:
        """False if it was not written for so long that it may be swept any moment. `now`: monotonic seconds."""
        return now - self.written < ABANDONED / 2

    def ops(self, changes: Iterable[Change]) -> list[Op]:
        """What announces changes (which have no index yet) if it is done in one transaction with them."""
        if self.is_full:
            self.log.trim()
        else:
            self.log.forget_old(time.monotonic())
        self._said = self.log.lines(changes)
        ops = [Op.cas(self.key, self.log.record(self._clock(), self._said), self.index)]
        if self._folder:
            ops.append(Op.set(self._folder, b""))
        return ops

    def committed(self, index: int) -> None:
        """That was done, by the commit with that index."""
        self.log.extend(self._said, index, time.monotonic())
        self.emptied(index)

    def emptied(self, index: int) -> None:
        """It was written, and nothing new said, by the commit with that index."""
        self.index = index
        self.written = time.monotonic()
        self._folder, self._said = "", []


class Pages:
    """The pages of one bridge. `run` keeps them tidy.

    Who takes one gives it back when its transaction is committed or refused; when nobody knows what became of that,
    never: then the page is the one thing that only the transaction itself writes.

    `counters` are for monitoring: `announcements`, `entries`, `octets`, `ended`, `lives` (begun anew because Consul was
    restored).
    """

    def __init__(self, consul: Consul, keys: Keys, clock: Callable[[], float] = time.time) -> None:
        self._consul = consul
        self._keys = keys
        self._clock = clock
        self._open: list[Page] = []
        """With room; the last one is the next to be taken."""
        self._resting: deque[Page] = deque()
        """Full; the first has rested longest."""
        self._spare: list[Page] = []
        """Everybody has read what they say; the last one is taken when no other will do."""
        self._is_restored = False
        self.counters: Counter[str] = Counter()

    def take(self) -> Page:
        """A page for one transaction."""
        now = time.monotonic()
        while (page := self._next(now)) is not None:
            if page.may_be_written(now):
                return page
        page = Page(self._keys, self._clock, with_folder=not self.counters["announcements"])
        if self._is_restored:
            page.tells_all = True
            page.log.extend(page.log.lines([READ_ALL]), 0, now)
        return page

    def give_back(self, page: Page, octets: int = 0, entries: int = 0) -> None:
        """It was written with so many octets and new entries, or (0) not at all."""
        if octets:
            self.counters["announcements"] += 1
            self.counters["octets"] += octets
            self.counters["entries"] += entries
            self._is_restored &= not page.tells_all
        if page.is_full:
            insort(self._resting, page, key=lambda each: each.written)
        else:
            self._open.append(page)

    def restored(self) -> None:
        """Somebody else has changed a page: Consul was restored, and what we announced since may never have been."""
        self._is_restored = True
        for pages in (self._open, self._resting, self._spare):
            pages.clear()
        self.counters["lives"] += 1
        _log.warning("Consul has gone back: beginning anew", feed=Class.BRIDGE.value)

    async def run(self) -> None:
        """Empties pages that everybody has read, and ends those that nobody has used for long, until cancelled."""
        while True:
            await asyncio.sleep(FRESH)
            await self._tidy(time.monotonic())

    async def close(self) -> None:
        """Ends all pages, when what they say has been read: takes QUIET seconds if they say something."""
        if any(page.log.size for page in (*self._open, *self._resting)):
            await asyncio.sleep(QUIET)
        self._spare += [*self._resting, *self._open]
        self._resting.clear()
        self._open.clear()
        await self._silence((), self._spare)

    def _next(self, now: float) -> Page | None:
        if self._open:
            return self._open.pop()
        if self._has_rested(now):
            return self._resting.popleft()
        return self._spare.pop() if self._spare else None

    def _has_rested(self, now: float) -> bool:
        """True if there is a full page that is not to rest any longer: the first.

        It rests for KEPT_FOR; when younger ones and the one in use hold KEPT_BYTES, as long as what it says is FRESH.
        """
        if not self._resting:
            return False
        others = len(self._resting)
        return now - self._resting[0].written >= (KEPT_FOR if others * PAGE_BYTES < KEPT_BYTES else FRESH)

    async def _tidy(self, now: float) -> None:
        """Empties the pages that everybody has read, and ends those that nobody has used for long, but for the next."""
        while self._has_rested(now):
            self._spare.append(self._resting.popleft())
        self._spare = [page for page in self._spare if page.may_be_written(now)]
        self._spare += [page for page in self._open if now - page.written >= QUIET]
        self._open = [page for page in self._open if now - page.written < QUIET]
        # Who has ended is read for BRIEF_KEPT all the same, and the next burst would need another one.
        ended = [page for page in self._spare[:-1] if now - page.written >= BRIEF_KEPT]
        emptied = [page for page in self._spare if page.log.size > QUIET_BYTES and page not in ended]
        await self._silence(emptied, ended)

    async def _silence(self, emptied: Sequence[Page], ended: Sequence[Page]) -> None:
        """Has spare pages say nothing any more."""
        now = time.monotonic()
        taken = [page for page in (*emptied, *ended) if page.index and page.may_be_written(now)][:MAX_OPS]
        if not taken:
            return
        self._spare = [page for page in self._spare if page not in taken]
        ops = []
        for page in taken:
            page.log.trim()
            ops.append(Op.cas(page.key, page.log.record(self._clock(), ended=page in ended), page.index))
        try:
            done = await self._consul.transact(ops, timeout=TRY_TIMEOUT)
        except Conflict:
            self.restored()
        except RegistryError as error:
            _log.info("pages of the feed not tidied", error=str(error))  # they are swept when they are old
        else:
            for page in taken:
                if page not in ended:
                    page.emptied(done.modified[page.key])
                    self._spare.append(page)
            self.counters["ended"] += sum(page in ended for page in taken)
