"""One copy: what stands at home, written in another datacenter, by one who proves that he is the one to write it."""

import asyncio
import copy
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from radius_bridge.process import together
from radius_bridge.registry import meta
from radius_bridge.registry.announcer import Announcer, writer_name
from radius_bridge.registry.backlog import Backlog, is_expired, present
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import Conflict, RegistryError
from radius_bridge.registry.feed import ABANDONED, READ_AGAIN, Change, Class, decode_record, is_abandoned
from radius_bridge.registry.fence import FENCE_SIZE, Fence, nobody, read_fence
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import MAX_BYTES, MAX_OPS, Op
from radius_bridge.registry.leader import Leadership, LeadershipLost
from radius_bridge.registry.parts import gently, read_parts
from radius_bridge.registry.poll import backoff
from radius_bridge.registry.sweeper import Sweeper, sweep_links, sweep_records

COMPARE_EVERY: Final = (900.0, 1800.0)
"""Seconds between two comparisons of everything: between these, at random."""

SPREAD: Final = 2.0
"""Seconds over which the reading for one is spread."""

SWEEP_EVERY: Final = 60.0
"""Seconds between two removals of what has expired."""

BACKOFF: Final = (0.25, 5.0)
"""First and longest pause (seconds, before jitter) after an error."""

SLICE: Final = 500
"""Entries that are compared between two turns of the event loop."""

_log = structlog.get_logger(__name__)


class Copy:
    """The copy in one datacenter.

    `counters` are for monitoring: `written`, `removed`, `lots`, `comparisons`, `overflows`, `failures`, `swept`.
    """

    def __init__(
        self, consul: Consul, keys: Keys, datacenters: Datacenters, name: str, *, clock: Callable[[], float]
    ) -> None:
        self._consul = consul
        self._keys = keys
        self._datacenters = datacenters
        self._name = name
        self._clock = clock
        self._sweeper = Sweeper(consul, keys, clock=clock)
        self._backlog = Backlog()
        self._wake = asyncio.Event()
        self._fence = nobody(datacenters)
        self._index = 0
        """The modify index of the fence in the other datacenter; 0 if it must be found out."""
        self._compare_at = self._sweep_at = self._swept = 0.0
        self._announced: asyncio.Future[None] | None = None
        self._failing_since = 0.0
        self._failures = 0
        self.counters: Counter[str] = Counter()

    @property
    def behind(self) -> float:
        """Seconds that the oldest change has been waiting to be copied; 0 if none is."""
        return self._backlog.waiting(time.monotonic())

    def mark(self, keys: list[str]) -> None:
        """These keys have changed at home."""
        now = time.monotonic()
        for key in keys:
            self._backlog.mark(key, now)
        self._wake.set()

    async def work(self, follower: Follower, leadership: Leadership) -> None:
        """Copies until cancelled. Raises LeadershipLost."""
        announcer = Announcer(self._consul, self._keys, Class.BRIDGE, clock=self._clock)
        self._index, self._fence, self._announced = 0, nobody(self._datacenters), None
        async with together(LeadershipLost, RegistryError) as tasks:
            tasks.create_task(announcer.run(), name=f"announcer in {self._name}")
            tasks.create_task(self._run(follower, announcer, leadership), name=f"writer in {self._name}")

    async def _run(self, follower: Follower, announcer: Announcer, leadership: Leadership) -> None:
        while True:
            await follower.wait_complete()
            leadership.check()
            try:
                await self._step(follower, announcer, leadership)
            except RegistryError as error:
                self._note_failure(error)
                self._index = 0
                await asyncio.sleep(backoff(self._failures, BACKOFF))
            else:
                self._note_success()

    async def _step(self, follower: Follower, announcer: Announcer, leadership: Leadership) -> None:
        """Does what is most urgent, or waits for something to do."""
        now = time.monotonic()
        if not self._fence.by:
            await self._take_over(announcer)
        elif not self._index:
            await self._find_place()
        elif now >= self._compare_at or self._backlog.overflowed:
            await self._compare(follower, leadership)
            self._compare_at = time.monotonic() + random.uniform(*COMPARE_EVERY)  # noqa: S311 - spreads load
            self._sweep_at = 0.0
        elif len(self._backlog):
            await self._write(follower, announcer)
        elif now >= self._sweep_at:
            await self._sweep(follower, leadership)
            self._sweep_at = time.monotonic() + SWEEP_EVERY
        elif self._fence.open and (self._announced is None or self._announced.done()):
            await self._commit([], is_open=False)
        else:
            self._wake.clear()
            try:
                async with asyncio.timeout(min(self._compare_at, self._sweep_at) - now):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _take_over(self, announcer: Announcer) -> None:
        """Becomes the one who copies. Raises RegistryError if the datacenter is somebody else's."""
        await meta.ensure(self._consul, self._keys)
        # Where there are any, some bridge takes it for its home.
        if await self._consul.has_any(self._keys.bindings) or await self._consul.has_any(self._keys.sessions):
            raise RegistryError(
                f"{self._keys.bindings}: {self._name} keeps bindings of its own, so some bridge records there: "
                f"take it out of [datacenters] copies, or have that bridge record in {self._datacenters.home}"
            )
        entry = await self._consul.get(self._keys.copy, consistency="consistent")
        before = None if entry is None else read_fence(entry.value)
        if before and before.home != self._datacenters.home and self._clock() - before.at < ABANDONED:
            raise RegistryError(f"{self._keys.copy}: {self._name} is a copy of {before.home}: it cannot have two homes")
        fence = Fence(
            self._datacenters.home,
            writer_name(),
            0,
            # It cannot be told what stands behind a fence that cannot be read.
            open=entry is not None and (before is None or before.open),
            at=self._clock(),
        )
        ops = [
            Op.cas(self._keys.copy, msgspec.json.encode(fence), entry.modify_index if entry else 0),
            self._datacenters.op(self._keys),
        ]
        done = await self._consul.transact(ops)
        self._fence, self._index = fence, done.modified[self._keys.copy]
        self._compare_at = 0.0
        if fence.open:
            self._announce(announcer, [Change(READ_AGAIN, None, 0)])
        _log.info("copying", datacenter=self._name)

    async def _find_place(self) -> None:
        """After an unknown outcome: goes on from where the fence stands, if it is still ours.

        If not, and we still lead at home, then that datacenter's Consul has gone back: takes it over again.
        """
        entry = await self._consul.get(self._keys.copy, consistency="consistent")
        found = None if entry is None else read_fence(entry.value)
        if entry is None or found is None or found.by != self._fence.by:
            self._fence = nobody(self._datacenters)
            raise RegistryError(f"{self._keys.copy}: no longer ours: {found.by if found else 'it is gone'}")
        self._index = entry.modify_index

    async def _commit(self, ops: list[Op], *, is_open: bool) -> int:
        """One transaction behind the fence; gives its index. After a RegistryError it may have been carried out."""
        fence = Fence(self._fence.home, self._fence.by, self._fence.lot + 1, open=is_open, at=self._clock())
        self._fence = fence
        try:
            done = await self._consul.transact([Op.cas(self._keys.copy, msgspec.json.encode(fence), self._index), *ops])
        except Conflict:
            await self._find_place()  # an earlier try of ours arrived late, or we are deposed
            raise
        self._index = done.modified[self._keys.copy]
        return self._index

    async def _write(self, follower: Follower, announcer: Announcer) -> None:
        """Copies the oldest of what waits: one transaction, then its announcement."""
        now = self._clock()
        changes: list[Change] = []
        ops: list[Op] = []
        size = FENCE_SIZE
        for key in self._backlog.take(MAX_OPS - 1):
            value = follower.view.get(key)
            wanted = present(value, now)
            op = Op.delete(key) if wanted is None else Op.set(key, wanted)
            size += op.size
            if ops and size > MAX_BYTES:
                break
            ops.append(op)
            if value is None or not is_expired(value, now):  # that something is over is no news
                changes.append(Change(key, wanted, 0))
        copied = 0
        try:
            index = await self._commit(ops, is_open=self._fence.open or bool(changes))
            copied = len(ops)
        finally:  # after an error nobody knows what it did, and doing it again does no harm
            self._backlog.settle(copied)
        self.counters["lots"] += 1
        self.counters["written"] += sum(op.verb == "set" for op in ops)
        self.counters["removed"] += sum(op.verb == "delete" for op in ops)
        self._announce(announcer, [Change(change.key, change.value, index) for change in changes])

    def _announce(self, announcer: Announcer, changes: list[Change]) -> None:
        if not changes:
            return
        self._announced = announcer.announce(changes)
        self._announced.add_done_callback(self._note_announced)

    def _note_announced(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled():
            done.exception()  # too much at once: the announcer then tells everybody to read again
        self._wake.set()

    async def _compare(self, follower: Follower, leadership: Leadership) -> None:
        """Marks everything that differs between home and there, and removes what has expired of engineers' groups."""
        self.counters["overflows"] += self._backlog.overflowed
        self._backlog.begin_again()
        groups, root = self._keys.groups, f"{self._keys.root}/"
        listing = await self._consul.read_keys(groups)
        self._backlog.expect(len(listing.keys) + len(follower.view.below(groups)))
        now, moment = self._clock(), time.monotonic()
        self._swept = now
        stands: set[str] = set()
        over: list[Op] = []
        async for entries in read_parts(self._consul, groups, listing.keys, spread=SPREAD):
            async for entry in gently(entries, SLICE):
                if not Class.BRIDGE.may_name(entry.key.removeprefix(root)):
                    over += sweep_links([entry], now).over
                    continue
                stands.add(entry.key)
                if present(follower.view.get(entry.key), now) != entry.value:
                    self._backlog.mark(entry.key, moment)
        async for key, value in gently(tuple(follower.view.below(groups).items()), SLICE):
            if key not in stands and Class.BRIDGE.may_name(key.removeprefix(root)) and present(value, now) is not None:
                self._backlog.mark(key, moment)
        over += sweep_records(self._keys, (await self._consul.read(self._keys.hosts)).entries, now).over
        await self._remove(over, leadership)
        self.counters["comparisons"] += 1
        _log.info("compared", datacenter=self._name, there=len(stands), differences=len(self._backlog))

    async def _sweep(self, follower: Follower, leadership: Leadership) -> None:
        """Removes there what has expired: ours as we know it, grants and dead writers' records as far as we may."""
        now, moment = self._clock(), time.monotonic()
        root = f"{self._keys.root}/"
        async for key, value in gently(tuple(follower.view.below(self._keys.groups).items()), SLICE):
            if (
                is_expired(value, now)
                and not is_expired(value, self._swept)
                and Class.BRIDGE.may_name(key.removeprefix(root))
            ):
                self._backlog.mark(key, moment)
        self._swept = now
        ops: list[Op] = []
        for prefix in (self._keys.services, self._keys.sets):
            ops += sweep_links((await self._consul.read(prefix)).entries, now).over
        for writers in (Class.BRIDGE, Class.ENGINEER):
            for entry in (await self._consul.read(f"{self._keys.changes}{writers.value}/")).entries:
                if not entry.key.endswith("/") and _is_abandoned(entry.value, now):
                    ops.append(Op.delete_cas(entry.key, entry.modify_index))
        await self._remove(ops, leadership)

    async def _remove(self, ops: list[Op], leadership: Leadership) -> None:
        """Carries out removals, as far as the token may and as long as the fence is ours."""
        if ops:
            fenced = copy.copy(leadership)
            fenced.fence = Op.check(self._keys.copy, self._index)
            await self._sweeper.remove(ops, fenced)
            self.counters["swept"] = self._sweeper.counters["removed"]

    def _note_failure(self, error: RegistryError) -> None:
        self.counters["failures"] += 1
        if not self._failures:
            self._failing_since = time.monotonic()
            _log.warning("copy falls behind", datacenter=self._name, error=str(error))
        self._failures += 1

    def _note_success(self) -> None:
        if self._failures:
            _log.info(
                "copy goes on",
                datacenter=self._name,
                after_s=round(time.monotonic() - self._failing_since, 1),
                waiting=len(self._backlog),
            )
        self._failures = 0


def _is_abandoned(value: bytes, now: float) -> bool:
    try:
        return is_abandoned(decode_record(value), now)
    except ValueError:
        return True  # nobody can read it
