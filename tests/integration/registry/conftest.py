"""A real Consul: one for all tests that leave it running, or one that a test may break."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.settings import ConsulSettings
from tests.lab.consul import ConsulServer


@pytest.fixture(scope="module")
def server() -> Iterator[ConsulServer]:
    """A Consul in memory that all tests of a module share: each works below a root of its own."""
    with ConsulServer() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[ConsulServer]:
    """A Consul on disk for one test, to be paused, killed and started."""
    with ConsulServer(on_disk=True) as server:
        yield server


@pytest.fixture
async def consul(server: ConsulServer) -> AsyncIterator[Consul]:
    """A connection to the shared Consul."""
    async with Consul(ConsulSettings(url=server.url)) as consul:
        yield consul


@pytest.fixture
def keys() -> Keys:
    """A root that nobody else uses."""
    return Keys(f"test-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def eventually() -> Callable[..., Awaitable[float]]:
    """Waits until a condition holds and gives the seconds that took; fails after `within` seconds."""

    async def wait(condition: Callable[[], Awaitable[bool]], *, within: float) -> float:
        began = time.monotonic()
        while not await condition():
            assert time.monotonic() - began < within, f"not so within {within:g} s"
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    return wait
