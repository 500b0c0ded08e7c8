"""Keys with their ends, of which the next to end is always at hand. Pure."""

import heapq
from math import inf
from typing import Final, Generic, TypeVar

K = TypeVar("K")

AHEAD: Final = 600.0
"""Seconds for which ends are put in order in advance."""

_SLACK: Final = 64


class Expiring(Generic[K]):
    """Keys with their ends (epoch seconds or NEVER), which leave when their time has come.

    Only what ends within the next minutes is kept in order: a key in a queue takes as much memory as the key itself.
    So once in ten minutes all keys are looked through (65,000 in 3 ms); else everything costs the logarithm of the
    number of those that end soon, and leaving costs nothing for the keys that stay.
    """

    def __init__(self) -> None:
        self.ends: dict[K, float] = {}
        """The keys with their ends. Change them with the methods only."""
        self._until = -inf
        """What ends until then is in the queue."""
        # Ends in order. An item that `ends` does not confirm is of the past. The number keeps keys from comparing.
        self._queue: list[tuple[float, int, K]] = []
        self._number = 0

    def put(self, key: K, end: float) -> None:
        """Sets the end of a key."""
        self.ends[key] = end
        if not 0 <= end <= self._until:
            return
        self._number += 1
        heapq.heappush(self._queue, (end, self._number, key))
        if len(self._queue) > 2 * len(self.ends) + _SLACK:
            self._fill(self._until)

    def drop(self, key: K) -> None:
        """Takes a key out; that it is not there is no error."""
        self.ends.pop(key, None)

    def expire(self, now: float) -> list[K]:
        """Takes out what is over at `now` (epoch seconds), and gives it."""
        self._look_ahead(now)
        over = []
        while self._queue and self._queue[0][0] <= now:
            end, _, key = heapq.heappop(self._queue)
            if self.ends.get(key) == end:
                del self.ends[key]
                over.append(key)
        return over

    def ending(self, until: float) -> int:
        """How many keys end until then (epoch seconds); it costs as much as there are."""
        self._look_ahead(until)
        found: set[K] = set()
        look_at = [0]
        while look_at:
            at = look_at.pop()
            if at < len(self._queue) and self._queue[at][0] <= until:
                end, _, key = self._queue[at]
                if self.ends.get(key) == end:
                    found.add(key)
                look_at += (2 * at + 1, 2 * at + 2)
        return len(found)

    def soonest(self) -> float | None:
        """The next end (epoch seconds); None if nothing ends."""
        while self._queue:
            end, _, key = self._queue[0]
            if self.ends.get(key) == end:
                return end
            heapq.heappop(self._queue)
        soonest = min((end for end in self.ends.values() if end >= 0), default=None)
        if soonest is not None:
            self._fill(soonest)
        return soonest

    def _look_ahead(self, time: float) -> None:
        """Sees to it that what ends until `time` is in the queue."""
        if time > self._until:
            self._fill(time + AHEAD)

    def _fill(self, until: float) -> None:
        """Puts what ends until then, and nothing else, in the queue."""
        self._until, self._number = until, len(self.ends)
        self._queue = [(end, number, key) for number, (key, end) in enumerate(self.ends.items()) if 0 <= end <= until]
        heapq.heapify(self._queue)
