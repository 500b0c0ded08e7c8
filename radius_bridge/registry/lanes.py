"""Events and leases in, committed sessions and bindings out: the writing half of the registry.

A lane has one transaction in flight, and while it is, the next one gathers; what concerns a station goes where
something of it waits, which keeps its order. A transaction announces what it changes in groups itself, on a page of the
change feed. Whoever submits something hears of it when that is committed, and only then. Under load, a transaction that
is not full waits a few milliseconds for more; idle, nothing waits for a timer.

Lanes may write to the same record, as may other bridges: every write is checked, and what fails is read and done
again. What is queued: `registry.tickets`; a transaction in the making: `registry.turn`; where it announces:
`registry.pages`; what comes after it: `registry.settling` and `registry.learning`.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Self

import structlog

from radius_bridge.identity.events import Event, Kind, Lease, Restart
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Conflict, Forbidden, RegistryError
from radius_bridge.registry.feed import Change, Class
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import Known
from radius_bridge.registry.kv import Committed, Entry, Op
from radius_bridge.registry.learning import Learning
from radius_bridge.registry.pages import OCTETS, Page, Pages
from radius_bridge.registry.poll import next_pause
from radius_bridge.registry.settling import Settling
from radius_bridge.registry.tickets import FULL, Lane, Ticket, Tickets
from radius_bridge.registry.transport import TRY_TIMEOUT
from radius_bridge.registry.turn import Added, MayBind, Refresh, Turn

INTERVALS: Final = (0.005, 0.01)
"""Seconds after the beginning of one transaction until which a lane waits for more, unless its next one is full: at
first, when several logins go into one, and under load. Idle, there are none."""

FEW: Final = 4
"""Tickets in one transaction up to which we are idle."""

LAST_WORDS: Final = 4.0
"""Seconds that `close` leaves for what is to be announced."""

BACKOFF: Final = (0.05, 1.0)
"""First and longest pause (seconds, before jitter) after Consul failed."""

IDENTITY_INTERVAL: Final = 0.05
"""Seconds between two announcements of sessions and bindings: no answer waits for them."""

_log = structlog.get_logger(__name__)


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
        self._clock = clock
        self._committed = committed
        self._may_bind = may_bind
        self._began = 0.0
        """When the last transaction began (monotonic seconds)."""
        self._interval = 0.0
        """Seconds after that until which who comes to gather does so."""
        self._tasks: list[asyncio.Task[None]] = []
        self._others: list[asyncio.Task[None]] = []
        self.counters: Counter[str] = Counter()
        self.known = Known(keys, bad_record=self._bad_record)
        self.pages = Pages(consul, keys, clock)
        self.identity = Announcer(consul, keys, Class.IDENTITY, least_interval=IDENTITY_INTERVAL, clock=clock)
        self._tickets = Tickets(count, patience, queue_limit, self.counters)
        self._learning = Learning(consul, keys, self.known, self._tickets, may_bind, clock)
        self._settling = Settling(self.known, self._tickets, self.identity)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(lane), name="lane") for lane in self._tickets.lanes]
        self._others = [
            asyncio.create_task(self.identity.run(), name="identity announcer"),
            asyncio.create_task(self.pages.run(), name="pages"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def watch(self) -> None:
        """Does not end, but raises what a task of ours ended with: no login would be answered any more, or heard of."""
        done, _ = await asyncio.wait([*self._tasks, *self._others], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def load(self, spread: float = 0.0) -> None:
        """Reads all that is recorded, and does what was left undone. Raises RegistryError.

        In parts, between which others have their turn, here and in Consul; each folder over about `spread` seconds.
        """
        await self._learning.load(spread)

    def learn(self, entries: Iterable[Entry]) -> None:
        """Takes note of what somebody wrote, unless we know it newer; does what follows from it."""
        self._learning.learn(entries)

    def submit(self, event: Event | Restart) -> asyncio.Future[None]:
        """Takes an event to commit.

        The future is done when everything that the event changes is committed and announced, or it fails with
        NotRecorded when that did not succeed in time. A restart ends sessions; it is done when all of them are.
        """
        if isinstance(event, Restart):
            task = asyncio.create_task(self._restart(event), name="restart")
            task.add_done_callback(_note_failed)
            return task
        if event.kind is Kind.STOP and not self.known.index(self._keys.session(event.session)):
            self.counters["unknown_stops"] += 1
        return self._tickets.submit(event, event.mac or event.session)

    def submit_lease(self, lease: Lease) -> asyncio.Future[None]:
        """Takes a lease to commit; the future is as that of `submit`."""
        return self._tickets.submit(lease, lease.mac or str(lease.address))

    async def drain(self, timeout: float) -> bool:
        """Waits until all that was submitted is settled; False if that takes more than `timeout` seconds."""
        waiting = self._tickets.waiting()
        if not waiting:
            return True
        _, left = await asyncio.wait(waiting, timeout=timeout)
        return not left

    async def close(self) -> None:
        """Ends all work, within seconds; what is not committed by now fails with NotRecorded."""
        self._tickets.closed = True
        identity, pages = self._others or (None, None)
        for task in (*self._tasks, *([pages] if pages else [])):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.identity.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await asyncio.gather(self.pages.close(), *([identity] if identity else []), return_exceptions=True)
        await asyncio.gather(*self._others, return_exceptions=True)
        self._tickets.give_up_all("shutting down")

    async def _restart(self, restart: Restart) -> None:
        """RFC 2866 §5.1. Sessions heard of later are ended by the record that this leaves."""
        await self._tickets.submit(restart, restart.nas)
        ends: list[asyncio.Future[None]] = []
        for name in self.known.of_nas(restart.source, restart.nas):
            session = self.known.session(name)
            if session is None or session.ended or session.at > restart.at:
                continue
            if not session.end:
                ends.append(self._tickets.submit(Refresh(name), session.mac or name))
        if ends:
            await asyncio.gather(*ends)

    async def _run(self, lane: Lane) -> None:
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            while lane.pending:
                await self._gather(lane)
                await self._turn(lane)

    async def _gather(self, lane: Lane) -> None:
        """Under load, waits a moment with a transaction that is not full."""
        rest = self._began + self._interval - time.monotonic()
        if rest <= 0 or lane.waiting >= FULL or lane.failures or lane.doubtful:
            return
        lane.full.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await lane.full.wait()

    async def _turn(self, lane: Lane) -> None:
        """One transaction of a lane, with whatever must be read before it."""
        tickets: list[Ticket] = []
        page = self.pages.take()
        turn = Turn(self._keys, self.known, self._may_bind, self._clock(), (page.operations, OCTETS))
        is_free = True
        ops: list[Op] = []
        try:
            if lane.doubtful:
                await self._read_again(lane)
            lane.began = self._began = time.monotonic()
            tickets = self._fill(lane, turn)
            lane.in_flight = len(tickets)
            self._interval = next_pause(self._interval, len(tickets), INTERVALS, FEW)
            self._tickets.begin(tickets)
            ops = turn.ops
            done = Committed(0, {})
            if ops:
                self.counters["transactions"] += 1
                self.counters["operations"] += len(ops)
                is_free = False
                done = await self._record(page, ops, turn.members)
        except Conflict as conflict:
            # Another writer was faster. Nothing is wrong: read what failed, and build anew.
            self.counters["conflicts"] += 1
            lane.doubtful |= {ops[place].key for place in conflict.failed if place < len(ops)} or set(turn.groups)
            self._tickets.give_up_overdue(lane)
        except Forbidden as forbidden:
            self.counters["forbidden"] += 1
            _log.error("Consul refuses to record", error=str(forbidden))
            refused = _records(turn, forbidden.failed)
            for ticket in [each for each in tickets if not refused or each.keys & refused]:
                self._tickets.abandon(lane, ticket, "Consul's ACL refuses it")
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
                self._tickets.abandon(lane, ticket, "internal error")
        else:
            lane.failures = 0
            if done.index:
                self._committed()
            for ticket in tickets:
                lane.remove(ticket)
            self.counters["leases_left_out"] += turn.left_out
            self._settling.settle(turn, tickets, done)
            self._learning.follow({key: group.record for key, group in turn.groups.items()})
            self.known.prune(self._clock())
        finally:
            lane.in_flight = 0
            if is_free:
                self.pages.give_back(page)
            self._tickets.begin_again(each for each in tickets if each in lane.pending)

    async def _record(self, page: Page, ops: list[Op], members: list[Change]) -> Committed:
        """Has operations committed, and what they change in groups announced on a page. Raises RegistryError."""
        announcing = page.ops(members) if members else []
        try:
            done = await self._consul.transact([*ops, *announcing], timeout=TRY_TIMEOUT)
        except Conflict as conflict:
            if announcing and len(ops) in conflict.failed:
                self.pages.restored()
            else:
                self.pages.give_back(page)
            raise
        except Forbidden:
            self.pages.give_back(page)
            raise
        if announcing:
            page.committed(done.modified[page.key])
        self.pages.give_back(page, announcing[0].size if announcing else 0, len(members))
        return done

    def _fill(self, lane: Lane, turn: Turn) -> list[Ticket]:
        """Adds what waits to the turn, as much as fits; gives what will be done when that is committed."""
        tickets: list[Ticket] = []
        for ticket in list(lane.pending):
            try:
                added, ticket.keys = turn.add(ticket.work)
            except Exception:  # as in `_turn`: only this one is to suffer
                self.counters["faults"] += 1
                _log.exception("cannot record", session=getattr(ticket.work, "session", ""))
                self._tickets.abandon(lane, ticket, "internal error")
                continue
            if added in (Added.PARTLY, Added.FULL):
                break
            if added is Added.QUIET:
                self.counters["quiet"] += 1
            self.counters["foreign"] += added is Added.FOREIGN
            tickets.append(ticket)
        return tickets

    async def _read_again(self, lane: Lane) -> None:
        keys = sorted(lane.doubtful)
        entries = await self._consul.get_many(keys, consistent=True, timeout=TRY_TIMEOUT)
        news = [entry for entry in entries.values() if entry.modify_index != self.known.index(entry.key)]
        for key in keys:
            entry = entries.get(key)
            if entry is None:
                self.known.drop(key)
            else:
                self.known.put(key, entry.value, entry.modify_index)
        lane.clear_up()
        self._learning.follow({entry.key: None for entry in news})
        if lane.failures:  # some may be ours, with an answer that was lost: then nobody has told other bridges
            self.identity.announce([Change(key, entry.value, entry.modify_index) for key, entry in entries.items()])

    async def _pause(self, lane: Lane) -> None:
        """Waits before the next try, longer each time and never as long as the other lanes (full jitter)."""
        self._tickets.give_up_overdue(lane)
        first, longest = BACKOFF
        pause = min(longest, first * 2**lane.failures)
        lane.failures = min(lane.failures + 1, 16)
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads retries, protects nothing

    def _bad_record(self, message: str) -> None:
        self.counters["bad_records"] += 1
        _log.error("unreadable record in Consul", error=message)


def _records(turn: Turn, positions: frozenset[int]) -> set[str]:
    """The keys of the records to which the operations at these positions belong."""
    owners = [key for key, group in turn.groups.items() for _ in group.ops]
    return {owners[position] for position in positions if position < len(owners)}


def _note_failed(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()
