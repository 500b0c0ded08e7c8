"""Events and leases in, committed sessions and bindings out: the writing half of the registry.

What concerns one station goes to the same lane, and a lane has one transaction in flight: that keeps its order and
still fills Consul and its disk. While a transaction is in flight the next one gathers, so nothing waits for a timer.
Whoever submits something hears of it when Consul has committed it and the change feed has announced it, and only then.

Lanes may write to the same record, as may other bridges: every write is checked, and what fails is read and done
again. What two writers learnt at the same moment, each without the other's, is made up for when they hear of it.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Final, Self

import structlog

from radius_bridge.identity import engine
from radius_bridge.identity.events import Event, Kind, Lease, Restart
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Conflict, Forbidden, NotRecorded, RegistryError
from radius_bridge.registry.feed import Change, Class
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import LIMIT, Known
from radius_bridge.registry.kv import Committed, Entry
from radius_bridge.registry.parts import gently, read_parts, slices
from radius_bridge.registry.records import everybodys
from radius_bridge.registry.transport import TRY_TIMEOUT
from radius_bridge.registry.turn import Added, MayBind, Overlay, Refresh, Turn, Work

LAST_WORDS: Final = 4.0
"""Seconds that `close` leaves for what is to be announced."""

BACKOFF: Final = (0.05, 1.0)
"""First and longest pause (seconds, before jitter) after Consul failed."""

IDENTITY_INTERVAL: Final = 0.05
"""Seconds between two announcements of sessions and bindings: no answer waits for them."""

SLICE: Final = 500
"""Records that are looked at between two turns of the event loop."""

_log = structlog.get_logger(__name__)


class _Ticket:
    """One piece of work, until what it changes is committed and announced."""

    __slots__ = ("deadline", "done", "keys", "work")

    def __init__(self, work: Work, deadline: float, done: asyncio.Future[None] | None) -> None:
        self.work = work
        self.deadline = deadline
        self.done = done
        self.keys: set[str] = set()
        """Of the records that it changed when it was last tried."""


class _Lane:
    __slots__ = ("doubtful", "failures", "pending", "wake")

    def __init__(self) -> None:
        self.pending: list[_Ticket] = []
        """In the order of arrival; what is in the transaction in flight included."""
        self.doubtful: set[str] = set()
        """Keys to read before they are written again: a check failed, or an outcome is unknown."""
        self.wake = asyncio.Event()
        self.failures = 0
        """Transactions that failed one after the other, conflicts aside."""


class Lanes:
    """Writes to Consul. `run` does the work; `submit` may be called as soon as there is an event loop.

    `counters` are for monitoring: `committed`, `not_recorded`, `overflow`, `overdue`, `transactions`,
    `operations`, `conflicts`, `failures`, `forbidden`, `bad_records`, `unknown_stops`, `faults`, `quiet` (nothing to
    write), `foreign` (of a session that is not the client's), `refreshed` (what followed from others' news),
    `leases_left_out` (addresses by lease beyond those that one session may have).
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
        may_bind: MayBind = lambda _source, _address: True,
    ) -> None:
        """`patience`: seconds after which an event that is still not committed is given up.

        `committed` is called when Consul has committed a write. `may_bind` is asked of addresses that no packet of the
        client names: leased ones, and those that a roaming station keeps.
        """
        self._consul = consul
        self._keys = keys
        self._patience = patience
        self._queue_limit = queue_limit
        self._clock = clock
        self._committed = committed
        self._may_bind = may_bind
        self._lanes = [_Lane() for _ in range(count)]
        self._open: set[_Ticket] = set()
        self._refreshing: set[str] = set()
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._announcers: list[asyncio.Task[None]] = []
        self._announced: dict[str, int] = {}
        """By key of a binding, the index of the commit that we announced last."""
        self.known = Known(keys, bad_record=self._bad_record)
        self.access = Announcer(consul, keys, Class.BRIDGE, clock=clock)
        self.identity = Announcer(consul, keys, Class.IDENTITY, least_interval=IDENTITY_INTERVAL, clock=clock)
        self.counters: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(lane), name="lane") for lane in self._lanes]
        self._announcers = [asyncio.create_task(each.run(), name="announcer") for each in (self.access, self.identity)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def load(self, spread: float = 0.0) -> None:
        """Reads all that is recorded, and does what was left undone. Raises RegistryError.

        In parts, between which others have their turn, here and in Consul; each folder over about `spread` seconds.
        """
        learnt: list[str] = []
        for folder in (self._keys.restarts, self._keys.sessions, self._keys.bindings):
            listing = await self._consul.read_keys(folder, consistency="consistent")
            async for entries in read_parts(self._consul, folder, listing.keys, spread=spread):
                async for entry in gently(entries, SLICE):
                    if self._take(entry):
                        learnt.append(entry.key)
        for some in slices(learnt, SLICE):
            self._reconsider(some)
            await asyncio.sleep(0)
        self.known.prune(self._clock())

    def learn(self, entries: Iterable[Entry]) -> None:
        """Takes note of what somebody wrote, unless we know it newer; does what follows from it."""
        self._reconsider([entry.key for entry in entries if self._take(entry)])

    def submit(self, event: Event | Restart) -> asyncio.Future[None]:
        """Takes an event to commit.

        The future is done when everything that the event changes is committed and announced, or fails with
        NotRecorded when that did not succeed in time. A restart ends sessions; it is done when all of them are.
        """
        if isinstance(event, Restart):
            task = asyncio.create_task(self._restart(event), name="restart")
            task.add_done_callback(_note_failed)
            return task
        if event.kind is Kind.STOP and not self.known.index(self._keys.session(event.session)):
            self.counters["unknown_stops"] += 1
        return self._enqueue(event, event.mac or event.session)

    def submit_lease(self, lease: Lease) -> asyncio.Future[None]:
        """Takes a lease to commit; the future is as that of `submit`."""
        return self._enqueue(lease, lease.mac or str(lease.address))

    async def drain(self, timeout: float) -> bool:
        """Waits until all that was submitted is settled; False if that takes more than `timeout` seconds."""
        waiting = [ticket.done for ticket in self._open if ticket.done is not None]
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

    def _enqueue(self, work: Work, station: str) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if self._closed or len(self._open) >= self._queue_limit:
            self.counters["overflow"] += 1
            return _fail(done, "shutting down" if self._closed else "the queue to Consul is full")
        ticket = _Ticket(work, loop.time() + self._patience, done)
        self._open.add(ticket)
        self._queue(ticket, station)
        return done

    def _queue(self, ticket: _Ticket, station: str) -> None:
        lane = self._lanes[hash(station) % len(self._lanes)]
        lane.pending.append(ticket)
        lane.wake.set()

    async def _restart(self, restart: Restart) -> None:
        """RFC 2866 §5.1. Sessions heard of later are ended by the record that this leaves."""
        await self._enqueue(restart, restart.nas)
        ends: list[asyncio.Future[None]] = []
        for name in self.known.of_nas(restart.source, restart.nas):
            session = self.known.session(name)
            if session is not None and not session.end and session.at <= restart.at:
                ends.append(self._enqueue(Refresh(name), session.mac or name))
        if ends:
            await asyncio.gather(*ends)

    async def _run(self, lane: _Lane) -> None:
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            while lane.pending:
                await self._turn(lane)

    async def _turn(self, lane: _Lane) -> None:
        """One transaction of a lane, with whatever must be read before it."""
        tickets: list[_Ticket] = []
        fresh = frozenset(lane.doubtful)
        turn = Turn(self._keys, self.known, self._may_bind, self._clock(), fresh)
        try:
            if fresh:
                await self._read_again(lane)
            tickets = self._fill(lane, turn)
            ops = turn.ops
            done = Committed(0, {})
            if ops:
                self.counters["transactions"] += 1
                self.counters["operations"] += len(ops)
                done = await self._consul.transact(ops, timeout=TRY_TIMEOUT)
        except Conflict as conflict:
            # Another writer was faster. Nothing is wrong: read what failed, and build anew.
            self.counters["conflicts"] += 1
            lane.doubtful |= {turn.ops[place].key for place in conflict.failed} or set(turn.groups)
            self._give_up_overdue(lane)
        except Forbidden as forbidden:
            self.counters["forbidden"] += 1
            _log.error("Consul refuses to record", error=str(forbidden))
            refused = _records(turn, forbidden.failed)
            for ticket in [each for each in tickets if not refused or each.keys & refused]:
                self._abandon(lane, ticket, "Consul's ACL refuses it")
            await self._pause(lane)
        except RegistryError as error:
            self.counters["failures"] += 1
            if not lane.failures:
                _log.warning("Consul fails, trying again", error=str(error))
            lane.doubtful |= {*turn.groups, *turn.checked}
            await self._pause(lane)
        except Exception:  # a fault of ours must cost what shows it, not the lane and all that follow
            self.counters["faults"] += 1
            _log.exception("cannot record")
            for ticket in tickets or list(lane.pending):
                self._abandon(lane, ticket, "internal error")
        else:
            lane.failures = 0
            if done.index:
                self._committed()
            self._settle(lane, turn, tickets, done)

    def _fill(self, lane: _Lane, turn: Turn) -> list[_Ticket]:
        """Adds what waits to the turn, as much as fits; gives what will be done when that is committed."""
        tickets: list[_Ticket] = []
        for ticket in list(lane.pending):
            try:
                added, ticket.keys = turn.add(ticket.work)
            except Exception:  # as in `_turn`: only this one is to suffer
                self.counters["faults"] += 1
                _log.exception("cannot record", session=getattr(ticket.work, "session", ""))
                self._abandon(lane, ticket, "internal error")
                continue
            if added in (Added.PARTLY, Added.FULL):
                break
            if added is Added.STALE:
                lane.doubtful |= ticket.keys
                break
            if added is Added.QUIET:
                self.counters["quiet"] += 1
                doubtful = self._not_announced_by_us(ticket.work)
                if not turn.has_room(len(doubtful)):
                    break
                for key in doubtful:
                    turn.check(key)
                ticket.keys = set(doubtful)
            self.counters["foreign"] += added is Added.FOREIGN
            tickets.append(ticket)
        return tickets

    def _not_announced_by_us(self, work: Work) -> list[str]:
        """The records that work is to be answered for that changes nothing: their writer may have died before
        announcing them.
        """
        if isinstance(work, Restart):
            return []
        if isinstance(work, Lease):
            records = bindings = [self._keys.binding(work.address)]
        else:
            session = self.known.session(work.session)
            bindings = [self._keys.binding(address) for address in (() if session is None else session.claimed)]
            records = [self._keys.session(work.session), *bindings]
        return [] if all(self._announced.get(key, 0) == self.known.index(key) for key in bindings) else records

    async def _read_again(self, lane: _Lane) -> None:
        keys = list(lane.doubtful)
        entries = await self._consul.get_many(keys, consistent=True, timeout=TRY_TIMEOUT)
        for key in keys:
            entry = entries.get(key)
            if entry is None:
                self.known.drop(key)
            else:
                self.known.put(key, entry.value, entry.modify_index)
        lane.doubtful.clear()

    async def _pause(self, lane: _Lane) -> None:
        """Waits before the next try, longer each time and never as long as the other lanes (full jitter)."""
        self._give_up_overdue(lane)
        first, longest = BACKOFF
        pause = min(longest, first * 2**lane.failures)
        lane.failures = min(lane.failures + 1, 16)
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads retries, protects nothing

    def _settle(self, lane: _Lane, turn: Turn, tickets: Sequence[_Ticket], done: Committed) -> None:
        """Takes note of what is committed, and has it announced; whoever submitted it hears of it then.

        Where nothing was left to commit, its writer may have died before announcing it: that is made up for.
        """
        access: list[Change] = []
        identity: list[Change] = []
        bindings: dict[str, int] = {}
        for key, ops in turn.groups.items():
            index = done.modified[key]
            if index > self.known.index(key):
                self.known.put(key, ops[0].value, index)
            identity.append(Change(key, ops[0].value, index))
            if key.startswith(self._keys.bindings):
                bindings[key] = index
            access += [Change(op.key, op.value if op.verb == "set" else None, index) for op in ops[1:]]
        self.counters["leases_left_out"] += turn.left_out
        now = self._clock()
        for key in turn.checked:
            index = self.known.index(key)
            if index and key.startswith(self._keys.bindings) and self._announced.get(key, 0) != index:
                bindings[key] = index
                address = key.removeprefix(self._keys.bindings)
                left = everybodys(self._keys, address, self.known.binding(address), now)
                access += [Change(member, value, index) for member, value in left.items()]
        settled = set(tickets)
        lane.pending = [ticket for ticket in lane.pending if ticket not in settled]
        self.identity.announce(identity)
        announced = self.access.announce(access)
        if announced.done():
            self._acknowledge(tickets, bindings, None, announced)
        else:
            loop = asyncio.get_running_loop()
            deadline = min(loop.time() + self._patience, max((each.deadline for each in tickets), default=inf))
            timer = loop.call_at(deadline, self._not_announced, tickets)
            announced.add_done_callback(partial(self._acknowledge, tickets, bindings, timer))
        self._reconsider(turn.groups)
        self.known.prune(now)

    def _acknowledge(
        self,
        tickets: Sequence[_Ticket],
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
        while len(self._announced) > LIMIT:
            del self._announced[next(iter(self._announced))]
        for ticket in tickets:
            if isinstance(ticket.work, Refresh) and ticket.done is None:
                self._refreshing.discard(ticket.work.session)
                self.counters["refreshed"] += 1
            elif ticket in self._open:
                self._open.remove(ticket)
                self.counters["committed"] += 1
                if ticket.done is not None and not ticket.done.done():  # whoever asked may have gone
                    ticket.done.set_result(None)

    def _not_announced(self, tickets: Sequence[_Ticket]) -> None:
        for ticket in tickets:
            self._give_up(ticket, f"committed, but not announced within {self._patience:g} s")

    def _take(self, entry: Entry) -> bool:
        """Takes note of a record; False if we know it newer."""
        if entry.key.endswith("/") or entry.modify_index <= self.known.index(entry.key):
            return False
        self.known.put(entry.key, entry.value, entry.modify_index)
        return True

    def _reconsider(self, keys: Iterable[str]) -> None:
        """Refreshes the sessions that lack something which follows from these records."""
        affected: dict[str, None] = {}
        for key in keys:
            if key.startswith(self._keys.sessions):
                name = key.removeprefix(self._keys.sessions)
                session = self.known.session(name)
                if session is not None:
                    affected[name] = None
                    affected |= dict.fromkeys(self.known.kin(name, session))
            elif key.startswith(self._keys.bindings):
                for mac in self.known.binding(key.removeprefix(self._keys.bindings)).leases:
                    affected |= dict.fromkeys(self.known.stations(mac))
            else:
                source, _, nas = key.removeprefix(self._keys.restarts).partition("/")
                affected |= dict.fromkeys(self.known.of_nas(source, nas))
        for name in affected:
            self._refresh_if_needed(name)

    def _refresh_if_needed(self, name: str) -> None:
        session = self.known.session(name)
        if session is None or name in self._refreshing or self._closed:
            return
        if not (
            self.known.leases(session.mac)
            or self.known.kin(name, session)
            or self.known.restarts(session.source, name.partition("/")[0])
        ):
            return
        trial = Overlay(self.known, self._may_bind)
        engine.refresh(trial, name, self._clock())
        if (trial.sessions or trial.bindings) and len(self._refreshing) < self._queue_limit:
            self._refreshing.add(name)
            self._queue(_Ticket(Refresh(name), inf, None), session.mac or name)

    def _give_up_overdue(self, lane: _Lane) -> None:
        now = asyncio.get_running_loop().time()
        for ticket in [each for each in lane.pending if each.deadline <= now]:
            self.counters["overdue"] += 1
            self._abandon(lane, ticket, f"not committed within {self._patience:g} s")

    def _abandon(self, lane: _Lane, ticket: _Ticket, why: str) -> None:
        if ticket in lane.pending:
            lane.pending.remove(ticket)
        self._give_up(ticket, why)

    def _give_up(self, ticket: _Ticket, why: str) -> None:
        if isinstance(ticket.work, Refresh):
            self._refreshing.discard(ticket.work.session)
        if ticket in self._open:
            self._open.remove(ticket)
            self.counters["not_recorded"] += 1
            if ticket.done is not None:
                _fail(ticket.done, why)

    def _bad_record(self, message: str) -> None:
        self.counters["bad_records"] += 1
        _log.error("unreadable record in Consul", error=message)


def _records(turn: Turn, positions: frozenset[int]) -> set[str]:
    """The keys of the records to which the operations at these positions belong."""
    owners = [key for key, ops in turn.groups.items() for _ in ops]
    return {owners[position] for position in positions if position < len(owners)}


def _fail(done: asyncio.Future[None], why: str) -> asyncio.Future[None]:
    if not done.done():
        done.set_exception(NotRecorded(why))
        done.exception()  # whoever asked may have gone: that is no error to log
    return done


def _note_failed(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()
