"""Requests that come twice (RFC 5080 §2.2.2): one is processed, all get the same response. Pure."""

from collections import OrderedDict
from enum import Enum, auto

KEEP = 15.0
"""How long (seconds) a response is kept for repetitions: RFC 5080 says 5 to 30."""

LIMIT = 65536
"""Responses kept at most; the oldest go first. That is harmless: applying an event twice changes nothing."""

Key = tuple[bytes | int, int]
"""What tells senders apart (a socket address, or the number of a connection), and the Identifier."""


class Seen(Enum):
    """What is known about a request that has no response yet."""

    NEW = auto()
    IN_PROGRESS = auto()


class Duplicates:
    """Requests in progress and responses to recent ones. Times are seconds on a monotonic clock."""

    def __init__(self, keep: float = KEEP, limit: int = LIMIT) -> None:
        self._keep = keep
        self._limit = limit
        self._pending: dict[Key, bytes] = {}
        self._answered: OrderedDict[Key, tuple[bytes, bytes, float]] = OrderedDict()
        self._expiry = float("-inf")
        """When the oldest response may have to go; never too late."""
        self.evicted = 0
        """Responses given up before their time, because there were too many."""

    def __len__(self) -> int:
        return len(self._pending) + len(self._answered)

    def begin(self, key: Key, authenticator: bytes, now: float) -> bytes | Seen:
        """Notes a genuine request: gives the response to send again, or says whether to process it.

        Another authenticator is another request, and the older one under this Identifier is forgotten.
        """
        if now >= self._expiry:
            self._expire(now)
        if self._pending.get(key) == authenticator:
            return Seen.IN_PROGRESS
        known = self._answered.get(key)
        if known is not None:
            if known[0] == authenticator:
                return known[1]
            del self._answered[key]
        self._pending[key] = authenticator
        return Seen.NEW

    def answer(self, key: Key, authenticator: bytes, response: bytes, now: float) -> bool:
        """Keeps the response to a request; False if a newer request took its place: nobody waits for it."""
        if not self.forget(key, authenticator):
            return False
        self._answered[key] = (authenticator, response, now + self._keep)
        if len(self._answered) > self._limit:
            self._answered.popitem(last=False)
            self.evicted += 1
        return True

    def forget(self, key: Key, authenticator: bytes) -> bool:
        """Ends a request without a response, so that its repetition is processed; False if it is gone."""
        if self._pending.get(key) != authenticator:
            return False
        del self._pending[key]
        return True

    def _expire(self, now: float) -> None:
        while self._answered:
            key = next(iter(self._answered))
            self._expiry = self._answered[key][2]
            if self._expiry > now:
                return
            del self._answered[key]
        self._expiry = now + self._keep
