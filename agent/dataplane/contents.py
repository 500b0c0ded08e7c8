"""The content of our sets: what they hold as far as we programmed it, and how they come to hold what is wanted."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf

from agent.dataplane.change import MANY, Run, aside
from agent.dataplane.errors import DataplaneError
from agent.dataplane.kinds import KINDS, TEMPORARY, Kind, kind_of, set_name
from agent.dataplane.netlink import MemberSocket, Operation
from agent.dataplane.plan import (
    LONGEST_TIMEOUT,
    NOBODY,
    Delta,
    Part,
    Wanted,
    by_kind,
    delta,
    delta_of,
    live,
    timeout,
    timeouts,
)
from radius_bridge.policy.expiring import Expiring
from radius_bridge.policy.members import Prefix


@dataclass(slots=True)
class _Held:
    """What the sets of a service or override hold, as far as we programmed it."""

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

    def __init__(self, members: MemberSocket) -> None:
        self._socket = members
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
                await self._add_some(run, name, small.add)
        for name, small in deltas.items():
            if name in self._held:
                with self._attempt(run, name):
                    await self._delete_some(run, name, small.delete)

    def next_renewal(self) -> float:
        """When an entry must be programmed again though nobody changed it (epoch seconds; infinity if never)."""
        due = (held.again.soonest() for held in self._held.values())
        return min((at for at in due if at is not None), default=inf)

    def entries(self) -> int:
        """How many members the sets hold, as far as we programmed them."""
        nobodys = sum(each in held.entries for held in self._held.values() for each in NOBODY)
        return sum(len(held.entries) for held in self._held.values()) - nobodys

    def forget(self, sets: Collection[str] | None = None) -> None:
        """Nothing is known of these sets any more (None: of all)."""
        for name in list(self._held):
            if sets is None or any(set_name(kind, name) in sets for kind in KINDS):
                del self._held[name]

    def forget_missing(self, existing: Collection[str], wanted: Mapping[str, Wanted]) -> None:
        """Sets of what is wanted that are not among the existing ones were deleted by somebody else."""
        self.forget({set_name(kind, name) for name, each in wanted.items() for kind in each.kinds} - set(existing))

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
        # For more, sets are built aside at the right size.
        most = max(MANY, len(wanted) // 2)
        if only is None:
            if abs(len(wanted) - len(held.entries)) > most:
                return None
            change = delta(held.entries, wanted.entries(), now)
        else:
            change = delta_of(held.entries, wanted, only, now)
        due = {prefix: end for prefix in held.again.expire(now) if (end := wanted.end(prefix)) is not None}
        if due:
            change = Delta({**live(due, now), **change.add}, change.delete)
        if len(change) > most:
            return None
        new = Counter(kind_of(prefix, joined=held.shuts_out) for prefix in change.add if prefix not in held.entries)
        return change if all(held.count[kind] + new[kind] <= held.room[kind] for kind in new) else None

    async def _rebuild(self, run: Run, name: str, wanted: Wanted) -> None:
        """Fills new sets aside and puts them in place; packets see the old content or the new."""
        sets = await run.sets()
        fresh = live(wanted.entries(), run.now())
        parts = await aside(len(fresh), partial(by_kind, fresh, joined=wanted.shuts_out))
        room: dict[Kind, int] = {}
        for kind in wanted.kinds:
            building = set_name(kind, name) + TEMPORARY
            if building in run.existing:
                await sets.destroy(building)
            room[kind] = await sets.create(building, kind, len(parts[kind].prefixes) if kind in parts else 0)
            run.existing.add(building)
        held = self._held[name] = _Held(room, wanted.shuts_out, fresh)
        for kind, part in parts.items():
            held.count[kind] = len(part.prefixes)
            await self._add(run, name, kind, part, TEMPORARY)
        for kind in wanted.kinds:
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

    async def _add_some(self, run: Run, name: str, additions: Mapping[Prefix, float]) -> None:
        held = self._held[name]
        for kind, part in by_kind(additions, joined=held.shuts_out).items():
            await self._add(run, name, kind, part)
            held.count[kind] += sum(prefix not in held.entries for prefix in part.prefixes)
        held.entries.update(additions)

    async def _add(self, run: Run, name: str, kind: Kind, part: Part, suffix: str = "") -> None:
        await aside(len(part.prefixes), partial(_note_renewals, self._held[name], part, run.now()))
        shuts_out = self._held[name].shuts_out

        def left(start: int, end: int) -> list[int]:
            return timeouts(part.ends[start:end], run.now(), shuts_out=shuts_out)

        refused = await self._socket.write(Operation.ADD, set_name(kind, name) + suffix, kind, part.prefixes, left)
        run.change.added += len(part.prefixes) - len(refused)
        run.change.refused += [f"{name} {each.prefix}: {each.reason}" for each in refused]

    async def _delete_some(self, run: Run, name: str, prefixes: Iterable[Prefix]) -> None:
        held = self._held[name]
        for kind, (gone, _) in by_kind(dict.fromkeys(prefixes, 0.0), joined=held.shuts_out).items():
            await self._socket.write(
                Operation.DELETE, set_name(kind, name), kind, gone, lambda start, end: [0] * (end - start)
            )
            for prefix in gone:
                del held.entries[prefix]
                held.again.drop(prefix)
            held.count[kind] -= len(gone)
            run.change.deleted += len(gone)


def _note_renewals(held: _Held, part: Part, now: float) -> None:
    """Notes which entries must be programmed again, since the kernel cannot hold their ends."""
    for prefix in part.prefixes if held.again.ends else ():
        held.again.drop(prefix)
    if max(part.ends) > now + LONGEST_TIMEOUT:
        for prefix, end in zip(part.prefixes, part.ends, strict=True):
            _, again = timeout(end, now, shuts_out=held.shuts_out)
            if again is not None:
                held.again.put(prefix, again)
