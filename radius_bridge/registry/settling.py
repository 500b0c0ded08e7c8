"""From a commit to those who wait for it: what was written is noted, announced, and then acknowledged."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from radius_bridge.identity.bindings import Binding
from radius_bridge.identity.events import Lease, Restart
from radius_bridge.identity.sessions import Session
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.feed import Change
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import Known
from radius_bridge.registry.kv import Committed
from radius_bridge.registry.records import everybodys
from radius_bridge.registry.tickets import Ticket, Tickets
from radius_bridge.registry.turn import Turn, Work


class Settling:
    """Settles the tickets of committed transactions."""

    def __init__(
        self,
        keys: Keys,
        known: Known,
        tickets: Tickets,
        access: Announcer,
        identity: Announcer,
        clock: Callable[[], float],
    ) -> None:
        """An answer waits for what `access` announces; for `identity` none does."""
        self._keys = keys
        self._known = known
        self._tickets = tickets
        self._access = access
        self._identity = identity
        self._clock = clock
        self._announced: dict[str, int] = {}
        """By key of a binding, the index of the commit that we announced last."""

    def not_announced_by_us(self, work: Work) -> list[str]:
        """The records that work is to be answered for that changes nothing: their writer may have died before
        announcing them.
        """
        if isinstance(work, Restart):
            return []
        if isinstance(work, Lease):
            records = bindings = [self._keys.binding(work.address)]
        else:
            session = self._known.session(work.session)
            bindings = [] if session is None else [self._keys.binding(address) for address in session.claimed]
            if session is not None:
                others = (self._keys.binding(address) for address in (*session.addresses, *session.left))
                bindings += [key for key in others if key not in bindings and self._known.index(key)]
            records = [self._keys.session(work.session), *bindings]
        return [] if all(self._announced.get(key, 0) == self._known.index(key) for key in bindings) else records

    def settle(self, turn: Turn, tickets: Sequence[Ticket], done: Committed) -> None:
        """Takes note of what is committed, and has it announced; whoever submitted it hears of it then.

        Where nothing was left to commit, its writer may have died before announcing it: that is made up for.
        """
        access: list[Change] = []
        identity: list[Change] = []
        bindings: dict[str, int] = {}
        for key, ops in turn.groups.items():
            index = done.modified[key]
            if index > self._known.index(key):
                self._note(turn, key, ops[0].value, index)
            identity.append(Change(key, ops[0].value, index))
            if key.startswith(self._keys.bindings):
                bindings[key] = index
            access += [Change(op.key, op.value if op.verb == "set" else None, index) for op in ops[1:]]
        now = self._clock()
        for key in turn.checked:
            index = self._known.index(key)
            if index and key.startswith(self._keys.bindings) and self._announced.get(key, 0) != index:
                bindings[key] = index
                address = key.removeprefix(self._keys.bindings)
                left = everybodys(self._keys, address, self._known.binding(address), now)
                access += [Change(member, value, index) for member, value in left.items()]
        self._identity.announce(identity)
        announced = self._access.announce(access)
        if announced.done():
            self._acknowledge(tickets, bindings, None, announced)
        else:
            loop = asyncio.get_running_loop()
            deadline = min(loop.time() + self._tickets.patience, max((each.deadline for each in tickets), default=inf))
            timer = loop.call_at(deadline, self._not_announced, tickets)
            announced.add_done_callback(partial(self._acknowledge, tickets, bindings, timer))

    def _note(self, turn: Turn, key: str, value: bytes, index: int) -> None:
        record = turn.written(key)
        if isinstance(record, Session):
            self._known.put_session(key, record, value, index)
        elif isinstance(record, Binding):
            self._known.put_binding(key, record, value, index)
        else:
            self._known.put(key, value, index)

    def _acknowledge(
        self,
        tickets: Sequence[Ticket],
        bindings: dict[str, int],
        timer: asyncio.TimerHandle | None,
        announced: asyncio.Future[None],
    ) -> None:
        if timer is not None:
            timer.cancel()
        if announced.exception() is not None:
            self._not_announced(tickets)
            return
        for key, index in bindings.items():
            self._announced.pop(key, None)
            self._announced[key] = index
        while len(self._announced) > len(self._known):  # one that is forgotten too early is announced once more
            del self._announced[next(iter(self._announced))]
        self._tickets.settle(tickets)

    def _not_announced(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            self._tickets.give_up(ticket, f"committed, but not announced within {self._tickets.patience:g} s")
