"""Whether Consul records: only a committed write says so."""

import asyncio

import pytest

from radius_bridge.registry import health
from radius_bridge.registry.health import Health
from radius_bridge.registry.keys import Keys
from tests.registry.fake_consul import FakeConsul, Fault
from tests.waiting import until

KEY = Keys("befw").health("bridge one")


class Clock:
    """A clock that the test moves; the loop keeps its own."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(health, "time", made)
    return made


async def test_nothing_is_believed_before_the_first_commit() -> None:
    made = Health(FakeConsul(), KEY)
    assert not made.is_recording()
    made.committed()
    assert made.is_recording()


async def test_a_commit_proves_for_five_seconds(clock: Clock) -> None:
    made = Health(FakeConsul(), KEY)
    made.committed()
    clock.now += health.FRESH - 0.001
    assert made.is_recording()
    clock.now += 0.002
    assert not made.is_recording()


async def test_it_writes_only_when_nothing_else_is_committed() -> None:
    consul = FakeConsul()
    made = Health(consul, KEY)
    made.committed()
    running = asyncio.create_task(made.run())
    for _ in range(20):
        made.committed()
        await asyncio.sleep(0)
    assert not consul.store
    running.cancel()


async def test_it_writes_at_once_when_it_starts_and_notices_errors_and_their_end(clock: Clock) -> None:
    faults = [Fault.NONE]
    consul = FakeConsul(lambda: faults[0])
    made = Health(consul, KEY)
    running = asyncio.create_task(made.run())
    await until(made.is_recording)
    assert set(consul.store) == {"befw/$health$/bridge%20one"}
    faults[0] = Fault.REQUEST_LOST
    clock.now += health.FRESH
    assert not made.is_recording()
    faults[0] = Fault.NONE
    await until(made.is_recording)
    running.cancel()
