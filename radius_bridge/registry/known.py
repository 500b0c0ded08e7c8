"""What a writer believes to stand in Consul: bindings by address, and the addresses of each session. Pure.

Only a hint: every write is checked against Consul (check-and-set), so that an outdated belief costs a read
and never a wrong write.
"""

from radius_bridge.identity.bindings import EMPTY, Binding
from radius_bridge.policy.members import Prefix

LIMIT = 200_000
"""Addresses remembered; the ones longest unchanged go first."""


class Known:
    """Bindings with their modify index in Consul (0: no record), and an index by session."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        # In the order of the last change: the first is the one longest unchanged.
        self._bindings: dict[Prefix, tuple[Binding, int]] = {}
        self._sessions: dict[str, set[Prefix]] = {}

    def __len__(self) -> int:
        return len(self._bindings)

    def get(self, address: Prefix) -> tuple[Binding, int]:
        """The binding of an address and its modify index; (EMPTY, 0) for one we know nothing of."""
        return self._bindings.get(address, (EMPTY, 0))

    def addresses(self, session: str) -> frozenset[Prefix]:
        """The addresses that a session has claimed."""
        return frozenset(self._sessions.get(session, ()))

    def put(self, address: Prefix, binding: Binding, index: int) -> None:
        """Remembers what stands in Consul."""
        self.drop(address)
        self._bindings[address] = (binding, index)
        for session in binding.claims:
            self.claim(session, address)

    def prune(self, now: float) -> None:
        """Forgets the longest unchanged: as many as are beyond the limit or of no more use."""
        while self._bindings:
            oldest, (binding, _) = next(iter(self._bindings.items()))
            if len(self._bindings) <= self._limit and not binding.is_forgettable(now):
                return
            self.drop(oldest)

    def drop(self, address: Prefix) -> None:
        """Forgets an address."""
        binding, _ = self._bindings.pop(address, (EMPTY, 0))
        for session in binding.claims:
            self.unclaim(session, address)

    def claim(self, session: str, address: Prefix) -> None:
        """Notes that a session claims an address, before it stands in Consul: a Stop may follow at once."""
        self._sessions.setdefault(session, set()).add(address)

    def unclaim(self, session: str, address: Prefix) -> None:
        """Takes `claim` back, unless the binding of the address names the session."""
        if session in self.get(address)[0].claims:
            return
        addresses = self._sessions.get(session, set())
        addresses.discard(address)
        if not addresses:
            self._sessions.pop(session, None)
