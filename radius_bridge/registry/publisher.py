"""Announces what nobody announced: changes by other programs (`consul kv put`), and of writers that died.

It follows the feed as every host does, so it knows what hosts know. The leader of a class of writers reads the
class's prefixes every few seconds and announces each difference. That is also the way back from a restored snapshot
that hosts did not notice.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from radius_bridge.process import together
from radius_bridge.registry import meta
from radius_bridge.registry.announcer import READ_ALL, Announcer
from radius_bridge.registry.comparison import Comparison
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import UNREADABLE, Conflict, Forbidden, NotRecorded, RegistryError
from radius_bridge.registry.feed import Change, Class, decode_record, is_abandoned
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.leader import Leader, Leadership, LeadershipLost
from radius_bridge.registry.parts import read_parts, slices
from radius_bridge.registry.view import Changed

EVERY: Final = 9.0
"""Seconds between the beginnings of two readings. With SPREAD and GRACE, less than the 15 that are promised."""

SPREAD: Final = 4.0
"""Seconds over which a large reading is spread, so that logins hardly feel it."""

GRACE: Final = 1.0
"""Seconds that its writer has to announce a change before we do."""

ANNOUNCE: Final = 10.0
"""Seconds that an announcement may take."""

SLICE: Final = 500
"""Entries that are compared between two turns of the event loop (less than a millisecond)."""

READ_WITHIN: Final = 60.0
"""Seconds after which somebody else may lead if we still could not read everything."""

REFUSED_PAUSE: Final = 300.0
"""Seconds before we ask again whether Consul's ACL lets us announce."""

SWEEP_EVERY: Final = 30.0
"""Seconds between two sweeps of abandoned records."""

_log = structlog.get_logger(__name__)

CLASSES: Final = (Class.BRIDGE, Class.ENGINEER)


@dataclass(frozen=True, slots=True)
class _Lead:
    """A class of writers that we lead."""

    announcer: Announcer
    leadership: Leadership
    done: dict[str, int]
    """By folder, the index up to which everything is announced; 0 if it was empty then, or is not here."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a round failed: another bridge may fare better."""

    async def until_failed(self) -> None:
        """Raises RegistryError when a round has failed."""
        await self.failed.wait()
        raise RegistryError("cannot publish")


class Publisher:
    """Publishes for both classes of access, as far as the token may; `run` does the work.

    `counters` are for monitoring: `announced`, `readings`, `restored` (everybody was told to read again),
    `swept`, `failures`, `incomplete` (not everything could be read for a minute); `follower.counters` tell of the
    following.
    """

    def __init__(self, consul: Consul, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._consul = consul
        self._keys = keys
        self._clock = clock
        self.follower = Follower(consul, keys, keys.access_changes, changed=self._note, refresh=False, clock=clock)
        self._leads: dict[Class, _Lead] = {}
        self._elected = asyncio.Event()
        self._comparisons: list[Comparison] = []
        """Those under way."""
        self.counters: Counter[str] = Counter()

    async def run(self, classes: Iterable[Class] = CLASSES) -> None:
        """Publishes whenever we lead a class, until cancelled."""
        self.follower.cover([self._keys.groups, self._keys.services, self._keys.sets])
        async with together() as tasks:
            tasks.create_task(self.follower.run(), name="publisher's follower")
            tasks.create_task(self._publish(), name="publish")
            for each in classes:
                tasks.create_task(self._campaign(each), name=f"publish {each.value}")

    async def _campaign(self, writers: Class) -> None:
        """Leads the class whenever that is possible. Who may not announce must not keep others from it."""
        name = writers.value.rpartition("/")[2]
        await self._until_allowed(writers)
        leader = Leader(self._consul, self._keys.lock(f"publish-{name}"))
        await leader.run(lambda leadership: self._lead(writers, leadership))

    async def _until_allowed(self, writers: Class) -> None:
        refused = False
        while True:
            try:
                await self._consul.transact([Op.set(f"{self._keys.changes}{writers.value}/", b"")])
            except Forbidden as error:
                if not refused:
                    _log.info("others must publish this (radius-bridge publish)", refused=str(error))
                refused = True
                await asyncio.sleep(REFUSED_PAUSE)
            except RegistryError:
                self.counters["failures"] += 1
                await asyncio.sleep(EVERY)
            else:
                return

    async def _lead(self, writers: Class, leadership: Leadership) -> None:
        """The leader's work. Raises LeadershipLost, RegistryError."""
        announcer = Announcer(self._consul, self._keys, writers, clock=self._clock)
        lead = self._leads[writers] = _Lead(announcer, leadership, await self._published(writers))
        self._elected.set()
        try:
            async with together(LeadershipLost, RegistryError) as tasks:
                tasks.create_task(announcer.run(), name="publisher's announcer")
                tasks.create_task(self._sweep(writers, leadership), name="feed's sweeper")
                tasks.create_task(lead.until_failed(), name="publisher's leadership")
        finally:
            del self._leads[writers]

    async def _publish(self) -> None:
        """Reads and announces for all classes that we lead: what they share is read once."""
        was_complete = True
        while True:
            try:
                async with asyncio.timeout(READ_WITHIN):
                    await self.follower.wait_complete()
            except TimeoutError:
                self.counters["incomplete"] += 1
                if was_complete:
                    _log.error("cannot publish: not everything can be read; may the token?")
                was_complete = False
                for lead in self._leads.values():
                    lead.failed.set()
                continue
            was_complete = True
            began = time.monotonic()
            self._elected.clear()
            try:
                await self._round(dict(self._leads))
            finally:
                self._comparisons.clear()
            try:
                async with asyncio.timeout(max(GRACE, began + EVERY - time.monotonic())):
                    await self._elected.wait()
            except TimeoutError:
                continue

    async def _round(self, leads: dict[Class, _Lead]) -> None:
        """One reading of everything that the classes may name; what fails for one of them does not keep the others."""
        for folder in (self._keys.groups, self._keys.services, self._keys.sets):
            below = folder.removeprefix(f"{self._keys.root}/")
            since = {writers: lead.done.get(folder, 0) for writers, lead in leads.items() if writers.concerns(below)}
            with self._failing(leads, *since):
                if since and {await self._consul.index_of(folder)} != set(since.values()):
                    await self._compare(folder, since)
        if not self._comparisons:
            return
        await asyncio.sleep(GRACE)
        if not self.follower.is_complete:
            return  # about to be read whole; the next reading is compared with that
        for comparison in self._comparisons:
            for writers, changes in comparison.settle().items():
                if (lead := leads.get(writers)) and self._leads.get(writers) is lead and lead.leadership.holds():
                    with self._failing(leads, writers):
                        await self._announce(lead.announcer, comparison.folder, changes)
                        lead.done[comparison.folder] = comparison.done(writers)
        for writers, lead in list(leads.items()):
            if self._leads.get(writers) is lead:
                with self._failing(leads, writers):
                    await self._consul.transact([Op.set(self._mark(writers), msgspec.json.encode(lead.done))])

    @contextmanager
    def _failing(self, leads: dict[Class, _Lead], *classes: Class) -> Iterator[None]:
        """What fails within ends our leadership of these, and their part in this round."""
        try:
            yield
        except RegistryError as error:
            self.counters["failures"] += 1
            _log.warning("cannot publish for now", writers=[each.value for each in classes], error=str(error))
            for each in classes:
                if lead := leads.pop(each, None):
                    lead.failed.set()

    async def _announce(self, announcer: Announcer, folder: str, changes: list[Change]) -> None:
        if not changes:
            return
        if READ_ALL in changes:
            self.counters["restored"] += 1
            _log.warning("telling everybody to read again", prefix=folder)
        self.counters["announced"] += len(changes)
        try:
            async with asyncio.timeout(ANNOUNCE):
                await announcer.announce(changes)
        except (TimeoutError, NotRecorded) as error:
            raise RegistryError(f"{folder}: cannot announce ({error})") from error

    async def _compare(self, folder: str, since: dict[Class, int]) -> None:
        comparison = Comparison(self.follower.view, f"{self._keys.root}/", folder, since, self._clock())
        self._comparisons.append(comparison)
        try:
            await self._read(comparison)
        except RegistryError:
            self._comparisons.remove(comparison)  # half of it says nothing
            raise

    async def _read(self, comparison: Comparison) -> None:
        """Reads a folder: its keys, and then, a few at a time, what they say."""
        folder = comparison.folder
        self.counters["readings"] += 1
        listing = await self._consul.read_keys(folder)
        if listing.missing:
            listing = await self._consul.read_keys(folder, consistency="consistent")
            await meta.expect(self._consul, self._keys, folder)
        comparison.index, comparison.is_empty = listing.index, listing.missing
        stands: set[str] = set()
        for lot in slices(listing.keys, SLICE):
            stands.update(lot)
            await asyncio.sleep(0)
        for lot in slices(tuple(self.follower.view.below(folder)), SLICE):
            comparison.look_for(lot, stands)
            await asyncio.sleep(0)
        async for entries in read_parts(self._consul, folder, listing.keys, spread=SPREAD, wanted=comparison.concerns):
            for found in slices(entries, SLICE):
                comparison.look(found)
                await asyncio.sleep(0)

    def _mark(self, writers: Class) -> str:
        """Where the leader notes up to which index everything is announced, for who leads after it."""
        return self._keys.lock(f"published-{writers.value.rpartition('/')[2]}")

    async def _published(self, writers: Class) -> dict[str, int]:
        """By folder, the index up to which an earlier leader has announced everything."""
        entry = await self._consul.get(self._mark(writers), consistency="consistent")
        try:
            return {} if entry is None else msgspec.json.decode(entry.value, type=dict[str, int])
        except UNREADABLE:
            return {}

    def _note(self, changed: list[Changed]) -> None:
        for comparison in self._comparisons:
            comparison.note(key for key, _, _ in changed)

    async def _sweep(self, writers: Class, leadership: Leadership) -> None:
        """Removes the records of writers that have ended; the bridges' leader does so for bindings too."""
        feeds = (writers, Class.IDENTITY) if writers is Class.BRIDGE else (writers,)
        while True:
            for each in feeds:
                snapshot = await self._consul.read(f"{self._keys.changes}{each.value}/")
                for entry in snapshot.entries:
                    if entry.key.endswith("/"):
                        continue
                    try:
                        over = is_abandoned(decode_record(entry.value), self._clock())
                    except ValueError:
                        over = True  # nobody can read it: not even who might have been meant to
                    if over:
                        leadership.check()
                        await self._remove(Op.delete_cas(entry.key, entry.modify_index), leadership)
            await asyncio.sleep(SWEEP_EVERY)

    async def _remove(self, op: Op, leadership: Leadership) -> None:
        try:
            await self._consul.transact([leadership.fence, op])
            self.counters["swept"] += 1
        except Conflict:
            leadership.check()  # its writer lives after all, or we lead no longer: the next round shows
