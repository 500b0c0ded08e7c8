"""A bridge's recording end, for tests: what was submitted, in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from radius_bridge.identity.events import Lease
from radius_bridge.leases.source import Source
from radius_bridge.registry.errors import NotRecorded


class Recorder:
    """`submit` records a lease, unless it is told to fail or to wait."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self.failures = 0
        """So many submissions fail first."""
        self.gate = asyncio.Event()
        """Cleared: nothing is recorded until it is set."""
        self.gate.set()
        self.under_way = 0

    async def submit(self, lease: Lease) -> None:
        """What the lanes offer."""
        self.under_way += 1
        try:
            await self.gate.wait()
            if self.failures:
                self.failures -= 1
                raise NotRecorded("told to fail")
            self.leases.append(lease)
        finally:
            self.under_way -= 1

    @property
    def now(self) -> dict[str, tuple[str, bool]]:
        """By address: the MAC, and whether the lease lives."""
        return {str(lease.address): (lease.mac, lease.expires > lease.at) for lease in self.leases}

    def last(self, address: str) -> Lease:
        """The last word on an address."""
        return next(lease for lease in reversed(self.leases) if str(lease.address) == address)


@asynccontextmanager
async def running(source: Source) -> AsyncIterator[None]:
    """A source at work; an error that ends it is raised."""
    task = asyncio.create_task(source.run())
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
