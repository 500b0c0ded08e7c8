"""The content of our sets: what they hold as far as we programmed it, and how they come to hold what is wanted."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

from agent.dataplane.change import Run
from agent.dataplane.errors import DataplaneError
from agent.dataplane.netlink import MemberSocket, Operation
from agent.dataplane.plan import (
    TEMPORARY,
    Delta,
    Kind,
    Wanted,
    delta,
    delta_of,
    kind_of,
    live,
    set_name,
    timeout,
)
from radius_bridge.policy.expiring import Expiring
from radius_bridge.policy.members import Prefix

_MANY = 2_000
"""Up to so many entries, or half the set, are sent as a delta; for more, a set is built aside at the right size."""


@dataclass(slots=True)
class _Held:
    """What the four sets of a service or override hold, as far as we programmed it."""

    room: Mapping[Kind, int]
    """How many entries each set can hold."""
    shuts_out: bool
    entries: dict[Prefix, float] = field(default_factory=dict)
    """Address or network → its end (epoch seconds or NEVER)."""
    again: Expiring[Prefix] = field(default_factory=Expiring)
    """Entries whose end the kernel does not hold → when to program them again (epoch seconds)."""
    count: Counter[Kind] = field(default_factory=Counter)


class Contents:
    """The sets' content; what is not known of it (at start, after an error) is built aside and swapped in."""

    def __init__(self, members: MemberSocket, kinds: Collection[Kind]) -> None:
        self._socket = members
        self._kinds = kinds
        self._held: dict[str, _Held] = {}

    async def program(
        self, run: Run, wanted: Mapping[str, Wanted], changed: Mapping[str, Collection[Prefix]] | None
    ) -> None:
        """Makes the sets hold what is wanted, by service and override; others are no longer known.

        `changed` is as in `IpsetDataplane.apply`. What fails is noted in `run`.
        """
        for name in self._held.keys() - wanted.keys():
            del self._held[name]
        deltas: dict[str, Delta] = {}
        for name, entries in wanted.items():
            only = None if changed is None else changed.get(name, ())
            small = self._small_change(name, entries, only, run.now())
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

    def next_renewal(self) -> float:
        """When an entry must be programmed again though nobody changed it (epoch seconds; infinity if never)."""
        due = (held.again.soonest() for held in self._held.values())
        return min((at for at in due if at is not None), default=inf)

    def entries(self) -> int:
        """How many entries the sets hold, as far as we programmed them."""
        return sum(len(held.entries) for held in self._held.values())

    def forget(self, sets: Collection[str] | None = None) -> None:
        """Nothing is known of these sets any more (None: of all)."""
        for name in list(self._held):
            if sets is None or any(set_name(kind, name) in sets for kind in self._kinds):
                del self._held[name]

    def forget_missing(self, existing: Collection[str], names: Iterable[str]) -> None:
        """Sets of `names` that are not among the existing ones were deleted by somebody else."""
        self.forget({set_name(kind, name) for name in names for kind in self._kinds} - set(existing))

    @contextmanager
    def _attempt(self, run: Run, name: str) -> Iterator[None]:
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

    def _small_change(self, name: str, wanted: Wanted, only: Iterable[Prefix] | None, now: float) -> Delta | None:
        """What to send to bring the sets of `name` up to date; None if they are better built aside."""
        held = self._held.get(name)
        if held is None:
            return None
        if only is None:
            change = delta(held.entries, wanted.entries(), now)
        else:
            change = delta_of(held.entries, wanted, only, now)
        due = {prefix: end for prefix in held.again.expire(now) if (end := wanted.end(prefix)) is not None}
        if due:
            change = Delta({**live(due, now), **change.add}, change.delete)
        if len(change) > max(_MANY, len(wanted) // 2):
            return None
        new = Counter(kind_of(prefix) for prefix in change.add if prefix not in held.entries)
        return change if all(held.count[kind] + new[kind] <= held.room[kind] for kind in new) else None

    async def _rebuild(self, run: Run, name: str, wanted: Wanted) -> None:
        """Fills new sets aside and puts them in place; packets see the old content or the new."""
        sets = await run.sets()
        fresh = live(wanted.entries(), run.now())
        need = Counter(map(kind_of, fresh))
        room: dict[Kind, int] = {}
        for kind in self._kinds:
            building = set_name(kind, name) + TEMPORARY
            if building in run.existing:
                await sets.destroy(building)
            room[kind] = await sets.create(building, kind, need[kind])
            run.existing.add(building)
        self._held[name] = _Held(room, wanted.shuts_out)
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

    async def _add(self, run: Run, name: str, additions: Mapping[Prefix, float], suffix: str = "") -> None:
        held = self._held[name]
        for kind, prefixes in _by_kind(additions).items():
            now = run.now()
            entries = []
            for prefix in prefixes:
                seconds, again = timeout(additions[prefix], now, shuts_out=held.shuts_out)
                entries.append((prefix, seconds))
                if again is None:
                    held.again.drop(prefix)
                else:
                    held.again.put(prefix, again)
            refused = await self._socket.write(Operation.ADD, set_name(kind, name) + suffix, kind, entries)
            run.change.added += len(entries) - len(refused)
            run.change.refused += [f"{name} {each.prefix}: {each.reason}" for each in refused]
            held.count[kind] += sum(prefix not in held.entries for prefix in prefixes)
        held.entries.update(additions)

    async def _delete(self, run: Run, name: str, prefixes: Iterable[Prefix]) -> None:
        held = self._held[name]
        for kind, gone in _by_kind(prefixes).items():
            entries = [(prefix, 0) for prefix in gone]
            await self._socket.write(Operation.DELETE, set_name(kind, name), kind, entries)
            for prefix in gone:
                del held.entries[prefix]
                held.again.drop(prefix)
            held.count[kind] -= len(gone)
            run.change.deleted += len(gone)


def _by_kind(prefixes: Iterable[Prefix]) -> dict[Kind, list[Prefix]]:
    groups: defaultdict[Kind, list[Prefix]] = defaultdict(list)
    for prefix in prefixes:
        groups[kind_of(prefix)].append(prefix)
    return groups
