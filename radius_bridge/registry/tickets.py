"""What was submitted to the lanes and is not settled yet: bounded, and each piece of work has a deadline.

A transaction costs us and Consul as much as some twenty operations in it, so few full ones are to be in flight and not
many small ones. What waits gathers in the first lane that has room in its next transaction; only what concerns a
station of which something waits already goes where that is, so that it stays in its order.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from math import inf
from typing import Final

from radius_bridge.registry.errors import NotRecorded
from radius_bridge.registry.kv import MAX_OPS
from radius_bridge.registry.turn import Refresh, Work

SLOW: Final = 0.01
"""Seconds that a transaction may take before what arrives goes to another lane, if one is free: nothing is to wait for
two that are slow (while Consul collects its garbage, say)."""

FULL: Final = MAX_OPS // 3
"""Tickets that fill a transaction: a login is three operations."""


class Ticket:
    """One piece of work, until what it changes is committed and announced."""

    __slots__ = ("deadline", "done", "keys", "station", "work")

    def __init__(self, work: Work, station: str, deadline: float, done: asyncio.Future[None] | None) -> None:
        self.work = work
        self.station = station
        """What keeps its order: a MAC address, or what stands in for one."""
        self.deadline = deadline
        """By the event loop's clock."""
        self.done = done
        self.keys: set[str] = set()
        """Of the records that it changed when it was last tried."""


class Lane:
    """What goes into the same transactions, of which one is in flight at a time."""

    __slots__ = ("_stations", "began", "doubtful", "failures", "full", "in_flight", "pending", "wake")

    def __init__(self) -> None:
        self.pending: dict[Ticket, None] = {}
        """In the order of arrival; what is in the transaction in flight included."""
        self.in_flight = 0
        """How many of them are."""
        self._stations: dict[str, int] = {}
        """Tickets of each station that is bound to this lane."""
        self.doubtful: set[str] = set()
        """Keys to read before they are written again: a check failed, or an outcome is unknown."""
        self.wake = asyncio.Event()
        self.full = asyncio.Event()
        """Set when the next transaction has become full."""
        self.began = 0.0
        """When its last transaction began (monotonic seconds)."""
        self.failures = 0
        """Transactions that failed one after the other, conflicts aside."""

    def __contains__(self, station: str) -> bool:
        """True if what concerns the station must go here."""
        return station in self._stations

    @property
    def waiting(self) -> int:
        """Tickets that are not in the transaction in flight."""
        return len(self.pending) - self.in_flight

    @property
    def has_room(self) -> bool:
        """True if its next transaction is neither full nor behind a trouble."""
        if self.doubtful or self.failures:
            return not self.pending
        return self.waiting < FULL

    def add(self, ticket: Ticket) -> None:
        """Queues a ticket."""
        self.pending[ticket] = None
        self._stations[ticket.station] = self._stations.get(ticket.station, 0) + 1
        self.wake.set()
        if self.waiting >= FULL:
            self.full.set()

    def remove(self, ticket: Ticket) -> None:
        """Takes a ticket out, if it is there."""
        if ticket not in self.pending:
            return
        del self.pending[ticket]
        self._stations[ticket.station] -= 1
        # While an outcome is unknown, only who reads it first may write what depends on it.
        if not self._stations[ticket.station] and not self.doubtful:
            del self._stations[ticket.station]

    def clear_up(self) -> None:
        """Nothing is in doubt any more."""
        self.doubtful.clear()
        self._stations = {station: count for station, count in self._stations.items() if count}


class Tickets:
    """All that is open, and in which lane."""

    def __init__(self, count: int, patience: float, limit: int, counters: Counter[str]) -> None:
        """`count` is of lanes; `patience` in seconds; `limit` is of what may be open, and of refreshes besides."""
        self.lanes = [Lane() for _ in range(count)]
        self.patience = patience
        self._limit = limit
        self._counters = counters
        self._open: set[Ticket] = set()
        self._refreshing: set[str] = set()
        self.closed = False

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all runs in. To ask for it is a system call each time."""
        return asyncio.get_running_loop()

    def submit(self, work: Work, station: str) -> asyncio.Future[None]:
        """Queues work. The future is done when it is settled; it fails with NotRecorded when it is given up."""
        loop = self._loop
        done: asyncio.Future[None] = loop.create_future()
        if self.closed or len(self._open) >= self._limit:
            self._counters["overflow"] += 1
            return _fail(done, "shutting down" if self.closed else "the queue to Consul is full")
        ticket = Ticket(work, station, loop.time() + self.patience, done)
        self._open.add(ticket)
        self._lane(station).add(ticket)
        return done

    def is_refreshing(self, session: str) -> bool:
        """True if a refresh of the session is queued, so that it will see all that is known by then."""
        return session in self._refreshing

    def begin(self, tickets: Iterable[Ticket]) -> None:
        """These are in a transaction now: what becomes known from here on, their refreshes have not seen."""
        self._refreshing.difference_update(_refreshed(tickets))

    def begin_again(self, tickets: Iterable[Ticket]) -> None:
        """That transaction failed, and they wait for the next one."""
        self._refreshing.update(_refreshed(tickets))

    def refresh(self, session: str, station: str) -> None:
        """Queues a refresh that nobody waits for, and that is tried until it succeeds."""
        if len(self._refreshing) < self._limit:
            self._refreshing.add(session)
            self._lane(station).add(Ticket(Refresh(session), station, inf, None))

    def _lane(self, station: str) -> Lane:
        room: Lane | None = None
        behind: Lane | None = None
        late = time.monotonic() - SLOW
        for lane in self.lanes:
            if station in lane:
                return lane
            if room is None and lane.has_room:
                if not lane.in_flight or lane.began > late:
                    room = lane
                else:
                    behind = behind or lane
        return room or behind or min(self.lanes, key=lambda lane: lane.waiting // FULL)

    def waiting(self) -> list[asyncio.Future[None]]:
        """Those who wait for what is open."""
        return [ticket.done for ticket in self._open if ticket.done is not None]

    def settle(self, tickets: Sequence[Ticket]) -> None:
        """Tells those who wait that it is done."""
        for ticket in tickets:
            if isinstance(ticket.work, Refresh) and ticket.done is None:
                self._counters["refreshed"] += 1
            elif ticket in self._open:
                self._open.remove(ticket)
                self._counters["committed"] += 1
                if ticket.done is not None and not ticket.done.done():  # whoever asked may have gone
                    ticket.done.set_result(None)

    def give_up_overdue(self, lane: Lane) -> None:
        """Gives up what has waited in a lane for longer than we have patience."""
        now = self._loop.time()
        for ticket in [each for each in lane.pending if each.deadline <= now]:
            self._counters["overdue"] += 1
            self.abandon(lane, ticket, f"not committed within {self.patience:g} s")

    def abandon(self, lane: Lane, ticket: Ticket, why: str) -> None:
        """Takes a ticket out of its lane and gives it up."""
        lane.remove(ticket)
        self.give_up(ticket, why)

    def give_up(self, ticket: Ticket, why: str) -> None:
        """Tells who waits for a ticket, if it is still open, that it is not recorded."""
        self._refreshing.difference_update(_refreshed([ticket]))
        if ticket in self._open:
            self._open.remove(ticket)
            self._counters["not_recorded"] += 1
            if ticket.done is not None:
                _fail(ticket.done, why)

    def give_up_all(self, why: str) -> None:
        """Gives up whatever is open."""
        for ticket in list(self._open):
            self.give_up(ticket, why)


def _refreshed(tickets: Iterable[Ticket]) -> Iterator[str]:
    """The sessions of those that are refreshes which nobody waits for."""
    return (each.work.session for each in tickets if isinstance(each.work, Refresh) and each.done is None)


def _fail(done: asyncio.Future[None], why: str) -> asyncio.Future[None]:
    if not done.done():
        done.set_exception(NotRecorded(why))
        done.exception()  # whoever asked may have gone: that is no error to log
    return done
