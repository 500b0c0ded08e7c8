"""What stands behind a listener in its tests: a recorder of events that does what the test says."""

import asyncio
import time
from collections.abc import Callable

from radius_bridge.identity.events import Event, Restart


async def until(condition: Callable[[], bool]) -> None:
    """Waits up to 5 seconds until the condition holds."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "waited for 5 seconds"
        await asyncio.sleep(0.002)


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
