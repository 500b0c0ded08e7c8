"""What stands behind a listener in its tests: a recorder of events that does what the test says."""

import asyncio

from radius_bridge.identity.events import Event, Restart
from tests.waiting import until


class Recorder:
    """Takes events; the test says what becomes of them."""

    def __init__(self) -> None:
        self.events: list[Event | Restart] = []
        self.futures: list[asyncio.Future[None]] = []

    def submit(self, event: Event | Restart) -> asyncio.Future[None]:
        """What the service calls."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.events.append(event)
        self.futures.append(future)
        return future

    async def recorded(self, count: int) -> None:
        """Waits for that many events."""
        await until(lambda: len(self.events) >= count)
