"""What lease sources have to say, on its way to who records it: bounded, and of each address in order."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from radius_bridge.identity.events import Lease
from radius_bridge.policy.members import Prefix
from radius_bridge.process import together
from radius_bridge.registry.errors import NotRecorded, RegistryError
from radius_bridge.registry.poll import backoff

Submit = Callable[[Lease], Awaitable[None]]
"""Records a lease; done when it is recorded. Raises NotRecorded, RegistryError."""

LANES: Final = 64
"""Leases that are being recorded at the same time."""

WAITING: Final = 64
"""Addresses that may wait behind each of them."""

RETRY: Final = (0.1, 5.0)
"""Seconds: the first and the longest pause after what could not be recorded."""


class _Lane:
    """Addresses that go one after the other. Of what waits, only the newest word on an address is kept."""

    def __init__(self) -> None:
        self.waiting: dict[Prefix, Lease] = {}
        self.filled = asyncio.Event()
        self.room = asyncio.Event()


class Outbox:
    """Takes leases (`put`) and has them recorded (`run`), again and again until they are."""

    def __init__(self, submit: Submit, counters: Counter[str]) -> None:
        self._submit = submit
        self._counters = counters
        self._lanes = [_Lane() for _ in range(LANES)]

    async def put(self, lease: Lease) -> None:
        """Takes a lease; waits while too many do already, so that the source is read no faster than is recorded."""
        lane = self._lanes[hash(lease.address) % LANES]
        while len(lane.waiting) >= WAITING and lease.address not in lane.waiting:
            lane.room.clear()
            await lane.room.wait()
        self._counters["superseded"] += lease.address in lane.waiting
        lane.waiting[lease.address] = lease
        lane.filled.set()

    async def run(self) -> None:
        """Works until cancelled."""
        async with together() as tasks:
            for lane in self._lanes:
                tasks.create_task(self._work(lane), name="lease outbox")

    async def _work(self, lane: _Lane) -> None:
        failures = 0
        while True:
            while not lane.waiting:
                lane.filled.clear()
                await lane.filled.wait()
            address = next(iter(lane.waiting))
            lease = lane.waiting.pop(address)
            if await self._record(lease):
                failures = 0
                lane.room.set()
            else:
                # Behind the others, which may fare better; a newer word on the address stands for it.
                lane.waiting.setdefault(address, lease)
                await asyncio.sleep(backoff(failures, RETRY))
                failures += 1

    async def _record(self, lease: Lease) -> bool:
        try:
            await self._submit(lease)
        except (NotRecorded, RegistryError):
            self._counters["not_recorded"] += 1
            return False
        self._counters["recorded"] += 1
        return True
