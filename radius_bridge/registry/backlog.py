"""What is still to be copied to another datacenter: keys, never values. Pure.

Whoever copies takes a key's value at the moment of writing: what was true in between matters to nobody, and so a
datacenter that was away for long is never led through the past.
"""

from typing import Final

from radius_bridge.policy.expiry import is_over, parse_expiry
from radius_bridge.registry.feed import LONGEST_VALUE

LIMIT: Final = 100_000
"""Keys that wait, at most, besides those that a comparison marks. Beyond that everything is compared."""


def present(value: bytes | None, now: float) -> bytes | None:
    """What a copy of a link's value is to be at `now` (epoch seconds): None for what is gone or over.

    And for what is too long to be announced: it is no expiry, grants nothing, and fits into no transaction either.
    """
    return None if value is None or len(value) > LONGEST_VALUE or is_expired(value, now) else value


def is_expired(value: bytes, now: float) -> bool:
    """True for an expiry that is over; what is no expiry never is."""
    expires = parse_expiry(value)
    return expires is not None and is_over(expires, now)


class Backlog:
    """Keys in the order in which they were first marked, each with the moment."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._least = self._limit = limit
        self._marked: dict[str, float] = {}
        self._taken: dict[str, float] = {}
        self.overflowed = False
        """True if keys were given up: only comparing everything tells what is to be copied."""

    def __len__(self) -> int:
        return len(self._marked)

    def mark(self, key: str, moment: float) -> None:
        """The key has become another one, at `moment` (any clock that only grows)."""
        if key in self._marked or self.overflowed:
            return
        if len(self._marked) >= self._limit:
            self._marked.clear()
            self.overflowed = True
            return
        self._marked[key] = moment

    def take(self, count: int) -> list[str]:
        """Takes up to `count` of the oldest in hand, until `settle`."""
        while self._marked and len(self._taken) < count:
            key = next(iter(self._marked))
            self._taken[key] = self._marked.pop(key)
        return list(self._taken)

    def settle(self, count: int) -> None:
        """The first `count` of what is in hand are copied; the others come first again."""
        left = dict(list(self._taken.items())[count:])
        self._taken = {}
        if left and not self.overflowed:
            self._marked = {**left, **self._marked, **left}  # with the moments of old, too

    def begin_again(self) -> None:
        """Everything is about to be compared: forgets all."""
        self._marked.clear()
        self.overflowed = False
        self._limit = self._least

    def expect(self, count: int) -> None:
        """The comparison may find so many: all of them fit, or it would never come to an end."""
        self._limit = self._least + count

    def waiting(self, moment: float) -> float:
        """How long the oldest waits at `moment`, what is in hand included; 0 if none does."""
        oldest = next(iter((self._taken or self._marked).values()), moment)
        return max(0.0, moment - oldest)
