"""The dataplane: makes the kernel enforce a Desired with ipset and iptables.

It remembers what it programmed and sends the difference. What it does not know (at start, after an error) it
builds aside and swaps in. Sets are filled before a rule mentions them, and rules go before their sets do.
"""

import asyncio
import fcntl
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import structlog

from agent.dataplane.errors import DataplaneError
from agent.dataplane.iptables import Installed, Iptables
from agent.dataplane.netlink import MemberSocket, Operation
from agent.dataplane.plan import (
    KINDS,
    TEMPORARY,
    Delta,
    Kind,
    delta,
    kernel_entries,
    kind_of,
    live,
    set_name,
    timeout,
)
from agent.dataplane.rules import render
from agent.dataplane.sets import Sets, open_sets
from agent.desired import ALLOW, DENY, Desired, Failsafe
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Service

__all__ = ["Change", "DataplaneError", "IpsetDataplane"]

log = structlog.get_logger()

CHECK_SECONDS = 30.0
"""How often the rules and their place are compared with what was installed."""

_MANY = 2_000
"""Up to so many entries, or half the set, are sent as a delta; for more, a set is built aside at the right size."""


@dataclass(slots=True)
class Change:
    """What one apply did. True if it did anything."""

    rebuilt: list[str] = field(default_factory=list)
    """Services and overrides whose sets were built aside and swapped in."""
    added: int = 0
    deleted: int = 0
    refused: list[str] = field(default_factory=list)
    """Entries that the kernel cannot hold, with the reason; they are not tried again."""
    rules: list[int] = field(default_factory=list)
    """The IP versions whose rules were written."""
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.rebuilt or self.added or self.deleted or self.refused or self.rules)

    def summary(self) -> dict[str, Any]:
        """The same in few words, for the log."""
        facts = {
            "rebuilt": len(self.rebuilt),
            "added": self.added,
            "deleted": self.deleted,
            "refused": self.refused[:10],
            "rules": self.rules,
        }
        return {name: fact for name, fact in facts.items() if fact} | {"ms": round(self.seconds * 1000, 2)}


_Source = tuple[tuple[Service, ...], tuple[Failsafe, ...]]
"""What rules are made of."""


@dataclass(slots=True)
class _Held:
    """What the four sets of a service or override hold, as far as we programmed it."""

    entries: dict[Prefix, float]
    """Address or network → its end (epoch seconds or NEVER)."""
    again: dict[Prefix, float]
    """Entries whose end the kernel does not hold → when to program them again (epoch seconds)."""
    count: Counter[Kind]
    room: dict[Kind, int]
    """How many entries each set can hold."""

    def due(self, now: float) -> list[Prefix]:
        """Entries that must be programmed again at `now`."""
        return [prefix for prefix, at in self.again.items() if at <= now]


class _Run:
    """One apply under way: its time, what it did, what failed, and the sets if it needs them."""

    def __init__(self, now: float, existing: set[str], stack: AsyncExitStack) -> None:
        self.began = time.monotonic()
        self.change = Change()
        self.failures: list[str] = []
        self.existing = existing
        self._now = now
        self._stack = stack
        self._sets: Sets | None = None

    def now(self) -> float:
        """The time (epoch seconds), which goes on while we work."""
        return self._now + time.monotonic() - self.began

    async def sets(self) -> Sets:
        if self._sets is None:
            self._sets = await self._stack.enter_async_context(open_sets())
        return self._sets


class IpsetDataplane:
    """One writer for the network namespace of this process: hold it with `with`.

    `lock` is a file that keeps a second writer out. `backend` is `nft` or `legacy`; if empty, the iptables
    that the host uses.
    """

    def __init__(self, lock: Path, backend: str = "") -> None:
        self._lock_path = lock
        self._lock = -1
        self._busy = asyncio.Lock()
        self._members: MemberSocket | None = None
        self._tables = [Iptables(4, backend)]
        if Path("/proc/sys/net/ipv6").exists():
            self._tables.append(Iptables(6, backend))
        else:
            log.warning("this kernel has no IPv6: only IPv4 is enforced, there is nothing else to enforce")
        self._kinds = [kind for kind in KINDS if kind.version in {table.version for table in self._tables}]
        self._held: dict[str, _Held] = {}
        self._existing: set[str] | None = None  # our sets in the kernel; None: not known
        self._rules: dict[int, tuple[_Source, Installed]] = {}
        self._checked = 0.0

    def __enter__(self) -> Self:
        """Takes the lock. Raises DataplaneError if another process has it, or without CAP_NET_ADMIN."""
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataplaneError(f"lock {self._lock_path}: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._members = MemberSocket()
        except BlockingIOError:
            os.close(self._lock)
            raise DataplaneError(
                f"lock {self._lock_path}: another agent is at work; stop it first (one writer at a time)"
            ) from None
        except DataplaneError:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._members is not None:
            self._members.close()
            self._members = None
        os.close(self._lock)

    async def apply(self, desired: Desired, now: float) -> Change:
        """Makes the kernel enforce `desired` at `now` (epoch seconds). Repeating it changes nothing.

        Raises DataplaneError naming all that failed; the rest was done, and what failed is built anew by the
        next apply.
        """
        for service in desired.services:
            if service.name in (ALLOW, DENY):
                raise DataplaneError(f"service {service.name!r} ({service.origin}): an override has this name")
        async with self._busy, AsyncExitStack() as stack:
            existing, self._existing = self._existing, None
            if existing is None:
                run = _Run(now, set(), stack)
                run.existing.update(await (await run.sets()).entries())
            else:
                run = _Run(now, existing, stack)
            wanted = self._wanted(desired)
            await self._program_members(run, wanted)
            await asyncio.gather(*(self._program_rules(run, table, desired) for table in self._tables))
            if run.failures:
                raise DataplaneError("; ".join(run.failures))
            if self._check_due(now):
                self._checked = now
            await self._destroy_unused(run, wanted)
            self._existing = run.existing
            run.change.seconds = time.monotonic() - run.began
            return run.change

    def next_refresh(self, now: float) -> float:
        """When apply is due again although policy stays the same (epoch seconds, `now` at the earliest).

        It renews what the kernel's timeouts cannot hold, and sees that the rules are still in place.
        """
        renewals = [at for held in self._held.values() for at in held.again.values()]
        return max(now, min([self._checked + CHECK_SECONDS, *renewals]))

    async def summary(self) -> dict[str, int]:
        """Our sets in the kernel, each with the number of its entries. Raises DataplaneError."""
        async with open_sets() as sets:
            return await sets.entries()

    async def uninstall(self) -> None:
        """Removes our jumps, chains and sets, and nothing else. Raises DataplaneError."""
        async with self._busy, open_sets() as sets:
            self._held.clear()
            self._rules.clear()
            self._existing = None
            for table in self._tables:
                await table.uninstall()
            for name in await sets.entries():
                await sets.destroy(name)

    @property
    def _socket(self) -> MemberSocket:
        if self._members is None:
            raise DataplaneError("the dataplane is not open: use it in a `with` block")
        return self._members

    def _wanted(self, desired: Desired) -> dict[str, Mapping[Prefix, float]]:
        """The entries of each service and override that this kernel can have."""
        names = dict.fromkeys((ALLOW, DENY, *(service.name for service in desired.services)))
        wanted = {name: kernel_entries(desired.members[name]) for name in names}
        if len(self._tables) == 2:
            return wanted
        return {
            name: {prefix: end for prefix, end in entries.items() if prefix.version == 4}
            for name, entries in wanted.items()
        }

    async def _program_members(self, run: _Run, wanted: Mapping[str, Mapping[Prefix, float]]) -> None:
        for name in self._held.keys() - wanted.keys():
            del self._held[name]
        deltas: dict[str, Delta] = {}
        for name, entries in wanted.items():
            small = self._small_change(name, entries, run.now())
            if small is None:
                with self._attempt(run, name):
                    await self._rebuild(run, name, entries)
            elif small:
                deltas[name] = small
        # Additions first: who moves from one grant or network to another is not cut off in between.
        for name, small in deltas.items():
            with self._attempt(run, name):
                await self._add(run, name, small.add)
        for name, small in deltas.items():
            if name in self._held:
                with self._attempt(run, name):
                    await self._delete(run, name, small.delete)

    @contextmanager
    def _attempt(self, run: _Run, name: str) -> Iterator[None]:
        """Work on the sets of `name`; if it does not end well, their content is not known any more."""
        done = False
        try:
            yield
            done = True
        except DataplaneError as error:
            run.failures.append(str(error))
        finally:
            if not done:
                self._held.pop(name, None)

    def _small_change(self, name: str, entries: Mapping[Prefix, float], now: float) -> Delta | None:
        """What to send to bring the sets of `name` up to date; None if they are better built aside."""
        held = self._held.get(name)
        if held is None:
            return None
        change = delta(held.entries, entries, now)
        due = {prefix: entries[prefix] for prefix in held.due(now) if prefix in entries}
        if due:
            change = Delta({**live(due, now), **change.add}, change.delete)
        if len(change) > max(_MANY, len(entries) // 2):
            return None
        new = Counter(kind_of(prefix) for prefix in change.add if prefix not in held.entries)
        return change if all(held.count[kind] + new[kind] <= held.room[kind] for kind in new) else None

    async def _rebuild(self, run: _Run, name: str, entries: Mapping[Prefix, float]) -> None:
        """Fills new sets aside and puts them in place; packets see the old content or the new."""
        sets = await run.sets()
        fresh = live(entries, run.now())
        need = Counter(map(kind_of, fresh))
        room: dict[Kind, int] = {}
        for kind in self._kinds:
            building = set_name(kind, name) + TEMPORARY
            if building in run.existing:
                await sets.destroy(building)
            room[kind] = await sets.create(building, kind, need[kind])
            run.existing.add(building)
        self._held[name] = _Held({}, {}, Counter(), room)
        await self._add(run, name, fresh, TEMPORARY)
        for kind in self._kinds:
            final = set_name(kind, name)
            building = final + TEMPORARY
            if final in run.existing:
                await sets.swap(building, final)
                await sets.destroy(building)
            else:
                await sets.rename(building, final)
                run.existing.add(final)
            run.existing.remove(building)
        run.change.rebuilt.append(name)

    async def _add(self, run: _Run, name: str, additions: Mapping[Prefix, float], suffix: str = "") -> None:
        held = self._held[name]
        for kind, prefixes in _by_kind(additions).items():
            now = run.now()
            entries = []
            for prefix in prefixes:
                seconds, again = timeout(name, additions[prefix], now)
                entries.append((prefix, seconds))
                if again is not None:
                    held.again[prefix] = again
                elif held.again:
                    held.again.pop(prefix, None)
            refused = await self._socket.write(Operation.ADD, set_name(kind, name) + suffix, kind, entries)
            run.change.added += len(entries) - len(refused)
            run.change.refused += [f"{name} {each.prefix}: {each.reason}" for each in refused]
            held.count[kind] += sum(prefix not in held.entries for prefix in prefixes)
        held.entries.update(additions)

    async def _delete(self, run: _Run, name: str, prefixes: Iterable[Prefix]) -> None:
        held = self._held[name]
        for kind, gone in _by_kind(prefixes).items():
            entries = [(prefix, 0) for prefix in gone]
            await self._socket.write(Operation.DELETE, set_name(kind, name), kind, entries)
            for prefix in gone:
                del held.entries[prefix]
                held.again.pop(prefix, None)
            held.count[kind] -= len(gone)
            run.change.deleted += len(gone)

    async def _program_rules(self, run: _Run, table: Iptables, desired: Desired) -> None:
        """Writes the rules of one IP version if policy or somebody else changed them."""
        source = (desired.services, desired.failsafe)
        known = self._rules.get(table.version)
        try:
            if known is not None and known[0] == source:
                if not self._check_due(run.now()) or await table.read() == known[1]:
                    return
                log.warning("the rules were changed by somebody else and are put back", ip_version=table.version)
            self._rules.pop(table.version, None)
            self._rules[table.version] = (source, await table.install(render(desired, table.version)))
            run.change.rules.append(table.version)
        except DataplaneError as error:
            run.failures.append(str(error))

    async def _destroy_unused(self, run: _Run, names: Iterable[str]) -> None:
        """Destroys sets that no rule mentions any more, and what an interrupted build left behind."""
        used = {set_name(kind, name) for name in names for kind in self._kinds}
        for name in sorted(run.existing - used):
            sets = await run.sets()
            await sets.destroy(name)
            run.existing.remove(name)

    def _check_due(self, now: float) -> bool:
        return abs(now - self._checked) >= CHECK_SECONDS


def _by_kind(prefixes: Iterable[Prefix]) -> dict[Kind, list[Prefix]]:
    groups: defaultdict[Kind, list[Prefix]] = defaultdict(list)
    for prefix in prefixes:
        groups[kind_of(prefix)].append(prefix)
    return groups
