"""The rows of Kea's lease files (memfile backend, `kea-leases4.csv` and `kea-leases6.csv`). Pure.

The header names the columns. Kea appends a row at every change, so that of one address the last row holds. Commas
inside a value are escaped by Kea, so that commas always separate.
"""

import socket
from typing import Final, NamedTuple, Self

from radius_bridge.identity.events import Lease
from radius_bridge.leases.stations import mac_of_duid, mac_of_hardware
from radius_bridge.policy.members import Prefix, parse_prefix

INFINITE: Final = 0xFFFFFFFF
"""The lifetime that means for ever (RFC 2131 §3.3, RFC 8415 §7.7)."""

FOREVER: Final = 253_402_300_799.0
"""When an infinite lease ends: the last second of the year 9999."""

_PREFIX_DELEGATION: Final = 2
_LIVE: Final = frozenset({0, 4})
"""States: default, and registered by the station itself (RFC 9686)."""
_DECLINED, _RECLAIMED, _RELEASED = 1, 2, 3

_NEEDED: Final = ("address", "valid_lifetime", "expire", "state")


class Columns(NamedTuple):
    """Where a file has what; -1 for what it does not have."""

    width: int
    address: int
    lifetime: int
    expire: int
    state: int
    hardware: int
    duid: int
    kind: int
    prefix_length: int

    @classmethod
    def of(cls, header: str) -> Self:
        """Reads a file's first line. Raises ValueError if it is not the header of a lease file."""
        names = header.split(",")
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise ValueError(f"the first line is no header of Kea's lease files: it lacks {', '.join(missing)}")
        place = {name: index for index, name in enumerate(names)}
        return cls(
            width=len(names),
            address=place["address"],
            lifetime=place["valid_lifetime"],
            expire=place["expire"],
            state=place["state"],
            hardware=place.get("hwaddr", -1),
            duid=place.get("duid", -1),
            kind=place.get("lease_type", -1),
            prefix_length=place.get("prefix_len", -1),
        )

    def lease(self, row: str, source: str, written: float) -> Lease:
        """What one row says. `written` (epoch seconds) is when the file was last written.

        A lifetime of 0 is how Kea writes that a lease was deleted, which a release does. It does not say when; that
        it had happened when the file was written is certain. Raises ValueError for a row that cannot be read.
        """
        values = row.split(",")
        if len(values) != self.width:
            raise ValueError(f"it has {len(values)} values, the header {self.width}")
        lifetime, state = _number(values[self.lifetime]), _number(values[self.state])
        expire = _number(values[self.expire])
        given = expire - lifetime
        if self.kind >= 0 and _number(values[self.kind]) == _PREFIX_DELEGATION:
            address = parse_prefix(f"{values[self.address]}/{values[self.prefix_length]}")
        else:
            address = _address(values[self.address])
        hardware = mac_of_hardware(values[self.hardware]) if self.hardware >= 0 else ""
        mac = hardware or (mac_of_duid(values[self.duid]) if self.duid >= 0 else "")
        return lease(address, mac, state=state, given=given, lifetime=lifetime, source=source, written=written)


def lease(address: Prefix, mac: str, *, state: int, given: float, lifetime: int, source: str, written: float) -> Lease:
    """A lease as Kea keeps it: `given` (epoch seconds) at the last exchange, for `lifetime` seconds.

    Raises ValueError for a state that Kea does not have.
    """
    if state == _RELEASED or lifetime == 0:
        at = max(given, written)
    elif state == _DECLINED:
        at = given
    elif state == _RECLAIMED:
        at = given + lifetime
    elif state in _LIVE:
        return Lease(address, mac, given, FOREVER if lifetime == INFINITE else given + lifetime, source)
    else:
        raise ValueError(f"state {state} is none of Kea's")
    return Lease(address, mac, at, at, source)


def _address(text: str) -> Prefix:
    try:
        return Prefix(4, int.from_bytes(socket.inet_pton(socket.AF_INET, text)), 32)  # ten times as fast as ipaddress
    except OSError:
        address = parse_prefix(text)
    if not address.is_host:
        raise ValueError(f"{text!r} is no address")
    return address


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise ValueError(f"{text!r} is no number")
    return int(text)
