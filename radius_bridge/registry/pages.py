"""Where lanes announce: small records of the feed that are written in the same transaction as what they tell of.

So what is committed is announced, and nothing else: whoever dies has done both or nothing. One transaction at a time
writes a page. When it is full it rests until every follower has had the time to read it, and then begins anew: a
transaction never carries much of what earlier ones have said.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from radius_bridge.registry.announcer import QUIET, READ_ALL, writer_name
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Conflict, RegistryError
from radius_bridge.registry.feed import ABANDONED, FRESH, PAGE_BYTES, QUIET_BYTES, Change, Class, Log, record_key
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

    def ops(self, changes: Iterable[Change]) -> list[Op]:
        """What announces changes (which have no index yet) if it is done in one transaction with them."""
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
        self._is_restored = False
        self.counters: Counter[str] = Counter()

    def take(self) -> Page:
        """A page for one transaction."""
        now = time.monotonic()
        while self._open:
            page = self._open.pop()
            if now - page.written < ABANDONED / 2:  # else it may be swept any moment
                return page
        rested = [page for page in self._resting if now - page.written >= FRESH]
        if rested:  # the newest of them, so that what a burst has left over rests for good
            page = rested[-1]
            self._resting.remove(page)
            page.log.trim()
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
        if page.log.size > PAGE_BYTES:
            self._resting.append(page)
        else:
            self._open.append(page)

    def restored(self) -> None:
        """Somebody else has changed a page: Consul was restored, and what we announced since may never have been."""
        self._is_restored = True
        self._open.clear()
        self._resting.clear()
        self.counters["lives"] += 1
        _log.warning("Consul has gone back: beginning anew", feed=Class.BRIDGE.value)

    async def run(self) -> None:
        """In quiet times, empties the page that is used next, and ends the others, until cancelled."""
        while True:
            await asyncio.sleep(QUIET)
            await self._tidy(time.monotonic() - QUIET, keep=1)

    async def close(self) -> None:
        """Ends all pages, when what they say has been read: takes QUIET seconds if they say something."""
        if any(page.log.size for page in (*self._open, *self._resting)):
            await asyncio.sleep(QUIET)
        await self._tidy(time.monotonic(), keep=0)

    async def _tidy(self, before: float, keep: int) -> None:
        """Ends the pages not written since `before`, but for the `keep` that are taken next: these are emptied."""
        idle = [page for page in (*self._resting, *self._open) if page.written <= before]
        ended = idle[: len(idle) - keep]
        kept = [page for page in idle[len(ended) :] if page.log.size > QUIET_BYTES]
        taken = [page for page in (*ended, *kept) if page.index][:MAX_OPS]
        if not taken:
            return
        self._open = [page for page in self._open if page not in taken]
        self._resting = deque(page for page in self._resting if page not in taken)
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
                    self._open.append(page)
            self.counters["ended"] += sum(page in ended for page in taken)
