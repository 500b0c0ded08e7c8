"""What one accounting packet says about who is behind which address, as plain data."""

from collections.abc import Container
from enum import StrEnum

import msgspec

from radius_bridge.policy.members import Prefix


class Kind(StrEnum):
    """Acct-Status-Type (RFC 2866 §5.1), as far as it concerns one session."""

    START = "start"
    INTERIM = "interim"
    STOP = "stop"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One accounting event. All times are epoch seconds."""

    kind: Kind
    user: str
    """The user's name, as groups are named after it (identity.names).

    Empty: nobody who has a group, such as a machine or a device known by its MAC address. That takes the addresses
    from whoever had them as a user's would; else he would inherit them.
    """
    session: str
    """NAS and Acct-Session-Id: what tells this session from all others."""
    addresses: tuple[Prefix, ...]
    """The addresses that the packet names; empty if it names none."""
    at: float
    """When it happened."""
    started: float
    """When its session began."""
    expires: float
    """When the session's claim to its addresses ends, unless something newer is heard."""
    source: str
    """The RADIUS client that told us."""
    nas: str = ""
    """The NAS behind the client, as it names itself."""
    mac: str = ""
    """Calling-Station-Id, as it came."""
    within: Container[Prefix] | None = None
    """The only addresses that the source may bind or end; None: all."""
    groups: tuple[str, ...] = ()
    """The groups that attributes put the session's addresses into: `radius.staff`."""
    keeps_user: bool = False
    """True if the packet leaves open who is there (an outer `anonymous`): its session keeps the user that it has."""


class Lease(msgspec.Struct, frozen=True, gc=False):
    """What a DHCP server says about one address (RFC 2131 §3, RFC 8415 §6). All times are epoch seconds."""

    address: Prefix
    """One address; for a delegated prefix, the network."""
    mac: str
    """Of the station that holds it (`identity.macs`); empty if the server does not say."""
    at: float
    """When it was given or last renewed, or when it ended."""
    expires: float
    """When it ends; at or before `at` for one that was released or declined, or has expired."""
    source: str
    """The lease source that told us."""
