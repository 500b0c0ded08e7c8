"""Many followers lose Consul at once: they come back soon, and not all at the same moment."""

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from radius_bridge.policy.members import parse_prefix, user_group
from radius_bridge.registry import meta
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.feed import Change, Class
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer
from tests.waiting import until

pytestmark = pytest.mark.integration

HERD = 200
KEYS = Keys()
ALICE = KEYS.group_member(user_group("alice"), parse_prefix("10.0.0.1"))
OUTAGE = 4.0
"""Seconds; long enough for the pauses between attempts to have grown to some seconds."""


@pytest.mark.timeout(180)
async def test_a_herd_that_lost_consul_comes_back_spread_out_and_has_missed_nothing() -> None:
    with ConsulServer(on_disk=True, config={"limits": {"http_max_conns_per_client": 1000}}) as server:
        async with AsyncExitStack() as stack:
            writer = await stack.enter_async_context(Consul(ConsulSettings(url=server.url)))
            await meta.ensure(writer, KEYS)
            announcer = Announcer(writer, KEYS, Class.BRIDGE)
            await stack.enter_async_context(running(announcer.run()))
            await _write(writer, announcer, b"1000")
            herd = [await _follower(stack, server.url) for _ in range(HERD)]
            async with asyncio.timeout(60):
                await asyncio.gather(*(follower.wait_complete() for follower in herd))

            await asyncio.to_thread(server.kill)
            await asyncio.sleep(OUTAGE)
            contacts = [follower.last_contact for follower in herd]
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            began, back = 0.0, [0]
            async with asyncio.timeout(60):
                while back[-1] < HERD:
                    await asyncio.sleep(0.1)
                    back.append(sum(each.last_contact > lost for each, lost in zip(herd, contacts, strict=True)))
                    began = began if back[-1] else time.monotonic()
            await starting
            busiest = max(later - earlier for earlier, later in pairwise(back))
            print(f"{HERD} followers back within {time.monotonic() - began:.1f} s, {busiest} in 0.1 s at most")
            assert busiest < HERD / 2
            assert sum(follower.counters["reads"] for follower in herd) == HERD, "nobody has missed anything"
            await _write(writer, announcer, b"2000")
            await until(lambda: all(each.view.get(ALICE) == b"2000" for each in herd), "200 views", every=0.1)


async def _write(consul: Consul, announcer: Announcer, value: bytes) -> None:
    committed = await consul.transact([Op.set(ALICE, value)])
    await announcer.announce([Change(ALICE, value, committed.index)])


async def _follower(stack: AsyncExitStack, url: str) -> Follower:
    """One more, with a connection of its own."""
    follower = Follower(await stack.enter_async_context(Consul(ConsulSettings(url=url))), KEYS, KEYS.access_changes)
    follower.cover([KEYS.group(user_group("alice"))])
    await stack.enter_async_context(running(follower.run()))
    return follower
