"""Keeps the last good state on disk up to date: off the event loop's way, and no more often than a disk can bear."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from agent.state import State, encode
from agent.statefile import StateFile

SOONEST: Final = 1.0
"""Seconds between two writes, at least."""

PACE: Final = 100_000
"""Octets per second that are written on average, at most: 65,000 members once in some 20 seconds."""

RETRY: Final = 15.0
"""Seconds before a failed write is tried again."""

log = structlog.get_logger()


class Saver:
    """Writes the state after it has changed. Failures are told and tried again; nothing else waits for them."""

    def __init__(self, file: StateFile, take: Callable[[], Awaitable[State | None]]) -> None:
        """`take` gives what is enforced now, with members that change no more; None before anything is."""
        self._file = file
        self._take = take
        self._changed = asyncio.Event()
        self.error = ""
        """Why the last write failed; empty if it did not."""
        self.written = 0.0
        """When what is on disk was enforced (epoch seconds); 0 before the first write."""
        self.counters: Counter[str] = Counter()
        """`writes`, `octets`, `failures`."""

    def changed(self) -> None:
        """What is on disk is out of date."""
        self._changed.set()

    async def run(self) -> None:
        """Writes whenever it is due, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            before = self.counters["octets"]
            if await self.save():
                await asyncio.sleep(max(SOONEST, (self.counters["octets"] - before) / PACE))
            else:
                self._changed.set()
                await asyncio.sleep(RETRY)

    async def save(self) -> bool:
        """Writes now; False if that failed."""
        state = await self._take()
        if state is None:
            return True
        began = time.monotonic()
        try:
            octets = await asyncio.to_thread(lambda: self._file.write(encode(state)))
        except OSError as error:
            self.counters["failures"] += 1
            if not self.error:
                log.error("last good state not written, enforcement goes on", error=str(error))
            self.error = f"{self._file.path}: not written ({error.strerror}); enforcement goes on"
            return False
        self.error, self.written = "", state.written
        self.counters["writes"] += 1
        self.counters["octets"] += octets
        log.debug("last good state written", octets=octets, seconds=round(time.monotonic() - began, 3))
        return True

    async def forget(self) -> None:
        """Removes what is on disk; it does not come back. Raises OSError."""
        await asyncio.to_thread(self._file.remove)

    def status(self) -> dict[str, Any]:
        """For the agent's status; times are epoch seconds."""
        return {"file": str(self._file.path), "written": self.written or None, **self.counters}
