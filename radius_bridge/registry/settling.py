"""From a commit to those who wait for it: what was written is noted, other bridges are told, and it is acknowledged."""

from collections.abc import Sequence

from radius_bridge.identity.bindings import Binding
from radius_bridge.identity.sessions import Session
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.feed import Change
from radius_bridge.registry.known import Known
from radius_bridge.registry.kv import Committed
from radius_bridge.registry.tickets import Ticket, Tickets
from radius_bridge.registry.turn import Turn


class Settling:
    """Settles the tickets of committed transactions."""

    def __init__(self, known: Known, tickets: Tickets, identity: Announcer) -> None:
        """For what `identity` announces nobody waits."""
        self._known = known
        self._tickets = tickets
        self._identity = identity

    def settle(self, turn: Turn, tickets: Sequence[Ticket], done: Committed) -> None:
        """Takes note of what is committed, and tells whoever submitted it."""
        identity: list[Change] = []
        for key, group in turn.groups.items():
            index, value = done.modified[key], group.ops[0].value
            if index > self._known.index(key):
                self._note(key, group.record, value, index)
            identity.append(Change(key, value, index))
        self._identity.announce(identity)
        self._tickets.settle(tickets)

    def _note(self, key: str, record: Session | Binding | None, value: bytes, index: int) -> None:
        if isinstance(record, Session):
            self._known.put_session(key, record, value, index)
        elif isinstance(record, Binding):
            self._known.put_binding(key, record, value, index)
        else:
            self._known.put(key, value, index)
