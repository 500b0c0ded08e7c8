"""What was committed is announced afterwards, in one small record that this process owns: what bridges tell each other,
and what is told of others' writes. What lanes write themselves is announced with it (`registry.pages`).
"""

import asyncio
import os
import re
import secrets
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Conflict, NotRecorded, RegistryError
from radius_bridge.registry.feed import ABANDONED, QUIET_BYTES, READ_AGAIN, STANDS, Change, Class, Log, record_key
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.poll import backoff
from radius_bridge.registry.transport import TRY_TIMEOUT

FIRST_INTERVAL: Final = 0.005
LONGEST_INTERVAL: Final = 0.02
"""Seconds between two announcements: at first, when one follows the other, and under load. Idle, there is none. That
hosts do not wake so often is their own doing (`registry.poll`)."""

FEW: Final = 4
"""Entries of one announcement up to which we are idle: a login is one, or two with its IPv6 address."""

OUTAGE: Final = 300.0
"""Seconds of failing from which on we no longer say what has changed (Consul remembers deletions for 15 minutes, and
what is older than those cannot be told from news), but that everything is to be read again."""

BACKOFF: Final = (0.05, 1.0)
"""First and longest pause (seconds, before jitter) after Consul failed."""

QUIET: Final = 2.0
"""Seconds without news after which a large record is emptied."""

PENDING: Final = 100_000
"""Entries that wait to be announced, at most. Beyond that followers are told to read again."""

READ_ALL: Final = Change(READ_AGAIN, None, 0)
"""The entry that has everybody read everything again."""

_log = structlog.get_logger(__name__)


def writer_name() -> str:
    """A name for one life of a writer: no other one, past or future, has it."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


class Announcer:
    """Writes the record of one writer; `run` does the work, `announce` may be called at any time.

    `counters` are for monitoring: `announcements`, `entries`, `octets`, `failures`, `overflow`, `lives` (new ones,
    begun because Consul was restored), `trims`.
    """

    def __init__(
        self,
        consul: Consul,
        keys: Keys,
        writers: Class,
        *,
        least_interval: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`least_interval`: seconds between two announcements even when nothing else is to be done."""
        self._consul = consul
        self._keys = keys
        self._class = writers
        self._least = least_interval
        self._clock = clock
        self._pending: deque[Change] = deque()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Who waits until so many entries are announced."""
        self._taken = 0
        self._announced = 0
        self._wake = asyncio.Event()
        self._index = 0
        """The modify index of our record; 0 if it does not exist."""
        self._written = 0.0
        self._read_again = False
        self._closing = False
        self._begin_life()
        self.counters: Counter[str] = Counter()

    def announce(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        """Announces committed changes, in this order. The future is done when the announcement is in Consul.

        It fails with NotRecorded when too many are waiting. The caller may cancel it: they are announced all the same.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self._pending) + len(changes) > PENDING:
            self.counters["overflow"] += len(changes)
            self._read_again = True
            done.set_exception(NotRecorded("too much is waiting to be announced"))
            done.exception()  # not everybody asks: that is no error to log
            return done
        self._pending.extend(changes)
        self._taken += len(changes)
        if not changes:
            done.set_result(None)
            return done
        self._waiting.append((self._taken, done))
        self._wake.set()
        return done

    def close(self) -> None:
        """Has `run` end when all is announced and read; the record is left empty, and soon swept."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Announces until cancelled, or until done after `close`."""
        interval = due = 0.0
        while await self._something_to_do():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            if self._read_again:
                self._pending.appendleft(READ_ALL)
                self._announced -= 1  # nobody waits for it
                self._read_again = False
            fresh = self._record.add(self._pending, time.monotonic())
            if fresh:
                await self._write()
            self.counters["entries"] += fresh
            self._announced += fresh
            while self._waiting and self._waiting[0][0] <= self._announced:
                _, done = self._waiting.popleft()
                if not done.done():
                    done.set_result(None)
            interval = self._next_interval(interval, fresh)
            due = max(began + interval, time.monotonic() + min(interval, FIRST_INTERVAL))

    def _next_interval(self, interval: float, fresh: int) -> float:
        """Under load each announcement takes more; else none waits."""
        if self._record.crowded:
            return STANDS  # nothing is won by writing all of it again for the little that has room sooner
        if fresh > FEW:
            return min(LONGEST_INTERVAL, max(FIRST_INTERVAL, 2 * interval))
        return max(self._least, min(LONGEST_INTERVAL, interval / 2) if interval > FIRST_INTERVAL else 0.0)

    async def _something_to_do(self) -> bool:
        """True when there is something to announce, False at the end; meanwhile empties the record in quiet times."""
        while not self._pending:
            if self._closing and not self._record.size:
                return False
            self._wake.clear()
            is_large = self._record.size > QUIET_BYTES
            try:
                async with asyncio.timeout(QUIET if is_large or self._closing else None):
                    await self._wake.wait()
            except TimeoutError:
                self._record.trim()
                self.counters["trims"] += 1
                await self._write()
        return True

    async def _write(self) -> None:
        """Writes the record, however long that takes."""
        tried: list[bytes] = []
        failures = 0
        began = time.monotonic()
        while True:
            ended = self._closing and not self._record.size
            value = self._record.record(self._clock(), ended=ended)
            tried = [*tried[-7:], value]
            # The folder is a key too, so that a feed without a writer wakes for nothing but itself.
            ops = [Op.cas(self.key, value, self._index)]
            if not self._index:
                ops.append(Op.set(f"{self.key.rpartition('/')[0]}/", b""))
            try:
                done = await self._consul.transact(ops, timeout=TRY_TIMEOUT)
            except Conflict:
                if not await self._was_ours(tried):
                    continue
            except RegistryError as error:
                self.counters["failures"] += 1
                if not failures:
                    _log.warning("cannot announce, trying again", feed=self._class.value, error=str(error))
                await asyncio.sleep(backoff(failures, BACKOFF))
                failures += 1
                if time.monotonic() - began > OUTAGE:
                    began = time.monotonic()
                    self._announced += len(self._pending)
                    self._pending.clear()
                    self._begin_anew()
                continue
            else:
                self._index = done.modified[self.key]
            self._written = time.monotonic()
            self.counters["announcements"] += 1
            self.counters["octets"] += len(value)
            return

    async def _was_ours(self, tried: list[bytes]) -> bool:
        """After a conflict: True if one of our tries had succeeded. If not, the next one can."""
        try:
            entry = await self._consul.get(self.key, consistency="consistent", timeout=TRY_TIMEOUT)
        except RegistryError:
            await asyncio.sleep(backoff(0, BACKOFF))
            return False
        if entry is not None and entry.value in tried:
            self._index = entry.modify_index
            return True
        if entry is None and self._index and time.monotonic() - self._written > ABANDONED / 2:
            self._index = 0  # swept because we were idle for long: go on with the same numbers
            return False
        if entry is not None or self._index:
            # Nobody else writes our record: Consul was restored, and what we announced since may never have been.
            self.counters["lives"] += 1
            _log.warning("Consul has gone back: beginning anew", feed=self._class.value, record=self.key)
            self._begin_anew()
        return False

    def _begin_anew(self) -> None:
        """A new life that begins with the advice to read everything again: it stands for all that was to be said."""
        self._begin_life()
        self._record.add(deque([READ_ALL]), time.monotonic())

    def _begin_life(self) -> None:
        self.key = record_key(self._keys, self._class, writer_name())
        """Of our record, in this life."""
        self._record = Log(self._keys)
        self._index = 0
