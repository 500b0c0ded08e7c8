"""The content of our nftables sets: what they hold as far as we programmed it, and how it becomes what is wanted.

The kernel knows the end of every element to the millisecond and for centuries: nothing must be renewed. It refuses
what is further away (ERANGE), and a transaction as a whole with it: milliseconds where seconds are meant would do that.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from agent.dataplane.change import MANY, Change, aside
from agent.dataplane.errors import DataplaneError
from agent.dataplane.nft_netlink import Do, Elements, ElementSocket, Form, Step
from agent.dataplane.plan import (
    KINDS,
    Delta,
    Kind,
    Part,
    Range,
    Wanted,
    by_kind,
    delta,
    delta_of,
    kind_of,
    live,
    ranges,
    set_name,
)
from radius_bridge.policy.members import Prefix

FORMS = {kind: Form(4 if kind.version == 4 else 16, kind.hosts) for kind in KINDS}

LONGEST = 100 * 365 * 86400
"""Seconds until an end at most: one that is further away comes that early, instead of never."""

_SECOND = 1.0
_SECONDS_EACH = 4e-6
"""What an element of a large transaction takes, as a first guess."""
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

    async def program(
        self,
        change: Change,
        wanted: Mapping[str, Wanted],
        changed: Mapping[str, Collection[Prefix]] | None,
        clock: Callable[[], float],
    ) -> list[str]:
        """Makes the sets hold what is wanted, by name; others are no longer known. Gives what failed.

        `changed` is as in `Dataplane.apply`; `clock` tells the time (epoch seconds), which goes on while we work.
        """
        failures: list[str] = []
        for name in self._held.keys() - wanted.keys():
            del self._held[name]
        deltas: dict[str, Delta] = {}
        for name, entries in wanted.items():
            only = None if changed is None else changed.get(name, ())
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
        return failures + await self._commit(steps, deltas)

    def entries(self) -> int:
        """How many members the sets stand for, as far as we programmed them."""
        return sum(len(held.entries) for held in self._held.values())

    def forget(self, sets: Collection[str] | None = None) -> None:
        """Nothing is known of these sets any more (None: of all)."""
        for name in list(self._held):
            if sets is None or any(set_name(kind, name) in sets for kind in KINDS):
                del self._held[name]

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
        takes = _SECONDS_EACH * len(fresh)
        for _ in range(3):
            held = self._held[name] = _Held(dict(fresh))
            began = clock()
            steps = await aside(len(fresh), partial(_fill, name, held, began + takes))
            failures = await self._commit(steps, [name])
            took = clock() - began
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


def _hosts(prefixes: Iterable[Prefix], ends: Iterable[float], now: float) -> Elements:
    addresses = [number for _, number, _ in prefixes]
    return Elements(addresses, addresses, _left(ends, now))


def _ranged(entries: Mapping[Range, float], now: float) -> Elements:
    return Elements([first for first, _ in entries], [last for _, last in entries], _left(entries.values(), now))
