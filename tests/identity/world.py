"""Something for the session engine to work on: all that is known, in dictionaries that are searched from end to end."""

from collections.abc import Callable
from typing import Any

from radius_bridge.identity import engine
from radius_bridge.identity.bindings import EMPTY, Binding, Holding
from radius_bridge.identity.events import Event, Kind, Lease, Restart
from radius_bridge.identity.sessions import Session
from radius_bridge.policy.members import Prefix, parse_prefix

NOW = 1_800_000_000.0
X, Y, Z = parse_prefix("10.0.0.1"), parse_prefix("10.0.0.2"), parse_prefix("2001:db8::1")
LAPTOP, PHONE = "02:00:00:00:00:01", "02:00:00:00:00:02"

Fact = Event | Lease | Restart


class World:
    """An `engine.State` that settles after each fact, as bridges do when they hear of each other's records."""

    def __init__(self, may_bind: Callable[[str, str], bool] = lambda _source, _address: True) -> None:
        self.sessions: dict[str, Session] = {}
        self.bindings: dict[str, Binding] = {}
        self.restarted: list[Restart] = []
        self.may_bind = may_bind
        self.writes = 0
        self.left_out = 0

    def session(self, session: str) -> Session | None:
        return self.sessions.get(session)

    def binding(self, address: str) -> Binding:
        return self.bindings.get(address, EMPTY)

    def put_session(self, session: str, after: Session) -> None:
        self.sessions[session] = after
        self.writes += 1

    def put_binding(self, address: str, after: Binding) -> None:
        self.writes += after != self.binding(address)
        self.bindings[address] = after

    def restarts(self, source: str, nas: str) -> list[Restart]:
        return [each for each in self.restarted if each.source == source and each.nas in (nas, "")]

    def kin(self, session: str, known: Session) -> list[str]:
        return [
            name
            for name, other in self.sessions.items()
            if name != session
            and ((known.mac and other.mac == known.mac) or (known.multi and other.multi == known.multi))
        ]

    def stations(self, mac: str) -> list[str]:
        return [name for name, session in self.sessions.items() if session.mac == mac]

    def leases(self, mac: str) -> list[str]:
        return [address for address, binding in self.bindings.items() if mac in binding.leases]

    def leave_out(self, leases: int) -> None:
        self.left_out += leases

    def play(self, *facts: Fact, now: float = NOW) -> "World":
        """Hears of facts, in this order."""
        for fact in facts:
            if isinstance(fact, Event):
                engine.take_event(self, fact, now)
            elif isinstance(fact, Lease):
                engine.take_lease(self, fact, now)
            else:
                self.restarted.append(fact)
            self._settle(now)
        return self

    def holding(self, address: Prefix, at: float = 0.0) -> Holding:
        """Who has an address, `at` seconds after NOW."""
        return self.binding(str(address)).holding(NOW + at)

    def owner(self, address: Prefix = X, at: float = 0.0) -> str:
        """The same, the user only."""
        return self.holding(address, at).user

    def until(self, address: Prefix = X, at: float = 0.0) -> float:
        """Until when, in seconds after NOW."""
        return self.holding(address, at).expires - NOW

    def _settle(self, now: float) -> None:
        before = -1
        while self.writes != before:
            before = self.writes
            for session in list(self.sessions):
                engine.refresh(self, session, now)


def start(user: str = "alice", session: str = "ap1/1", *addresses: Prefix, at: float = 0.0, **more: Any) -> Event:
    """A Start `at` seconds after NOW."""
    return accounting(Kind.START, user, session, *addresses, at=at, **more)


def interim(user: str = "alice", session: str = "ap1/1", *addresses: Prefix, at: float = 0.0, **more: Any) -> Event:
    """An Interim-Update `at` seconds after NOW."""
    return accounting(Kind.INTERIM, user, session, *addresses, at=at, **more)


def stop(user: str = "alice", session: str = "ap1/1", *addresses: Prefix, at: float = 0.0, **more: Any) -> Event:
    """A Stop `at` seconds after NOW."""
    return accounting(Kind.STOP, user, session, *addresses, at=at, **more)


def accounting(
    kind: Kind,
    user: str,
    session: str,
    *addresses: Prefix,
    at: float = 0.0,
    heard: float | None = None,
    started: float | None = None,
    source: str = "controller",
    lease: int = 3600,
    longest: int = 86400,
    **more: Any,
) -> Event:
    """An accounting event; `at`, `heard` (the same, unless given) and `started` in seconds after NOW."""
    clock = NOW + (at if heard is None else heard)
    begun = 0.0 if kind is Kind.STOP else clock
    if started is not None:
        begun = NOW + started
    return Event(kind, user, session, addresses, NOW + at, clock, begun, source, lease, longest, **more)


def leased(mac: str = LAPTOP, address: Prefix = X, at: float = 0.0, term: float = 1800.0) -> Lease:
    """A lease given or renewed `at` seconds after NOW."""
    return Lease(address, mac, NOW + at, NOW + at + term, "kea")


def released(mac: str = LAPTOP, address: Prefix = X, at: float = 0.0) -> Lease:
    """A lease that ended `at` seconds after NOW."""
    return Lease(address, mac, NOW + at, NOW + at, "kea")


def restart(at: float = 0.0, nas: str = "ap1", source: str = "controller") -> Restart:
    """An Accounting-On `at` seconds after NOW."""
    return Restart(source, nas, NOW + at, NOW + at)
