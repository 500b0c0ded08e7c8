"""Events for tests: one session of one user at one address, an hour long unless said otherwise."""

from radius_bridge.identity.events import Event, Kind
from radius_bridge.policy.members import Prefix, parse_prefix

ADDRESS = parse_prefix("192.0.2.1")
OTHER = parse_prefix("192.0.2.2")


def event(
    kind: Kind,
    user: str,
    at: float,
    *addresses: Prefix,
    session: str = "",
    lease: int = 3600,
    mac: str = "",
    multi: str = "",
    groups: tuple[str, ...] = (),
    source: str = "127.0.0.1",
) -> Event:
    """What a NAS reports at `at` (epoch seconds); the session is the user's only one unless it is named."""
    return Event(
        kind=kind,
        user=user,
        session=session or f"nas/{user}",
        addresses=addresses,
        at=at,
        heard=at,
        started=0.0 if kind is Kind.STOP else at,
        source=source,
        lease=lease,
        longest=86400,
        mac=mac,
        multi=multi,
        groups=groups,
    )
