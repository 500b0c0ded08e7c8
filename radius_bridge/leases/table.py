"""What a DHCP server has now, compared with what it had: for sources that show all leases, not their ends. Pure."""

from collections.abc import Mapping

import msgspec

from radius_bridge.identity.events import Lease
from radius_bridge.policy.members import Prefix


class Table:
    """The leases of one server as last seen."""

    def __init__(self) -> None:
        self._known: dict[Prefix, Lease] = {}
        self._absent: set[Prefix] = set()
        """Not there at the last look: those that are not there at the next one either have ended."""

    @property
    def doubts(self) -> bool:
        """True if something was absent: look again, though nothing seems to have changed."""
        return bool(self._absent)

    def compare(self, leases: Mapping[Prefix, Lease], now: float, *, complete: bool) -> tuple[list[Lease], str]:
        """Takes what is there at `now` (epoch seconds); gives what has changed, and what is not believed ("": nothing).

        A lease that is not there ends at the second look without it, if both looks were `complete`. DHCP servers
        forget stations one by one: when more than half of them, and more than one, are gone at once, something
        happened to the file, and no lease ends before its time.
        """
        fresh = [lease for lease in leases.values() if lease.expires > now and self._is_new(lease)]
        live = {address for address, lease in self._known.items() if lease.expires > now}
        gone = live - leases.keys() if complete else set()
        doubt = ""
        stations, missing = self._stations(live), self._stations(gone)
        if missing > max(1, stations // 2):
            doubt = f"the leases of {missing} of {stations} stations vanished at once: they stay until they run out"
            gone = set()
        ended = gone & self._absent
        self._absent = gone - ended
        changes = [*(msgspec.structs.replace(self._known[each], at=now, expires=now) for each in ended), *fresh]
        kept = {address: self._known[address] for address in live - ended - leases.keys()}
        self._known = {**kept, **leases}
        return changes, doubt

    def _stations(self, addresses: set[Prefix]) -> int:
        return len({self._known[address].mac or address for address in addresses})

    def _is_new(self, lease: Lease) -> bool:
        known = self._known.get(lease.address)
        return known is None or (known.mac, known.expires) != (lease.mac, lease.expires)
