"""What one accounting packet or one lease says about who is behind which address, as plain data."""

from collections.abc import Container
from enum import StrEnum
from typing import Final

import msgspec

from radius_bridge.policy.members import Prefix


class Kind(StrEnum):
    """Acct-Status-Type (RFC 2866 §5.1), as far as it concerns one session."""

    START = "start"
    INTERIM = "interim"
    STOP = "stop"


NOBODY: Final = "@nobody"
"""The user of sessions that are no user's: of a machine, say, or of a device known by its MAC address.

They take addresses from users as users do from each other, else that user would lend them his access. No name is read
as this one, and nobody's own group is never written.
"""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One accounting event. All times are epoch seconds."""

    kind: Kind
    user: str
    """The user's name, as groups are named after it (identity.names), or NOBODY.

    Empty if the packet leaves open who is there (an outer `anonymous`): then its session keeps the user that it has.
    """
    session: str
    """NAS and Acct-Session-Id, with a slash between them: what tells this session from all others."""
    addresses: tuple[Prefix, ...]
    """The addresses that the packet names; empty if it names none."""
    at: float
    """When it happened, by the NAS's clock if that is plausible: orders the events of one NAS."""
    heard: float
    """When it happened by our clock (arrival less Acct-Delay-Time): orders NASes, and starts all terms."""
    started: float
    """When its session began, by our clock; 0 for a Stop that does not say."""
    source: str
    """The RADIUS client that told us."""
    lease: int
    """Seconds that the session holds its addresses if neither a lease nor a timeout says."""
    longest: int
    """Seconds that it holds them at most unless something newer is heard."""
    timeout: int = 0
    """Session-Timeout: seconds from its beginning after which the session ends; 0 if none is given."""
    mac: str = ""
    """Of the station (`identity.macs`); empty if unknown."""
    multi: str = ""
    """Acct-Multi-Session-Id: what the sessions of one roaming station have in common (RFC 3580 §2.2)."""
    groups: tuple[str, ...] = ()
    """More groups that its addresses join, as the RADIUS attributes say (`radius.staff`)."""
    within: Container[Prefix] | None = None
    """The only addresses that the source may bind or end; None: all."""


class Restart(msgspec.Struct, frozen=True, gc=False):
    """Accounting-On or -Off: all earlier sessions of a NAS are over (RFC 2866 §5.1). Times are epoch seconds."""

    source: str
    """The RADIUS client that told us."""
    nas: str
    """The NAS behind it, as it names itself; empty: all that the client told us of."""
    at: float
    heard: float
    """Both as for an event."""


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
    is_told_again: bool = False
    """True for what the source says at every start, though it may be long past."""
