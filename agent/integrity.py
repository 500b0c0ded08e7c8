"""What somebody changes by hand in our part of the kernel is seen, put back and told.

Changes of nftables and of iptables-nft are heard of at once (agent.dataplane.events), with their author. Members of
ipset and rules of iptables-legacy are looked at every few seconds: the number of members in each set, and, set after
set, so many members a second that it costs about nothing (agent.dataplane.looks); a set whose number is not right is
looked at first.
Putting back opens nothing: it is what the dataplane does at start, atomic set by set and for all rules.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, NamedTuple, Protocol

import structlog

from agent.dataplane.change import Change
from agent.dataplane.compare import Difference
from agent.dataplane.errors import DataplaneError
from agent.dataplane.events import RULES, EventSocket, Told, Touched
from agent.dataplane.plan import Wanted, set_name
from agent.desired import Desired
from agent.fights import Fights


class Pace(NamedTuple):
    """How much is read back though nothing hints at a change."""

    rate: float
    """Members a second: 0.1 to 0.3% of a core."""
    most: int
    """Members of a service that is read back in turn: others wait meanwhile (0.1 s). A larger one is read if its
    number of members is not right, if the kernel tells of a change, and by `verify`."""
    set_cost: int
    """Looking into a service's sets costs as much as so many members."""


IPSET: Final = Pace(7_500.0, 200_000, 500)
"""Mostly it is enough to see that the kernel lists the same members as before (agent.dataplane.looks)."""

TOLD: Final = Pace(700.0, 20_000, 50)
"""Where the kernel tells of changes (nftables)."""

SUSPECT_RATE: Final = 20_000.0
"""The same of sets whose number of members is not right."""

SOON: Final = 5.0
"""Seconds before their end from which on members may be missing in the kernel: it counts in whole seconds."""

SELDOM: Final = 10
"""Where the kernel tells of changes, it is looked at so many times less often."""

CALM: Final = 0.2
"""Seconds between two looks because of events, if the first one found nothing: somebody else is at work next to us."""

MOST_TOLD: Final = 1000
"""Transactions of others that are remembered; with more, everything is looked at."""

RECENT: Final = 20
"""Repairs that the status names."""

_LONGEST_TEXT: Final = 400

log = structlog.get_logger()


class Dataplane(Protocol):
    """What is looked after: as much of agent.dataplane.base.Dataplane as is needed here."""

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Any]] | None = None
    ) -> Change: ...

    async def compare(
        self, desired: Desired, now: float, only: Collection[str] | None = None
    ) -> Sequence[Difference]: ...

    async def counts(self) -> Mapping[str, int] | None: ...

    def distrust(self, sets: Collection[str]) -> None: ...

    def hear_nothing(self, while_many: Callable[[], AbstractContextManager[None]]) -> None: ...

    def is_mine(self, port: int) -> bool: ...

    def concerned(self, touched: Touched) -> str | None: ...

    @property
    def hears_of_rules(self) -> bool: ...


class Repair(NamedTuple):
    """Something that was put back."""

    at: float
    """Epoch seconds."""
    kind: str
    """`jump`, `rules`, `set` or `members`."""
    what: str
    by: str
    """Who changed it, if the kernel tells."""


def kind_of(difference: Difference) -> str:
    """What is not as it should be: `jump` (its place included), `rules`, a whole `set`, or `members`. Pure."""
    if difference.what != RULES:
        return "set" if "the set itself" in (*difference.missing, *difference.extra) else "members"
    lines = (*difference.missing, *difference.extra)
    ways = (" -A INPUT ", " -A OUTPUT ", " -A FORWARD ", " the jumps ")
    return "jump" if lines and all(any(way in line for way in ways) for line in lines) else "rules"


def _sets_of(name: str, desired: Desired, *, is_ipset: bool) -> set[str]:
    """The sets for a service, override or custom set, if there is IPv6."""
    kinds = Wanted({}, shuts_out=is_ipset and desired.posture.shuts_out(name)).kinds
    return {set_name(kind, name) for kind in kinds}


class Integrity:
    """Sees to it that the kernel stays as it was programmed. Used by one task, between two changes of policy."""

    def __init__(self, dataplane: Dataplane, every: float, clock: Callable[[], float] = time.time) -> None:
        """`every` is in seconds."""
        self._dataplane = dataplane
        self._every = every
        self.ending: Callable[[str, float], int] = lambda name, until: 0
        """Tells how many members of a service end until then (epoch seconds)."""
        self._clock = clock
        self._events: EventSocket | None = None
        self._deaf = ""
        self._fights = Fights()
        self._due = 0.0
        self._not_before = 0.0
        self._budget = 0.0
        self._walked = 0.0
        self._queue: deque[str] = deque()
        self._explained: dict[str, tuple[frozenset[str], int]] = {}
        self._suspect_again: dict[str, float] = {}
        self._told: list[Told] = []
        self._waiting: set[str] = set()
        """What must be looked at as soon as it may."""
        self.repairs: Counter[str] = Counter()
        """By kind."""
        self._under_way: list[tuple[Difference, str]] = []
        """What is being put back, and who changed it: it counts when that is done."""
        self._recent: deque[Repair] = deque(maxlen=RECENT)

    @contextmanager
    def listening(self, wake: Callable[[], None]) -> Iterator[None]:
        """Calls `wake` when something was heard; to be entered in the event loop and the network namespace."""
        loop = asyncio.get_running_loop()
        try:
            events = self._events = EventSocket(self._dataplane.is_mine)
        except DataplaneError as error:
            log.warning("changes of rules are not heard of, only looked for", error=str(error))
            self._deaf = str(error)
            yield
            return

        def hear() -> None:
            if events.hear() and self._take_in(*events.take()):
                wake()

        self._dataplane.hear_nothing(events.deaf)
        loop.add_reader(events.fileno(), hear)
        try:
            yield
        finally:
            loop.remove_reader(events.fileno())
            self._dataplane.hear_nothing(nullcontext)
            events.close()
            self._events = None

    def next_look(self) -> float:
        """When to look again though nothing is heard (epoch seconds)."""
        now = self._clock()
        again = [self._due]
        if self._told or any(self._fights.may(what, now) for what in self._waiting):
            again.append(max(self._not_before, now))
        if (fought := self._fights.next(now)) is not None:
            again.append(fought)
        return min(again)

    async def look(self, desired: Desired, *, wrote_rules: bool = False) -> Change | None:
        """Puts back what somebody changed; gives what that took, or None. Raises DataplaneError.

        The kernel was just told to be as `desired`; `wrote_rules` says that its rules were written for that.
        """
        now = self._clock()
        self._note_done()
        if self._events is not None:
            self._take_in(*self._events.take())
        only, writers = self._heard(now)
        is_hint = bool(only)
        if now >= self._due or self._due > now + SELDOM * self._every:
            try:
                only |= await self._look_around(desired, now)
            except DataplaneError:
                self._waiting |= only
                raise
        later = {what for what in only if not self._fights.may(what, now)}
        self._waiting |= later
        only -= later
        if not only:
            return None
        found: Sequence[Difference]
        if wrote_rules and RULES in only and writers:
            # What was read back after writing may be what the other one wrote.
            found = [Difference(RULES, extra=("written at the same time as ours",))]
        else:
            try:
                found = await self._dataplane.compare(desired, now, only)
            except DataplaneError:
                self._waiting |= only
                self._explained.clear()
                raise
            found = [each for each in found if self._fights.may(each.what, now)]
        if not found:
            self._not_before = now + CALM if is_hint else self._not_before
            return None
        return await self._put_back(desired, found, ", ".join(sorted(writers)[:5]))

    async def differences(self, desired: Desired) -> Sequence[Difference]:
        """Where the kernel is not as desired; nothing is put back. Raises DataplaneError."""
        return await self._dataplane.compare(desired, self._clock())

    def noted(self, what: str) -> None:
        """The dataplane itself has put something back."""
        self._note([Difference(what, extra=("changed",))], "")

    def alarms(self) -> list[str]:
        """Fights, and what cannot be heard."""
        deaf = [f"changes of rules are only seen after {self._every:g} s: {self._deaf}"] if self._deaf else []
        return [*self._fights.alarms(self._clock()), *deaf]

    def status(self) -> dict[str, Any]:
        """What was put back: how often, and the last ones."""
        return {"repairs": dict(self.repairs), "repaired": [each._asdict() for each in self._recent]}

    def _take_in(self, told: Sequence[Told], lost: bool) -> bool:
        """Keeps what concerns us; True if there is anything."""
        ours = [
            Told(each.port, each.program, each.pid, frozenset(filter(self._dataplane.concerned, each.touched)))
            for each in told
        ]
        ours = [each for each in ours if each.touched]
        if lost or len(self._told) + len(ours) > MOST_TOLD:
            self._told.clear()
            self._waiting.add(RULES)
            self._explained.clear()
            self._queue.clear()
            self._due = 0.0
            return True
        self._told += ours
        return bool(ours)

    def _heard(self, now: float) -> tuple[set[str], set[str]]:
        """What others may have changed, and who they are."""
        if now < self._not_before <= now + CALM:
            return set(), set()
        writers: set[str] = set()
        told, self._told = self._told, []
        for each in told:
            # Asked only now: an event may come before its program's number is known to be that of ours.
            if not self._dataplane.is_mine(each.port):
                self._waiting.update(filter(None, map(self._dataplane.concerned, each.touched)))
                writers.add(f"{each.program} (pid {each.pid})")
        only = {what for what in self._waiting if self._fights.may(what, now)}
        self._waiting -= only
        return only, writers

    async def _look_around(self, desired: Desired, now: float) -> set[str]:
        """What is to be looked at though nobody told of it."""
        counts = await self._dataplane.counts()
        hears = self._events is not None and self._dataplane.hears_of_rules
        only = set() if hears else {RULES}
        names = []
        if counts is not None:
            sets = {name: _sets_of(name, desired, is_ipset=True) for name in desired.names}
            only |= counts.keys() - set().union(*sets.values())
            names = [
                name
                for name, each in sets.items()
                if all(self._fights.may(one, now) for one in each)
                and self._is_suspect(name, each, counts, desired, now)
            ]
        names += self._next_in_turn(desired, now, TOLD if counts is None else IPSET)
        self._due = now + (self._every if counts is not None or not hears else SELDOM * self._every)
        return only.union(*(_sets_of(name, desired, is_ipset=counts is not None) for name in names))

    def _is_suspect(
        self, name: str, sets: Collection[str], counts: Mapping[str, int], desired: Desired, now: float
    ) -> bool:
        """True if the number of a service's members in the kernel is not what it should be.

        An odd number that was looked into is no news.
        """
        wanted = len(desired.of(name))
        missing, surplus = frozenset(sets - counts.keys()), sum(counts.get(each, 0) for each in sets) - wanted
        known_missing, known_surplus = self._explained.get(name, (frozenset(), 0))
        fewest = known_surplus - self.ending(name, now + SOON)
        if missing == known_missing and fewest <= surplus <= known_surplus:
            return False
        if now < self._suspect_again.get(name, 0.0) <= now + wanted / SUSPECT_RATE:
            return False
        self._suspect_again[name] = now + wanted / SUSPECT_RATE
        self._explained[name] = missing, surplus
        return True

    def _next_in_turn(self, desired: Desired, now: float, pace: Pace) -> list[str]:
        """Whose members are read back now, all in turn."""
        elapsed = now - self._walked if 0 <= now - self._walked < 3600 else self._every
        self._walked = now
        self._budget += pace.rate * elapsed
        chosen: list[str] = []
        names = {name for name in desired.names if len(desired.of(name)) <= pace.most}
        while True:
            if not self._queue:
                self._queue.extend(sorted(names.difference(chosen)))
            if not self._queue:
                break
            name = self._queue[0]
            cost = len(desired.of(name)) + pace.set_cost if name in names else 0
            if cost > self._budget:
                break
            self._budget -= cost
            self._queue.popleft()
            if name in names:
                chosen.append(name)
            if len(chosen) == len(names):
                self._budget = 0.0
                break
        return chosen

    async def _put_back(self, desired: Desired, found: Sequence[Difference], by: str) -> Change:
        what = "; ".join(map(str, found))[:_LONGEST_TEXT]
        log.warning("changed by somebody else, is put back", what=what, by=by or "unknown")
        self._under_way += [(each, by) for each in found]
        self._explained.clear()
        self._dataplane.distrust([each.what for each in found if each.what != RULES])
        change = await self._dataplane.apply(desired, self._clock())
        self._note_done()
        return change

    def _note_done(self) -> None:
        """The kernel is as it was told to be."""
        for each, by in self._under_way:
            self._note([each], by)
        self._under_way.clear()

    def _note(self, found: Sequence[Difference], by: str) -> None:
        now = self._clock()
        for each in found:
            self._fights.note(each.what, now, by)
            self.repairs[kind_of(each)] += 1
            self._recent.append(Repair(round(now, 3), kind_of(each), str(each)[:_LONGEST_TEXT], by))
