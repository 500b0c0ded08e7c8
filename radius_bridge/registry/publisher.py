"""Announces what nobody announced: changes by other programs (`consul kv put`), and of writers that died.

It follows the feed as every host does, so it knows what hosts know. The leader of a class of writers reads the
class's prefixes every few seconds and announces each difference. That is also the way back from a restored snapshot
that hosts did not notice.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import structlog

from radius_bridge.policy.expiry import is_over, parse_expiry
from radius_bridge.registry.announcer import READ_ALL, Announcer
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Conflict, Forbidden, NotRecorded, RegistryError
from radius_bridge.registry.feed import (
    BRIDGE_GROUPS,
    Change,
    Class,
    as_announced,
    decode_record,
    is_abandoned,
)
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op, Snapshot
from radius_bridge.registry.leader import Leader, Leadership
from radius_bridge.registry.poll import confirmed
from radius_bridge.registry.view import Changed

EVERY: Final = 10.0
"""Seconds between two readings of a prefix, at most."""

GRACE: Final = 1.0
"""Seconds that its writer has to announce a change before we do."""

ANNOUNCE: Final = 10.0
"""Seconds that an announcement may take."""

TOO_MANY: Final = 10_000
"""Differences from which on it is less to have everybody read again."""

SLICE: Final = 2000
"""Entries that are compared between two turns of the event loop."""

REFUSED_PAUSE: Final = 300.0
"""Seconds before we ask again whether Consul's ACL lets us announce."""

SWEEP_EVERY: Final = 30.0
"""Seconds between two sweeps of abandoned records."""

_log = structlog.get_logger(__name__)

CLASSES: Final = (Class.BRIDGE, Class.ENGINEER)


class Publisher:
    """Publishes for both classes of access, as far as the token may; `run` does the work.

    `counters` are for monitoring: `announced`, `readings`, `restored` (everybody was told to read again),
    `swept`, `failures`; `follower.counters` tell of the following.
    """

    def __init__(self, consul: Consul, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._consul = consul
        self._keys = keys
        self._clock = clock
        self.follower = Follower(consul, keys, keys.access_changes, changed=self._note, refresh=False, clock=clock)
        self._recent: dict[Class, set[str]] = {}
        """What changed in the view since a reading began."""
        self.counters: Counter[str] = Counter()

    async def run(self, classes: Iterable[Class] = CLASSES) -> None:
        """Publishes whenever we lead a class, until cancelled."""
        self.follower.cover([self._keys.groups, self._keys.services, self._keys.sets])
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.follower.run(), name="publisher's follower")
                for each in classes:
                    tasks.create_task(self._campaign(each), name=f"publish {each.value}")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

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
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(announcer.run(), name="publisher's announcer")
                tasks.create_task(self._sweep(writers, leadership), name="feed's sweeper")
                tasks.create_task(self._publish(writers, announcer, leadership), name="publish")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _publish(self, writers: Class, announcer: Announcer, leadership: Leadership) -> None:
        done = await self._published(writers)
        while True:
            await self.follower.wait_complete()
            leadership.check()
            began = time.monotonic()
            before = dict(done)
            for prefix in self._prefixes(writers):
                differences = await self._differences(writers, prefix, done)
                if differences:
                    self.counters["announced"] += len(differences)
                    try:
                        async with asyncio.timeout(ANNOUNCE):
                            await announcer.announce(differences)
                    except (TimeoutError, NotRecorded) as error:
                        raise RegistryError(f"{prefix}: cannot announce ({error})") from error
            if done != before:
                await self._consul.transact([Op.set(self._mark(writers), msgspec.json.encode(done))])
            await asyncio.sleep(max(0.0, began + EVERY - GRACE - time.monotonic()))

    def _mark(self, writers: Class) -> str:
        """Where the leader notes up to which index everything is announced, for who leads after it."""
        return self._keys.lock(f"published-{writers.value.rpartition('/')[2]}")

    async def _published(self, writers: Class) -> dict[str, int]:
        """By prefix, the index up to which an earlier leader has announced everything."""
        entry = await self._consul.get(self._mark(writers), consistent=True)
        try:
            return {} if entry is None else msgspec.json.decode(entry.value, type=dict[str, int])
        except msgspec.DecodeError:
            return {}

    def _prefixes(self, writers: Class) -> tuple[str, ...]:
        if writers is Class.BRIDGE:
            return tuple(f"{self._keys.groups}${name}" for name in BRIDGE_GROUPS)
        return (self._keys.groups, self._keys.services, self._keys.sets)

    async def _differences(self, writers: Class, prefix: str, done: dict[str, int]) -> list[Change]:
        """What stands below `prefix` and hosts do not know."""
        recent: set[str] = set()
        self._recent[writers] = recent
        if await self._consul.index_of(prefix) == done.get(prefix):
            return []
        snapshot = await self._consul.read(prefix)
        self.counters["readings"] += 1
        if snapshot.missing:
            snapshot = await confirmed(self._consul, self._keys, prefix)
        # Whoever committed is given the time to announce; what he announces is then in our view.
        await asyncio.sleep(GRACE)
        if not self.follower.is_complete:
            return []  # about to be read whole; the next reading is compared with that
        found = await self._compare(writers, prefix, snapshot, recent)
        found += await self._unwitnessed(writers, prefix, snapshot, done.get(prefix))
        done[prefix] = snapshot.index
        if READ_ALL in found or len(found) > TOO_MANY:
            self.counters["restored"] += 1
            _log.warning("telling everybody to read again", prefix=prefix, differences=len(found))
            return [READ_ALL]
        return found

    async def _compare(self, writers: Class, prefix: str, snapshot: Snapshot, recent: set[str]) -> list[Change]:
        """How the snapshot differs from what the feed told; READ_ALL among it if Consul has gone back."""
        view, root, now = self.follower.view, f"{self._keys.root}/", self._clock()
        found: list[Change] = []
        stands: set[str] = set()
        for place, entry in enumerate(snapshot.entries, 1):
            if not place % SLICE:
                await asyncio.sleep(0)
            stands.add(entry.key)
            known = view.get(entry.key)
            if known in {entry.value, as_announced(entry.value)} or not writers.may_name(entry.key[len(root) :]):
                continue
            if entry.modify_index > view.index(entry.key):
                found.append(Change(entry.key, entry.value, entry.modify_index))
            elif entry.key not in recent:
                found.append(READ_ALL)
        for place, key in enumerate(tuple(view.below(self._folder(prefix))), 1):
            if not place % SLICE:
                await asyncio.sleep(0)
            value = view.get(key)
            if key in stands or value is None:
                continue
            if not key.startswith(prefix) or not writers.may_name(key[len(root) :]):
                continue
            gone = Change(key, None, snapshot.index)
            is_newer = snapshot.index > view.index(key)
            expires = parse_expiry(value)
            if expires is not None and is_over(expires, now):
                view.apply(gone)  # hosts know the time themselves
            elif is_newer or key not in recent:
                found.append(gone if is_newer else READ_ALL)
        return found

    async def _unwitnessed(self, writers: Class, prefix: str, snapshot: Snapshot, since: int | None) -> list[Change]:
        """What changed after the last leader looked, and before we began to follow (or missed something)."""
        floor = self.follower.view.floor(self._folder(prefix))
        if since is None or since >= floor:
            return []
        root = f"{self._keys.root}/"
        found: list[Change] = []
        newest = since
        for place, entry in enumerate(snapshot.entries, 1):
            if not place % SLICE:
                await asyncio.sleep(0)
            newest = max(newest, entry.modify_index)
            if since < entry.modify_index <= floor and writers.may_name(entry.key[len(root) :]):
                found.append(Change(entry.key, entry.value, entry.modify_index))
        # Something was deleted, and nobody can say what. (Of users the NAS repeats it.)
        if snapshot.index > newest and prefix != self._keys.groups and writers is Class.ENGINEER:
            found.append(READ_ALL)
        return found

    def _folder(self, prefix: str) -> str:
        return next(folder for folder in self.follower.view.covered if prefix.startswith(folder))

    def _note(self, changed: list[Changed]) -> None:
        for recent in self._recent.values():
            recent.update(key for key, _, _ in changed)

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
