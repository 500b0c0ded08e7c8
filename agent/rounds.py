"""Which services are read back though nobody told of a change. Pure: times are arguments (epoch seconds).

Those whose number of members is not right; and all in turn, so many members a second that it costs about nothing.
"""

from collections import deque
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from agent.desired import Desired


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
"""Members a second of one service whose number of members is not right."""


class Turns:
    """All services in turn."""

    def __init__(self, every: float) -> None:
        """`every` is how often it is asked (seconds)."""
        self._every = every
        self._walked = 0.0
        self._budget = 0.0
        self._queue: deque[str] = deque()

    def begin_again(self) -> None:
        """Whose turn it was does not count any more."""
        self._queue.clear()

    def next(self, desired: Desired, now: float, pace: Pace) -> list[str]:
        """Whose members are read back now."""
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


class Suspects:
    """Services whose number of members in the kernel is not what it should be."""

    def __init__(self) -> None:
        self._explained: dict[str, tuple[frozenset[str], int]] = {}
        """Sets that were missing when the service was looked into, and members that were too many."""
        self._again: dict[str, float] = {}

    def forget(self) -> None:
        """What was looked into may be another one now."""
        self._explained.clear()

    def is_one(
        self, name: str, sets: Collection[str], counts: Mapping[str, int], wanted: int, ending: int, now: float
    ) -> bool:
        """True if a service is to be looked into, which then counts as done.

        `counts` are the members in the kernel, by set, `sets` those of the service; it should have `wanted` members,
        of which as many as are `ending` may be gone already. An odd number that was looked into is no news.
        """
        missing, surplus = frozenset(sets - counts.keys()), sum(counts.get(each, 0) for each in sets) - wanted
        known_missing, known_surplus = self._explained.get(name, (frozenset(), 0))
        if missing == known_missing and known_surplus - ending <= surplus <= known_surplus:
            return False
        if now < self._again.get(name, 0.0) <= now + wanted / SUSPECT_RATE:
            return False
        self._again[name] = now + wanted / SUSPECT_RATE
        self._explained[name] = missing, surplus
        return True
