"""Leading, with a real Consul: one at a time, and another one soon after its end."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.leader import Leader, Leadership
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[float]]


async def work_for_ever(_: Leadership) -> None:
    """What a leader does here."""
    await asyncio.Event().wait()


async def test_one_leads_and_the_next_takes_over_as_soon_as_it_resigns(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    first, second = Leader(consul, keys.lock("x")), Leader(consul, keys.lock("x"))

    async def first_leads() -> bool:
        assert not (first.leads and second.leads)
        return first.leads

    async def second_leads() -> bool:
        assert not (first.leads and second.leads)
        return second.leads

    async with running(first.run(work_for_ever)) as leading:
        await eventually(first_leads, within=5)
        async with running(second.run(work_for_ever)):
            leading.cancel()
            assert await eventually(second_leads, within=5) < 3


def _lead_in_another_process(url: str, key: str) -> None:
    async def lead() -> None:
        async with Consul(ConsulSettings(url=url)) as consul:
            await Leader(consul, key, ttl=10).run(work_for_ever)

    asyncio.run(lead())


async def test_after_a_leaders_death_another_leads_within_a_minute(
    consul: Consul, server: ConsulServer, keys: Keys, eventually: Eventually
) -> None:
    key = keys.lock("x")
    process = multiprocessing.get_context("spawn").Process(target=_lead_in_another_process, args=(server.url, key))
    process.start()
    try:

        async def held() -> bool:
            entry = await consul.get(key)
            return entry is not None and bool(entry.session)

        await eventually(held, within=20)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        leader = Leader(consul, key, ttl=10)

        async def taken_over() -> bool:
            return leader.leads

        async with running(leader.run(work_for_ever)):
            await eventually(taken_over, within=60)
    finally:
        process.kill()
        process.join()
        process.close()


async def test_a_leader_whose_consul_stands_still_stops_before_another_could_lead(
    own_server: ConsulServer, keys: Keys, eventually: Eventually
) -> None:
    ended: list[float] = []

    async def work(leadership: Leadership) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(leadership.until - time.monotonic())

    async with Consul(ConsulSettings(url=own_server.url)) as consul:
        leader = Leader(consul, keys.lock("x"), ttl=10)

        async def leads() -> bool:
            return leader.leads

        async def stopped() -> bool:
            return bool(ended)

        async with running(leader.run(work)):
            await eventually(leads, within=5)
            own_server.pause()
            await eventually(stopped, within=20)
            own_server.resume()
            assert ended[0] > -1, "it stopped when its session could have ended, not later"
            await eventually(leads, within=40)
