"""Whether Consul records: only a write that it has committed a moment ago says so.

Its `/v1/status/leader` names a leader that hangs, too. As long as events are committed they are the proof; when
nothing else is, a key of our own is written once a second.
"""

import asyncio
import time
from typing import Final

import structlog

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.kv import Op

FRESH: Final = 5.0
"""Seconds for which a commit proves that the next one will succeed."""

INTERVAL: Final = 1.0
"""Seconds after a commit before we write for its own sake."""

TIMEOUT: Final = 4.0
"""Seconds that such a write may take: a Consul that needs nearly `FRESH` for each still counts as recording."""

_log = structlog.get_logger(__name__)


class Health:
    """Knows when something was last committed; `run` sees to it that something is."""

    def __init__(self, consul: Consul, key: str) -> None:
        """`key` is written when nothing else is."""
        self._consul = consul
        self._key = key
        self._committed = float("-inf")
        self._was_recording = True

    def committed(self) -> None:
        """Consul has committed a write of ours just now."""
        self._committed = time.monotonic()

    def is_recording(self) -> bool:
        """True if a write was committed within the last `FRESH` seconds."""
        return time.monotonic() - self._committed < FRESH

    async def run(self) -> None:
        """Writes whenever nothing was committed for `INTERVAL` seconds, until cancelled."""
        while True:
            rest = self._committed + INTERVAL - time.monotonic()
            if rest > 0:
                await asyncio.sleep(rest)
                continue
            began = time.monotonic()
            error = await self._write()
            self._tell(error)
            if error is not None:
                await asyncio.sleep(max(0.0, began + INTERVAL - time.monotonic()))

    async def _write(self) -> RegistryError | None:
        try:
            await self._consul.transact([Op.set(self._key, str(int(time.time())).encode())], timeout=TIMEOUT)
        except RegistryError as error:
            return error
        self.committed()
        return None

    def _tell(self, error: RegistryError | None) -> None:
        """Says when recording ends and when it begins again, and nothing in between."""
        recording = self.is_recording()
        if self._was_recording and not recording:
            _log.error("Consul does not record: Status-Server gets no answer", error=str(error))
        elif recording and not self._was_recording:
            _log.info("Consul records again")
        self._was_recording = recording
