"""What follows from what was learnt: sessions that lack something of a lease, a restart, or one that they came from.

What two writers learnt at the same moment, each without the other's, is made up for when they hear of it.
"""

from collections.abc import Callable, Iterable

from radius_bridge.identity import engine
from radius_bridge.identity.bindings import Binding
from radius_bridge.identity.sessions import Session
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import Known
from radius_bridge.registry.tickets import Tickets
from radius_bridge.registry.turn import MayBind, Overlay


class Consequences:
    """Queues refreshes of the sessions that need one."""

    def __init__(
        self, keys: Keys, known: Known, tickets: Tickets, may_bind: MayBind, clock: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._known = known
        self._tickets = tickets
        self._may_bind = may_bind
        self._clock = clock

    def of(self, keys: Iterable[str], written: Callable[[str], Session | Binding | None] = lambda _key: None) -> None:
        """Refreshes the sessions that lack something which follows from the records at these keys.

        `written` gives those that we wrote just now: it spares reading them.
        """
        affected: dict[str, None] = {}
        for key in keys:
            record = written(key)
            if key.startswith(self._keys.sessions):
                name = key.removeprefix(self._keys.sessions)
                session = record if isinstance(record, Session) else self._known.session(name)
                if session is not None and self._is_concerned(name, session):
                    affected[name] = None
                    affected |= dict.fromkeys(self._known.kin(name, session))
            elif key.startswith(self._keys.bindings):
                address = key.removeprefix(self._keys.bindings)
                binding = record if isinstance(record, Binding) else self._known.binding(address)
                for mac in binding.leases:
                    affected |= dict.fromkeys(self._known.stations(mac))
            else:
                source, _, nas = key.removeprefix(self._keys.restarts).partition("/")
                affected |= dict.fromkeys(self._known.of_nas(source, nas))
        for name in affected:
            self._refresh_if_needed(name)

    def _refresh_if_needed(self, name: str) -> None:
        session = self._known.session(name)
        if session is None or self._tickets.closed or self._tickets.is_refreshing(name):
            return
        if not self._is_concerned(name, session):
            return
        trial = Overlay(self._known, self._may_bind)
        engine.refresh(trial, name, self._clock())
        if trial.sessions or trial.bindings:
            self._tickets.refresh(name, session.mac or name)

    def _is_concerned(self, name: str, session: Session) -> bool:
        """False if there is nothing that a session could lack."""
        return bool(
            self._known.leases(session.mac)
            or self._known.kin(name, session)
            or self._known.restarts(session.source, name.partition("/")[0])
        )
