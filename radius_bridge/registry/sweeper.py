"""Removes from Consul what has expired, so that it does not grow for ever; hosts do not wait for it.

Every removal checks that the entry is still the one that was judged (delete-cas): what was renewed stays.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

import structlog

from radius_bridge.identity.sessions import RETENTION
from radius_bridge.policy.expiry import is_over, parse_expiry
from radius_bridge.process import together
from radius_bridge.registry import hosts
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import BadRecord, Conflict, Forbidden, RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import MAX_OPS, Entry, Op
from radius_bridge.registry.leader import Leadership, LeadershipLost
from radius_bridge.registry.parts import read_parts, slices
from radius_bridge.registry.records import decode_binding, decode_restart, decode_session

PAUSE: Final = 2.0
"""Seconds between two readings of one prefix, at least."""

WAIT: Final = 30.0
"""Seconds between two readings of one prefix, at most."""

FAILURE_PAUSE: Final = 5.0
"""Seconds before a prefix is read again after an error."""

RECORDS_PAUSE: Final = 60.0
"""Seconds between two readings of sessions and bindings: nobody's access hangs on when they are forgotten."""

PACE: Final = 5_000
"""Entries per second that are read on average, at most: of 100,000 the last is seen 20 seconds late, and no login
feels it."""

HOSTS_PAUSE: Final = 900.0
"""Seconds between two readings of what hosts and bridges tell of themselves: of a large fleet that is megabytes."""

SLICE: Final = 100
"""Entries that are judged between two turns of the event loop (a millisecond, if they are bindings)."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one reading of a prefix shows."""

    over: list[Op]
    """Removals of what has expired."""
    next_due: float
    """When the next entry expires (epoch seconds; infinity if none does)."""
    unreadable: int
    """Entries whose value is not what the key promises; they are left alone."""


def sweep_links(entries: Iterable[Entry], now: float) -> Sweep:
    """What to remove of entries whose value is an expiry: members of groups and sets, grants. Pure."""
    over: list[Op] = []
    next_due = inf
    unreadable = 0
    for entry in entries:
        expires = parse_expiry(entry.value)
        if expires is None:
            unreadable += 1
        elif is_over(expires, now):
            over.append(Op.delete_cas(entry.key, entry.modify_index))
        elif expires >= 0:
            next_due = min(next_due, expires)
    return Sweep(over, next_due, unreadable)


def sweep_records(keys: Keys, entries: Iterable[Entry], now: float) -> Sweep:
    """What to remove of sessions, bindings and restarts: those that no late packet could contradict any more.

    And of hosts and bridges: those that are gone. Pure.
    """
    over: list[Op] = []
    unreadable = 0
    for entry in entries:
        try:
            is_over = _is_forgettable(keys, entry, now)
        except BadRecord:
            unreadable += 1
            continue
        if is_over:
            over.append(Op.delete_cas(entry.key, entry.modify_index))
    return Sweep(over, inf, unreadable)


def _is_forgettable(keys: Keys, entry: Entry, now: float) -> bool:
    if entry.key.startswith(keys.sessions):
        return decode_session(entry.key, entry.value).over() <= now
    if entry.key.startswith(keys.restarts):
        return decode_restart(keys, entry.key, entry.value).heard + RETENTION <= now
    if entry.key.startswith(keys.hosts):
        return hosts.decode(entry.key, entry.value).at + hosts.GONE <= now
    if entry.key.startswith(keys.bridges):
        wrote = parse_expiry(entry.value)
        if wrote is None:
            raise BadRecord(f"{entry.key}: no time")
        return wrote + hosts.GONE <= now
    return decode_binding(entry.key, entry.value).is_forgettable(now)


class Sweeper:
    """The sweeping of all our prefixes; `work` is for `registry.leader.Leader.run`.

    `counters` are for monitoring: `removed`, `renewed` (no longer what was judged), `forbidden`, `failures`,
    and as last seen `unreadable <prefix>`.
    """

    def __init__(self, consul: Consul, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._consul = consul
        self._keys = keys
        self._clock = clock
        self._refused: set[str] = set()
        self.counters: Counter[str] = Counter()

    async def work(self, leadership: Leadership) -> None:
        """Sweeps until cancelled. Raises LeadershipLost."""
        async with together(LeadershipLost, RegistryError) as tasks:
            for prefix in (self._keys.groups, self._keys.services, self._keys.sets):
                tasks.create_task(self._follow(prefix, leadership), name=f"sweep {prefix}")
            for prefix in (self._keys.sessions, self._keys.bindings, self._keys.restarts):
                tasks.create_task(self._sweep_records(prefix, leadership, RECORDS_PAUSE), name=f"sweep {prefix}")
            for prefix in (self._keys.hosts, self._keys.bridges):
                tasks.create_task(self._sweep_records(prefix, leadership, HOSTS_PAUSE), name=f"sweep {prefix}")

    async def _follow(self, prefix: str, leadership: Leadership) -> None:
        """Sweeps one prefix when it has changed and when its next entry is due."""
        index, wait = 0, WAIT
        while True:
            try:
                found = await self._consul.index_of(prefix, index=index, wait=wait)
                next_due = await self._sweep(prefix, sweep_links, leadership)
            except RegistryError as error:
                self._note_failure(prefix, error)
                index = 0
                await asyncio.sleep(FAILURE_PAUSE)
                continue
            index = found if found >= index else 0
            await asyncio.sleep(PAUSE)
            wait = max(0.001, min(WAIT, next_due - self._clock()))

    async def _sweep_records(self, prefix: str, leadership: Leadership, pause: float) -> None:
        while True:
            try:
                await self._sweep(prefix, partial(sweep_records, self._keys), leadership)
            except RegistryError as error:
                self._note_failure(prefix, error)
            await asyncio.sleep(pause)

    async def _sweep(
        self, prefix: str, judge: Callable[[Iterable[Entry], float], Sweep], leadership: Leadership
    ) -> float:
        """Reads a prefix at PACE and removes what is over; gives when the next entry is due (epoch seconds)."""
        listing = await self._consul.read_keys(prefix)
        next_due, unreadable = inf, 0
        async for entries in read_parts(self._consul, prefix, listing.keys, spread=len(listing.keys) / PACE):
            over: list[Op] = []
            for lot in slices(entries, SLICE):
                sweep = judge(lot, self._clock())
                over += sweep.over
                next_due = min(next_due, sweep.next_due)
                unreadable += sweep.unreadable
                await asyncio.sleep(0)
            await self.remove(over, leadership)
        self.counters[f"unreadable {prefix}"] = unreadable
        return next_due

    async def remove(self, ops: list[Op], leadership: Leadership) -> None:
        """Carries out removals, but for those that no longer hold or are not allowed, while we lead.

        Raises LeadershipLost, RegistryError.
        """
        for start in range(0, len(ops), MAX_OPS - 1):
            await self._remove_lot(ops[start : start + MAX_OPS - 1], leadership)

    async def _remove_lot(self, ops: list[Op], leadership: Leadership) -> None:
        while ops:
            leadership.check()
            try:
                await self._consul.transact([leadership.fence, *ops])
            except Conflict as conflict:
                if 0 in conflict.failed:
                    raise LeadershipLost("another session holds the lock") from conflict
                self.counters["renewed"] += len(conflict.failed)
                ops = _without(ops, conflict.failed)
            except Forbidden as forbidden:
                if not forbidden.failed or 0 in forbidden.failed:
                    raise
                self._note_refusal(ops, forbidden)
                ops = _without(ops, forbidden.failed)
            else:
                self.counters["removed"] += len(ops)
                return

    def _note_failure(self, prefix: str, error: RegistryError) -> None:
        self.counters["failures"] += 1
        _log.warning("not swept", prefix=prefix, error=str(error))

    def _note_refusal(self, ops: list[Op], forbidden: Forbidden) -> None:
        """Engineers may keep the bridge's token from what is theirs: that is said once for each prefix."""
        self.counters["forbidden"] += len(forbidden.failed)
        ours = (self._keys.bindings, self._keys.sessions, self._keys.restarts)
        told = (self._keys.hosts, self._keys.bridges)
        prefixes = (self._keys.groups, self._keys.services, self._keys.sets, *ours, *told)
        refused = {p for p in prefixes for place in forbidden.failed if ops[place - 1].key.startswith(p)}
        if refused - self._refused:
            self._refused |= refused
            _log.warning("Consul's ACL keeps expired entries", error=str(forbidden))


def _without(ops: list[Op], failed: frozenset[int]) -> list[Op]:
    """The operations but those at `failed`, counted from 1: the fence stands at 0."""
    return [op for place, op in enumerate(ops, 1) if place not in failed]
