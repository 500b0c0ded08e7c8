"""What was submitted to the lanes and is not settled yet: bounded, and each piece of work has a deadline."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from math import inf

from radius_bridge.registry.errors import NotRecorded
from radius_bridge.registry.turn import Refresh, Work


class Ticket:
    """One piece of work, until what it changes is committed and announced."""

    __slots__ = ("deadline", "done", "keys", "work")

    def __init__(self, work: Work, deadline: float, done: asyncio.Future[None] | None) -> None:
        self.work = work
        self.deadline = deadline
        """By the event loop's clock."""
        self.done = done
        self.keys: set[str] = set()
        """Of the records that it changed when it was last tried."""


class Lane:
    """What waits for the same transactions, one after the other."""

    __slots__ = ("doubtful", "failures", "pending", "wake")

    def __init__(self) -> None:
        self.pending: list[Ticket] = []
        """In the order of arrival; what is in the transaction in flight included."""
        self.doubtful: set[str] = set()
        """Keys to read before they are written again: a check failed, or an outcome is unknown."""
        self.wake = asyncio.Event()
        self.failures = 0
        """Transactions that failed one after the other, conflicts aside."""


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

    def submit(self, work: Work, station: str) -> asyncio.Future[None]:
        """Queues work. The future is done when it is settled; it fails with NotRecorded when it is given up."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if self.closed or len(self._open) >= self._limit:
            self._counters["overflow"] += 1
            return _fail(done, "shutting down" if self.closed else "the queue to Consul is full")
        ticket = Ticket(work, loop.time() + self.patience, done)
        self._open.add(ticket)
        self._queue(ticket, station)
        return done

    def is_refreshing(self, session: str) -> bool:
        """True if a refresh of the session is queued."""
        return session in self._refreshing

    def refresh(self, session: str, station: str) -> None:
        """Queues a refresh that nobody waits for, and that is tried until it succeeds."""
        if len(self._refreshing) < self._limit:
            self._refreshing.add(session)
            self._queue(Ticket(Refresh(session), inf, None), station)

    def _queue(self, ticket: Ticket, station: str) -> None:
        lane = self.lanes[hash(station) % len(self.lanes)]
        lane.pending.append(ticket)
        lane.wake.set()

    def waiting(self) -> list[asyncio.Future[None]]:
        """Those who wait for what is open."""
        return [ticket.done for ticket in self._open if ticket.done is not None]

    def settle(self, tickets: Sequence[Ticket]) -> None:
        """Tells those who wait that it is done."""
        for ticket in tickets:
            if isinstance(ticket.work, Refresh) and ticket.done is None:
                self._refreshing.discard(ticket.work.session)
                self._counters["refreshed"] += 1
            elif ticket in self._open:
                self._open.remove(ticket)
                self._counters["committed"] += 1
                if ticket.done is not None and not ticket.done.done():  # whoever asked may have gone
                    ticket.done.set_result(None)

    def give_up_overdue(self, lane: Lane) -> None:
        """Gives up what has waited in a lane for longer than we have patience."""
        now = asyncio.get_running_loop().time()
        for ticket in [each for each in lane.pending if each.deadline <= now]:
            self._counters["overdue"] += 1
            self.abandon(lane, ticket, f"not committed within {self.patience:g} s")

    def abandon(self, lane: Lane, ticket: Ticket, why: str) -> None:
        """Takes a ticket out of its lane and gives it up."""
        if ticket in lane.pending:
            lane.pending.remove(ticket)
        self.give_up(ticket, why)

    def give_up(self, ticket: Ticket, why: str) -> None:
        """Tells who waits for a ticket, if it is still open, that it is not recorded."""
        if isinstance(ticket.work, Refresh):
            self._refreshing.discard(ticket.work.session)
        if ticket in self._open:
            self._open.remove(ticket)
            self._counters["not_recorded"] += 1
            if ticket.done is not None:
                _fail(ticket.done, why)

    def give_up_all(self, why: str) -> None:
        """Gives up whatever is open."""
        for ticket in list(self._open):
            self.give_up(ticket, why)


def _fail(done: asyncio.Future[None], why: str) -> asyncio.Future[None]:
    if not done.done():
        done.set_exception(NotRecorded(why))
        done.exception()  # whoever asked may have gone: that is no error to log
    return done
