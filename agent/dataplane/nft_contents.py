"""The content of our nftables sets: what they hold as far as we programmed it, and how it becomes what is wanted.

The kernel knows the end of every element to the millisecond and for centuries: nothing must be renewed. It refuses
what is further away (ERANGE), and a transaction as a whole with it: milliseconds where seconds are meant would do that.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from agent.dataplane.change import MANY, Change, aside
from agent.dataplane.errors import DataplaneError
from agent.dataplane.kinds import KINDS, Kind, kind_of, set_name
from agent.dataplane.nft_netlink import Do, Elements, ElementSocket, Form, Step
from agent.dataplane.nft_rules import OVERRIDDEN, OVERRIDDEN_ALL
from agent.dataplane.plan import NUMBER_OF, Delta, Part, Range, Wanted, by_kind, delta, delta_of, live, ranges
from radius_bridge.policy.members import Prefix

OVERRIDDEN_FORM = Form(1, hosts=True)
FORMS = {kind: Form(4 if kind.version == 4 else 16, kind.hosts) for kind in KINDS}

LONGEST = 100 * 365 * 86400
"""Seconds until an end at most: one that is further away comes that early, instead of never."""

_SECOND = 1.0
_SECONDS_EACH = 4e-6
"""What an element of a large transaction takes at least, and as a first guess; then the last one tells."""
_LATE = 0.02
"""By so much (seconds) an end may be late because the guess was wrong."""


@dataclass(slots=True)
class _Held:
    """What the four sets of a service, override or custom set hold, as far as we programmed it."""

    entries: dict[Prefix, float] = field(default_factory=dict)
    ranges: dict[Kind, dict[Range, float]] = field(default_factory=dict)
    """What stands for the networks among them, cut so that they do not overlap."""


class NftContents:
    """The sets' content; what is not known of it (at start, after an error) is replaced in one transaction."""

    def __init__(self, elements: ElementSocket) -> None:
        self._socket = elements
        self._held: dict[str, _Held] = {}
        self._overridden: bool | None = None  # what the set of this name says; None: not known
        self._seconds_each = _SECONDS_EACH

    async def program(
        self,
        change: Change,
        wanted: Mapping[str, Wanted],
        changed: Mapping[str, Collection[Prefix]] | None,
        clock: Callable[[], float],
        *,
        is_overridden: bool,
    ) -> list[str]:
        """Makes the sets hold what is wanted, by name; others are no longer known. Gives what failed.

        `changed` is as in `Dataplane.apply`; `clock` tells the time (epoch seconds), which goes on while we work;
        `is_overridden` says that overrides or custom sets must be looked up.
        """
        failures = await self._look(overrides=True) if is_overridden else []
        for name in self._held.keys() - wanted.keys():
            del self._held[name]
        deltas: dict[str, Delta] = {}
        for name, entries in wanted.items():
            only = None if changed is None else changed.get(name, ())
            if self._is_growing(name, entries, only):
                failed, only = await self._add_many(change, name, entries, clock)
                if failed:
                    failures += failed
                    continue
            small = self._small_change(name, entries, only, clock())
            if small is None:
                failures += await self._rebuild(change, name, entries, clock)
            elif small:
                deltas[name] = small
        # All in one transaction: who moves from one grant or network to another is not cut off in between.
        now = clock()
        steps = [step for name, small in deltas.items() for step in self._steps(name, small, now)]
        for small in deltas.values():
            change.added += len(small.add)
            change.deleted += len(small.delete)
        failures += await self._commit(steps, deltas)
        if not (is_overridden or failures):
            failures += await self._look(overrides=False)
        return failures

    def entries(self) -> int:
        """How many members the sets stand for, as far as we programmed them."""
        return sum(len(held.entries) for held in self._held.values())

    def forget(self, sets: Collection[str] | None = None) -> None:
        """Nothing is known of these sets any more (None: of all)."""
        if sets is None or OVERRIDDEN in sets:
            self._overridden = None
        for name in list(self._held):
            if sets is None or any(set_name(kind, name) in sets for kind in KINDS):
                del self._held[name]

    def made(self, sets: Collection[str], names: Iterable[str]) -> None:
        """These sets have just been made and are empty. `names` are of services, overrides and custom sets."""
        for name in names:
            if all(set_name(kind, name) in sets for kind in KINDS):
                self._held[name] = _Held(ranges={kind: {} for kind in KINDS if not kind.hosts})

    async def _look(self, *, overrides: bool) -> list[str]:
        """Has overrides and custom sets looked up for each packet, or not. Gives what failed."""
        if overrides is self._overridden:
            return []
        self._overridden = None
        elements = Elements(OVERRIDDEN_ALL, OVERRIDDEN_ALL, (0, 0)) if overrides else None
        step = Step(Do.ADD if overrides else Do.DELETE, OVERRIDDEN, OVERRIDDEN_FORM, elements)
        failures = await self._commit([step], ())
        self._overridden = None if failures else overrides
        return failures

    async def _commit(self, steps: Sequence[Step], names: Iterable[str]) -> list[str]:
        """Does these steps; if that does not end well, the content of the sets of `names` is not known any more."""
        done = False
        try:
            await self._socket.commit(steps)
            done = True
        except DataplaneError as error:
            return [str(error)]
        finally:
            if not done:
                for name in names:
                    self._held.pop(name, None)
        return []

    def _is_growing(self, name: str, wanted: Wanted, only: Collection[Prefix] | None) -> bool:
        """True if many members may be new."""
        held = self._held.get(name)
        return held is not None and (len(wanted) - len(held.entries) if only is None else len(only)) > MANY

    async def _add_many(
        self, change: Change, name: str, wanted: Wanted, clock: Callable[[], float]
    ) -> tuple[list[str], list[Prefix] | None]:
        """Adds the hosts that are new: nobody sees a difference between all of them at once and one after the other.

        Gives what failed, and what may differ besides (None: anything).
        """
        held = self._held[name]
        hosts, networks = await aside(len(wanted), partial(_new_hosts, held, wanted, clock()))
        rest = None if held.entries else networks
        done = False
        try:
            for kind, part in by_kind(hosts).items():
                addresses = list(map(NUMBER_OF, part.prefixes))
                left = partial(_left_of, part.ends, clock)
                await self._socket.add(set_name(kind, name), FORMS[kind], addresses, left)
            done = True
        except DataplaneError as error:
            return [str(error)], rest
        finally:
            if not done:
                self._held.pop(name, None)
        held.entries.update(hosts)
        change.added += len(hosts)
        return [], rest

    def _small_change(self, name: str, wanted: Wanted, only: Iterable[Prefix] | None, now: float) -> Delta | None:
        """What to send to bring the sets of `name` up to date; None if they are better filled anew."""
        held = self._held.get(name)
        if held is None:
            return None
        # For more, the sets are emptied and filled in one transaction.
        most = max(MANY, len(wanted) // 3)
        if only is None:
            if abs(len(wanted) - len(held.entries)) > most:
                return None
            change = delta(held.entries, wanted.entries(), now)
        else:
            change = delta_of(held.entries, wanted, only, now)
        return None if len(change) > most else change

    async def _rebuild(self, change: Change, name: str, wanted: Wanted, clock: Callable[[], float]) -> list[str]:
        """Empties the sets and fills them, in one transaction: packets see the old content or the new.

        The kernel counts from when it gets to an element, and nobody's time may end late: if that took longer than
        thought (a busy host), it is done again with as much time as it takes.
        """
        fresh = live(wanted.entries(), clock())
        takes = self._seconds_each * len(fresh)
        for _ in range(3):
            held = self._held[name] = _Held(dict(fresh))
            began = clock()
            steps = await aside(len(fresh), partial(_fill, name, held, began + takes))
            failures = await self._commit(steps, [name])
            took = clock() - began
            if len(fresh) > MANY:
                self._seconds_each = max(_SECONDS_EACH, 1.5 * took / len(fresh))
            if failures or took <= takes + _LATE:
                break
            takes = 1.5 * took
        if not failures:
            change.rebuilt.append(name)
            change.added += len(fresh)
        return failures

    def _steps(self, name: str, change: Delta, now: float) -> list[Step]:
        """What sends this change; `held` is what it will be."""
        held = self._held[name]
        held.entries.update(change.add)
        for prefix in change.delete:
            del held.entries[prefix]
        steps: list[Step] = []
        for kind in KINDS:
            add = {prefix: end for prefix, end in change.add.items() if kind_of(prefix) is kind}
            gone = [prefix for prefix in change.delete if kind_of(prefix) is kind]
            if not (add or gone):
                continue
            if kind.hosts:
                new = _hosts([*add], [*add.values()], now)
                firsts = [*new.firsts, *(prefix.number for prefix in gone)]
                old = Elements(firsts, firsts, [*new.timeouts, *[1000] * len(gone)])
            else:
                before = held.ranges[kind]
                after = ranges(live({each: end for each, end in held.entries.items() if kind_of(each) is kind}, now))
                held.ranges[kind] = after
                other = [each for each, end in before.items() if not _is_same(after.get(each), end)]
                old = Elements([first for first, _ in other], [last for _, last in other], [1000] * len(other))
                new = _ranged({each: end for each, end in after.items() if not _is_same(before.get(each), end)}, now)
            # An element's end can only be changed by deleting it, and only what is there can be deleted: so it is
            # added first, in case that its time has just run out.
            steps += [
                Step(do, set_name(kind, name), FORMS[kind], elements)
                for do, elements in ((Do.ADD, old), (Do.DELETE, old), (Do.ADD, new))
            ]
        return steps


def _new_hosts(held: _Held, wanted: Wanted, now: float) -> tuple[dict[Prefix, float], list[Prefix]]:
    """The hosts among what is wanted that are not held yet, with their ends; and the new networks."""
    new = live(wanted.entries(), now)
    if held.entries:
        new = {prefix: end for prefix, end in new.items() if prefix not in held.entries}
    networks = [prefix for prefix in new if not kind_of(prefix).hosts]
    for each in networks:
        del new[each]
    return new, networks


def _is_same(one: float | None, other: float) -> bool:
    return one is not None and (one < 0) == (other < 0) and abs(one - other) < _SECOND


def _fill(name: str, held: _Held, now: float) -> list[Step]:
    """What empties the sets of `name` and fills them with what is `held`."""
    steps = []
    parts = by_kind(held.entries)
    for kind in KINDS:
        prefixes, ends = parts.get(kind, Part((), ()))
        if kind.hosts:
            elements = _hosts(prefixes, ends, now)
        else:
            held.ranges[kind] = ranges(dict(zip(prefixes, ends, strict=True)))
            elements = _ranged(held.ranges[kind], now)
        kernel_name, form = set_name(kind, name), FORMS[kind]
        steps += [Step(Do.DELETE, kernel_name, form, None), Step(Do.ADD, kernel_name, form, elements)]
    return steps


def _left(ends: Iterable[float], now: float) -> list[int]:
    """Milliseconds until each end, at least one; 0, which is permanent, for NEVER."""
    return [int(min(end - now, LONGEST) * 1000) or 1 if end > now else 0 if end < 0 else 1 for end in ends]


def _left_of(ends: Sequence[float], clock: Callable[[], float], start: int, end: int) -> list[int]:
    return _left(ends[start:end], clock() + _SECONDS_EACH * (end - start))


def _hosts(prefixes: Iterable[Prefix], ends: Iterable[float], now: float) -> Elements:
    addresses = list(map(NUMBER_OF, prefixes))
    return Elements(addresses, addresses, _left(ends, now))


def _ranged(entries: Mapping[Range, float], now: float) -> Elements:
    return Elements([first for first, _ in entries], [last for _, last in entries], _left(entries.values(), now))
