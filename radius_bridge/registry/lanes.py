"""Events in, committed bindings out: the writing half of the registry.

An address always goes to the same lane, and a lane has one transaction in flight: that keeps the order per
address and still fills Consul and its disk. While a transaction is in flight the next one gathers, so nothing
waits for a timer. Whoever submits an event hears of it when Consul has committed it and the change feed has announced
it, and only then.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Self

import structlog

from radius_bridge.identity.bindings import EMPTY, Binding, apply
from radius_bridge.identity.events import Event, Kind
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import BadRecord, Conflict, Forbidden, NotRecorded, RegistryError
from radius_bridge.registry.feed import Change, Class
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import LIMIT, Known
from radius_bridge.registry.kv import MAX_BYTES, MAX_OPS, Committed, Entry, Op
from radius_bridge.registry.records import changes, decode_binding, members
from radius_bridge.registry.transport import TRY_TIMEOUT

LAST_WORDS: Final = 4.0
"""Seconds that `close` leaves for what is to be announced."""

BACKOFF: Final = (0.05, 1.0)
"""First and longest pause (seconds, before jitter) after Consul failed."""

IDENTITY_INTERVAL: Final = 0.05
"""Seconds between two announcements of bindings: no answer waits for them."""

SLICE: Final = 500
"""Bindings that are read between two turns of the event loop."""

_log = structlog.get_logger(__name__)


class _Ticket:
    """One submitted event, until all its addresses are committed and announced."""

    __slots__ = ("deadline", "done", "event", "left")

    def __init__(self, event: Event, left: int, deadline: float, done: asyncio.Future[None]) -> None:
        self.event = event
        self.left = left
        self.deadline = deadline
        self.done = done


@dataclass(slots=True)
class _Lane:
    pending: dict[Prefix, list[_Ticket]] = field(default_factory=dict)
    """What is to be committed, by address in the order of arrival; the transaction in flight included."""
    doubtful: set[Prefix] = field(default_factory=set)
    """Addresses to read before they are written again: a check failed, or an outcome is unknown."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    """Transactions that failed one after the other, conflicts aside."""


class _Part(NamedTuple):
    """What one transaction does for one address."""

    address: Prefix
    tickets: int
    """How many of the address's tickets it settles."""
    after: Binding
    ops: list[Op]


@dataclass(frozen=True, slots=True)
class _Settled:
    """What a transaction did for one address, until it is announced."""

    address: Prefix
    index: int
    """Of the commit."""
    tickets: list[_Ticket]


class Lanes:
    """Writes events to Consul. `run` does the work; `submit` may be called as soon as there is an event loop.

    `counters` are for monitoring: `committed`, `not_recorded`, `overflow`, `overdue`, `transactions`,
    `operations`, `conflicts`, `failures`, `forbidden`, `bad_records`, `unknown_stops`, `faults`.
    """

    def __init__(
        self,
        consul: Consul,
        keys: Keys,
        *,
        count: int = 8,
        patience: float = 10.0,
        queue_limit: int = 20_000,
        clock: Callable[[], float] = time.time,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        """`patience`: seconds after which an event that is still not committed is given up.

        `committed` is called when Consul has committed a write.
        """
        self._consul = consul
        self._keys = keys
        self._patience = patience
        self._queue_limit = queue_limit
        self._clock = clock
        self._committed = committed
        self._lanes = [_Lane() for _ in range(count)]
        self._open: set[_Ticket] = set()
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._announcers: list[asyncio.Task[None]] = []
        self._announced: dict[Prefix, int] = {}
        """By address, the index of the commit that we announced last."""
        self.known = Known()
        self.access = Announcer(consul, keys, Class.BRIDGE, clock=clock)
        self.identity = Announcer(consul, keys, Class.IDENTITY, least_interval=IDENTITY_INTERVAL, clock=clock)
        self.counters: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(lane), name="lane") for lane in self._lanes]
        self._announcers = [asyncio.create_task(each.run(), name="announcer") for each in (self.access, self.identity)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def load(self) -> None:
        """Reads all bindings: a Stop without an address finds those of its session. Raises RegistryError."""
        snapshot = await self._consul.read(self._keys.bindings, consistency="consistent")
        for place, entry in enumerate(snapshot.entries):
            self.learn(entry)
            if place % SLICE == 0:
                await asyncio.sleep(0)
        self.known.prune(self._clock())

    def learn(self, entry: Entry) -> None:
        """Takes note of a binding that somebody wrote, unless we know a newer one."""
        try:
            address = parse_prefix(entry.key.removeprefix(self._keys.bindings))
        except ValueError as error:
            self._bad_record(f"{entry.key}: no address ({error})")
            return
        if entry.modify_index > self.known.get(address)[1]:
            self.known.put(address, self._binding(entry), entry.modify_index)
            self._claim_pending(self._lane(address), address)

    def submit(self, event: Event) -> asyncio.Future[None]:
        """Takes an event to commit; a Stop ends its session on every address the session is known to claim.

        The future is done when everything that the event changes is committed and announced (at once if it concerns no
        address), or fails with NotRecorded when that did not succeed in time.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        addresses = set(event.addresses)
        if event.kind is Kind.STOP:
            claimed = self.known.addresses(event.session)
            addresses |= {each for each in claimed if event.within is None or each in event.within}
            self.counters["unknown_stops"] += not addresses
        if not addresses:
            done.set_result(None)
            return done
        if self._closed or len(self._open) >= self._queue_limit:
            self.counters["overflow"] += 1
            return _fail(done, "shutting down" if self._closed else "the queue to Consul is full")
        ticket = _Ticket(event, len(addresses), asyncio.get_running_loop().time() + self._patience, done)
        self._open.add(ticket)
        for address in addresses:
            lane = self._lane(address)
            lane.pending.setdefault(address, []).append(ticket)
            lane.wake.set()
            self.known.claim(event.session, address)
        return done

    async def drain(self, timeout: float) -> bool:
        """Waits until all that was submitted is settled; False if that takes more than `timeout` seconds."""
        waiting = [ticket.done for ticket in self._open]
        if not waiting:
            return True
        _, left = await asyncio.wait(waiting, timeout=timeout)
        return not left

    async def close(self) -> None:
        """Ends all work, within seconds; what is not committed by now fails with NotRecorded."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self.access.close()
        self.identity.close()
        if self._announcers:
            await asyncio.wait(self._announcers, timeout=LAST_WORDS)
        for task in self._announcers:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._announcers, return_exceptions=True)
        for ticket in list(self._open):
            self._give_up(ticket, "shutting down")

    async def _run(self, lane: _Lane) -> None:
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            while lane.pending:
                await self._turn(lane)

    async def _turn(self, lane: _Lane) -> None:
        """One transaction of a lane, with whatever must be read before it."""
        parts: list[_Part] = []
        try:
            if lane.doubtful:
                await self._read_again(lane)
            parts = self._next_parts(lane)
            ops = [op for part in parts for op in part.ops]
            self.counters["transactions"] += 1
            self.counters["operations"] += len(ops)
            done = await self._consul.transact(ops, timeout=TRY_TIMEOUT)
        except Conflict as conflict:
            # Another bridge wrote, or the sweeper did. Nothing is wrong: read what failed, and build anew.
            self.counters["conflicts"] += 1
            lane.doubtful |= _addresses(parts, conflict.failed) or {part.address for part in parts}
            self._give_up_overdue(lane)
        except Forbidden as forbidden:
            self.counters["forbidden"] += 1
            _log.error("Consul refuses to record", error=str(forbidden))
            for address in _addresses(parts, forbidden.failed):
                self._abandon(lane, address, lane.pending[address], "Consul's ACL refuses it")
            await self._pause(lane)
        except RegistryError as error:
            self.counters["failures"] += 1
            if not lane.failures:
                _log.warning("Consul fails, trying again", error=str(error))
            lane.doubtful |= {part.address for part in parts}
            await self._pause(lane)
        except Exception:  # a fault of ours must cost the events that show it, not the lane and all that follow
            self.counters["faults"] += 1
            _log.exception("cannot record")
            for address in [part.address for part in parts] or list(lane.pending):
                self._abandon(lane, address, lane.pending[address], "internal error")
        else:
            lane.failures = 0
            if done.index:
                self._committed()
            self._announce([self._settle(lane, part, done) for part in parts], parts)
            self.known.prune(self._clock())

    def _next_parts(self, lane: _Lane) -> list[_Part]:
        """As many pending addresses as fit into one transaction, the events of each made into one change."""
        parts: list[_Part] = []
        count, size = 0, len("[]")
        now = self._clock()
        for address, tickets in lane.pending.items():
            before, index = self.known.get(address)
            after = before
            for ticket in tickets:
                after = apply(after, ticket.event, now)
            ops = changes(self._keys, address, before, after, index)
            count += len(ops)
            size += sum(op.size for op in ops)
            if parts and (count > MAX_OPS or size > MAX_BYTES):
                break
            parts.append(_Part(address, len(tickets), after, ops))
        return parts

    async def _read_again(self, lane: _Lane) -> None:
        doubtful = [address for address in lane.doubtful if address in lane.pending]
        keys = {self._keys.binding(address): address for address in doubtful}
        entries = await self._consul.get_many(keys, consistent=True, timeout=TRY_TIMEOUT)
        for key, address in keys.items():
            entry = entries.get(key)
            if entry is None:
                self.known.drop(address)
            else:
                self.known.put(address, self._binding(entry), entry.modify_index)
            self._claim_pending(lane, address)
        lane.doubtful.clear()

    async def _pause(self, lane: _Lane) -> None:
        """Waits before the next try, longer each time and never as long as the other lanes (full jitter)."""
        self._give_up_overdue(lane)
        first, longest = BACKOFF
        pause = min(longest, first * 2**lane.failures)
        lane.failures = min(lane.failures + 1, 16)
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads retries, protects nothing

    def _settle(self, lane: _Lane, part: _Part, done: Committed) -> _Settled:
        """The first tickets of an address are committed; later ones take their turn at the end."""
        cas = part.ops[0]
        if cas.writes:
            index = done.modified[cas.key]
            self.known.put(part.address, part.after, index)
        else:
            index = cas.index
        tickets = lane.pending.pop(part.address)
        if len(tickets) > part.tickets:
            lane.pending[part.address] = tickets[part.tickets :]
            self._claim_pending(lane, part.address)
        return _Settled(part.address, index, tickets[: part.tickets])

    def _announce(self, settled: Sequence[_Settled], parts: Sequence[_Part]) -> None:
        """Has announced what was committed; whoever submitted it hears of it then.

        Where nothing was left to commit, its writer may have died before announcing it: that is made up for.
        """
        access: list[Change] = []
        identity: list[Change] = []
        for each, part in zip(settled, parts, strict=True):
            if each.index == self._announced.get(each.address, 0):
                continue
            access += [
                Change(key, value, each.index)
                for key, value in members(self._keys, each.address, part.after, part.ops).items()
            ]
            if part.ops[0].writes:
                identity.append(Change(part.ops[0].key, part.ops[0].value, each.index))
        self.identity.announce(identity)
        announced = self.access.announce(access)
        if announced.done():
            self._acknowledge(settled, None, announced)
            return
        deadline = max(ticket.deadline for each in settled for ticket in each.tickets)
        timer = asyncio.get_running_loop().call_at(deadline, self._not_announced, settled)
        announced.add_done_callback(partial(self._acknowledge, settled, timer))

    def _acknowledge(
        self, settled: Sequence[_Settled], timer: asyncio.TimerHandle | None, announced: asyncio.Future[None]
    ) -> None:
        if timer is not None:
            timer.cancel()
        if announced.exception() is not None:
            self._not_announced(settled)
            return
        for each in settled:
            self._announced.pop(each.address, None)
            self._announced[each.address] = each.index
            for ticket in each.tickets:
                ticket.left -= 1
                if ticket.left == 0 and ticket in self._open:
                    self._open.remove(ticket)
                    self.counters["committed"] += 1
                    if not ticket.done.done():  # whoever asked may have gone
                        ticket.done.set_result(None)
        while len(self._announced) > LIMIT:
            del self._announced[next(iter(self._announced))]

    def _not_announced(self, settled: Sequence[_Settled]) -> None:
        for each in settled:
            for ticket in each.tickets:
                self._give_up(ticket, f"committed, but not announced within {self._patience:g} s")

    def _lane(self, address: Prefix) -> _Lane:
        return self._lanes[hash(address) % len(self._lanes)]

    def _claim_pending(self, lane: _Lane, address: Prefix) -> None:
        """What is pending claims its address, whatever was learnt of it meanwhile."""
        for ticket in lane.pending.get(address, ()):
            self.known.claim(ticket.event.session, address)

    def _give_up_overdue(self, lane: _Lane) -> None:
        now = asyncio.get_running_loop().time()
        for address, tickets in list(lane.pending.items()):
            overdue = [ticket for ticket in tickets if ticket.deadline <= now]
            if overdue:
                self.counters["overdue"] += len(overdue)
                self._abandon(lane, address, overdue, f"not committed within {self._patience:g} s")

    def _abandon(self, lane: _Lane, address: Prefix, tickets: list[_Ticket], why: str) -> None:
        kept = [ticket for ticket in lane.pending.pop(address) if ticket not in tickets]
        if kept:
            lane.pending[address] = kept
        for ticket in tickets:
            if all(other.event.session != ticket.event.session for other in kept):
                self.known.unclaim(ticket.event.session, address)
            self._give_up(ticket, why)

    def _give_up(self, ticket: _Ticket, why: str) -> None:
        if ticket in self._open:
            self._open.remove(ticket)
            self.counters["not_recorded"] += 1
            _fail(ticket.done, why)

    def _binding(self, entry: Entry) -> Binding:
        """The binding in an entry; EMPTY for one that cannot be read: the next event writes a good one."""
        try:
            return decode_binding(entry.key, entry.value)
        except BadRecord as error:
            self._bad_record(str(error))
            return EMPTY

    def _bad_record(self, message: str) -> None:
        self.counters["bad_records"] += 1
        _log.error("unreadable record in Consul", error=message)


def _addresses(parts: list[_Part], positions: frozenset[int]) -> set[Prefix]:
    """The addresses whose operations stand at these positions of the transaction made of `parts`."""
    owners = [part.address for part in parts for _ in part.ops]
    return {owners[position] for position in positions}


def _fail(done: asyncio.Future[None], why: str) -> asyncio.Future[None]:
    if not done.done():
        done.set_exception(NotRecorded(why))
        done.exception()  # whoever asked may have gone: that is no error to log
    return done
