"""What somebody changes by hand in our part of the kernel is seen, put back and told.

Changes of nftables and of iptables-nft are heard of at once (agent.dataplane.events), with their author. Members of
ipset and rules of iptables-legacy are looked at every few seconds: the number of members in each set, and, set after
set, so many members a second that it costs about nothing (agent.rounds); a set whose number is not right is looked at
first.
Putting back opens nothing: it is what the dataplane does at start, atomic set by set and for all rules.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final

import structlog

from agent.dataplane.change import Change
from agent.dataplane.compare import Difference
from agent.dataplane.errors import DataplaneError
from agent.dataplane.events import RULES, EventSocket, Told
from agent.dataplane.interface import Inspecting
from agent.dataplane.kinds import set_name
from agent.dataplane.plan import Wanted
from agent.desired import Desired
from agent.fights import Fights
from agent.repairs import LONGEST_TEXT, Repairs
from agent.rounds import IPSET, TOLD, Suspects, Turns

SOON: Final = 5.0
"""Seconds before their end from which on members may be missing in the kernel: it counts in whole seconds."""

SELDOM: Final = 10
"""Where the kernel tells of changes, it is looked at so many times less often."""

CALM: Final = 0.2
"""Seconds between two looks because of events, if the first one found nothing: somebody else is at work next to us."""

MOST_TOLD: Final = 1000
"""Transactions of others that are remembered; with more, everything is looked at."""

log = structlog.get_logger()


def _sets_of(name: str, desired: Desired, *, is_ipset: bool) -> set[str]:
    """The sets for a service, override or custom set, if there is IPv6."""
    kinds = Wanted({}, shuts_out=is_ipset and desired.posture.shuts_out(name)).kinds
    return {set_name(kind, name) for kind in kinds}


class Integrity:
    """Sees to it that the kernel stays as it was programmed. Used by one task, between two changes of policy."""

    def __init__(self, dataplane: Inspecting, every: float, clock: Callable[[], float] = time.time) -> None:
        """`every` is in seconds."""
        self._dataplane = dataplane
        self._every = every
        self.ending: Callable[[str, float], int] = lambda name, until: 0
        """Tells how many members of a service end until then (epoch seconds)."""
        self._clock = clock
        self._events: EventSocket | None = None
        self._deaf = ""
        self._fights = Fights()
        self.repairs = Repairs(self._fights)
        self._turns = Turns(every)
        self._suspects = Suspects()
        self._due = 0.0
        self._not_before = 0.0
        self._told: list[Told] = []
        self._waiting: set[str] = set()
        """What must be looked at as soon as it may."""

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
        self.repairs.done(now)
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
                self._suspects.forget()
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
        self.repairs.note(Difference(what, extra=("changed",)), "", self._clock())

    def alarms(self) -> list[str]:
        """Fights, and what cannot be heard."""
        deaf = [f"changes of rules are only seen after {self._every:g} s: {self._deaf}"] if self._deaf else []
        return [*self._fights.alarms(self._clock()), *deaf]

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
            self._suspects.forget()
            self._turns.begin_again()
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
                and self._suspects.is_one(name, each, counts, len(desired.of(name)), self.ending(name, now + SOON), now)
            ]
        names += self._turns.next(desired, now, TOLD if counts is None else IPSET)
        self._due = now + (self._every if counts is not None or not hears else SELDOM * self._every)
        return only.union(*(_sets_of(name, desired, is_ipset=counts is not None) for name in names))

    async def _put_back(self, desired: Desired, found: Sequence[Difference], by: str) -> Change:
        what = "; ".join(map(str, found))[:LONGEST_TEXT]
        log.warning("changed by somebody else, is put back", what=what, by=by or "unknown")
        self.repairs.begin(found, by)
        self._suspects.forget()
        self._dataplane.distrust([each.what for each in found if each.what != RULES])
        change = await self._dataplane.apply(desired, self._clock())
        self.repairs.done(self._clock())
        return change
