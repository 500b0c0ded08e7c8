"""Sweeping, with a real Consul: what is over goes soon, and only while we lead."""

import time
from collections.abc import Awaitable, Callable

import pytest

from radius_bridge.identity.events import Kind
from radius_bridge.identity.sessions import RETENTION
from radius_bridge.policy.members import parse_member
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.hosts import GONE, HostRecord, encode
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
    """All keys of the registry but the lock and the change feed, below its root."""
    entries = (await consul.read(keys.root + "/")).entries
    return {e.key.removeprefix(keys.root + "/") for e in entries if "$lock$" not in e.key and "$changes$" not in e.key}


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


async def test_hosts_that_are_gone_are_forgotten_and_lost_ones_are_still_told_of(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    now = time.time()
    for node, at in {"fresh": now, "lost": now - GONE + 3600, "gone": now - GONE}.items():
        await consul.transact([Op.set(keys.host(node), encode(HostRecord(at, "dc1", "consul")))])

    async def swept() -> bool:
        return await present(consul, keys) == {"$host$/fresh", "$host$/lost"}

    async with running(Leader(consul, keys.lock("sweeper")).run(Sweeper(consul, keys).work)):
        await eventually(swept, within=5)


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
