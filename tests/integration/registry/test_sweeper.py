"""Sweeping and leading, with a real Consul: what is over goes soon, and only one bridge does it."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from radius_bridge.identity.bindings import RETENTION
from radius_bridge.identity.events import Kind
from radius_bridge.policy.members import parse_member
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.kv import Op
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.leader import Leader, Leadership, LeadershipLost
from radius_bridge.registry.settings import ConsulSettings
from radius_bridge.registry.sweeper import Sweeper
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer
from tests.registry.events import ADDRESS, event

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[float]]


async def present(consul: Consul, keys: Keys) -> set[str]:
    """All keys of the registry but the lock, below its root."""
    entries = (await consul.read(keys.root + "/")).entries
    return {e.key.removeprefix(keys.root + "/") for e in entries if "$lock$" not in e.key}


async def test_what_expires_is_gone_within_seconds_and_what_does_not_stays(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    soon, later = str(int(time.time()) + 4).encode(), str(int(time.time()) + 600).encode()
    member = parse_member("192.0.2.0/24")
    stays = {
        keys.grant(Scope(), "ssh_tcp_22", parse_member("$staff$")): b"-1",
        keys.grant(Scope("dc1"), "ssh_tcp_22", member): later,
        keys.set_member(Scope(), "rules_deny", member): b"for good",
    }
    goes = {
        keys.grant(Scope("dc1", "n"), "ssh_tcp_22", member): soon,
        keys.set_member(Scope(), "rules_allow", member): soon,
        f"{keys.groups}$user.alice$/192.0.2.1": soon,
        f"{keys.groups}$user.alice$/192.0.2.2": b"1",
    }
    await consul.transact([Op.set(key, value) for key, value in (stays | goes).items()])
    left = {key.removeprefix(keys.root + "/") for key in stays}

    async def swept() -> bool:
        return await present(consul, keys) == left

    sweeper = Sweeper(consul, keys)
    async with running(Leader(consul, keys.lock("sweeper")).run(sweeper.work)):
        assert await eventually(swept, within=10) < 8
    assert sweeper.counters["removed"] == 4
    assert sweeper.counters[f"unreadable {keys.sets}"] == 1


async def test_a_mass_expiry_is_swept_in_full_transactions(consul: Consul, keys: Keys, eventually: Eventually) -> None:
    names = [f"{keys.groups}$user.u{n}$/192.0.2.1" for n in range(1000)]
    for start in range(0, len(names), 64):
        await consul.transact([Op.set(name, b"1") for name in names[start : start + 64]])

    async def swept() -> bool:
        return not await present(consul, keys)

    async with running(Leader(consul, keys.lock("sweeper")).run(Sweeper(consul, keys).work)):
        await eventually(swept, within=5)


async def test_a_member_renewed_after_it_was_judged_stays(consul: Consul, keys: Keys) -> None:
    key = f"{keys.groups}$user.alice$/192.0.2.1"
    other = f"{keys.groups}$user.bob$/192.0.2.2"
    index = (await consul.transact([Op.set(key, b"1"), Op.set(other, b"1")])).index
    await consul.transact([Op.set(key, b"-1")])
    sweeper = Sweeper(consul, keys)
    session = await consul.create_session("test", ttl=10, lock_delay=1)
    await consul.acquire(keys.lock("sweeper"), session, b"")
    leadership = Leadership(keys.lock("sweeper"), session, time.monotonic() + 10)
    await sweeper.remove([Op.delete_cas(key, index), Op.delete_cas(other, index)], leadership)
    assert await present(consul, keys) == {key.removeprefix(keys.root + "/")}
    assert (sweeper.counters["renewed"], sweeper.counters["removed"]) == (1, 1)


async def test_who_lost_the_lock_removes_nothing_whatever_its_clock_says(consul: Consul, keys: Keys) -> None:
    key = f"{keys.groups}$user.alice$/192.0.2.1"
    index = (await consul.transact([Op.set(key, b"1")])).index
    session = await consul.create_session("test", ttl=10, lock_delay=1)
    leadership = Leadership(keys.lock("sweeper"), session, time.monotonic() + 10)
    with pytest.raises(LeadershipLost):
        await Sweeper(consul, keys).remove([Op.delete_cas(key, index)], leadership)
    assert await consul.get(key) is not None


async def test_bindings_are_forgotten_when_no_late_packet_could_contradict_them(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    at = time.time()
    async with Lanes(consul, keys, clock=lambda: at) as lanes:
        await lanes.submit(event(Kind.STOP, "alice", at, ADDRESS))

        async def forgotten() -> bool:
            return not await present(consul, keys)

        sweeper = Sweeper(consul, keys, clock=lambda: at + RETENTION + 1)
        async with running(Leader(consul, keys.lock("sweeper")).run(sweeper.work)):
            await eventually(forgotten, within=5)
        await lanes.submit(event(Kind.START, "bob", at + 1, ADDRESS))
        assert lanes.counters["conflicts"] == 1, "its belief was outdated, and it found out"


async def test_what_the_token_may_not_remove_is_counted_and_the_rest_goes(eventually: Eventually) -> None:
    master, limited = "c0ffee00-0000-4000-8000-000000000001", "c0ffee00-0000-4000-8000-000000000002"
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": master}}
    rules = (
        'key_prefix "befw/" { policy = "read" } key_prefix "befw/$alias$/$user." { policy = "write" }'
        ' key_prefix "befw/$lock$/" { policy = "write" } session_prefix "" { policy = "write" }'
    )
    keys = Keys()
    with ConsulServer(config={"acl": acl}, token=master) as server:
        server.command("acl", "policy", "create", "-name=limited", f"-rules={rules}")
        server.command("acl", "token", "create", f"-secret={limited}", "-policy-name=limited")
        ours, theirs = "befw/$alias$/$user.alice$/192.0.2.1", "befw/$alias$/$dba$/192.0.2.1"
        async with Consul(ConsulSettings.model_validate({"url": server.url, "token": master})) as consul:
            await consul.transact([Op.set(ours, b"1"), Op.set(theirs, b"1")])
        async with Consul(ConsulSettings.model_validate({"url": server.url, "token": limited})) as consul:
            sweeper = Sweeper(consul, keys)

            async def swept() -> bool:
                return await present(consul, keys) == {theirs.removeprefix("befw/")}

            async with running(Leader(consul, keys.lock("sweeper")).run(sweeper.work)):
                await eventually(swept, within=5)
            assert sweeper.counters["forbidden"] >= 1


async def test_one_leads_and_the_next_takes_over_as_soon_as_it_resigns(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    async def work(_: Leadership) -> None:
        await asyncio.Event().wait()

    first, second = Leader(consul, keys.lock("x")), Leader(consul, keys.lock("x"))

    async def first_leads() -> bool:
        return first.leads

    async def second_leads() -> bool:
        return second.leads

    async with running(second.run(work)):
        await eventually(second_leads, within=5)
        async with running(first.run(work)):
            await asyncio.wait_for(_held_by(consul, keys.lock("x")), 5)
            assert not first.leads
    async with running(first.run(work)):
        assert await eventually(first_leads, within=5) < 3


async def _held_by(consul: Consul, key: str) -> str:
    entry = await consul.get(key)
    assert entry is not None
    return entry.session


def _lead_in_another_process(url: str, key: str) -> None:
    async def work(_: Leadership) -> None:
        await asyncio.Event().wait()

    async def lead() -> None:
        async with Consul(ConsulSettings(url=url)) as consul:
            await Leader(consul, key, ttl=10).run(work)

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

        async def work(_: Leadership) -> None:
            await asyncio.Event().wait()

        await eventually(held, within=20)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        leader = Leader(consul, key, ttl=10)

        async def taken_over() -> bool:
            return leader.leads

        async with running(leader.run(work)):
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
