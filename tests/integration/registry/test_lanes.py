"""Lanes against a real Consul: what was answered is there, what is not there was not answered."""

import asyncio
import time

import pytest

from radius_bridge.identity.events import Kind
from radius_bridge.policy.expiry import format_expiry
from radius_bridge.policy.members import Prefix, user_group
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import NotRecorded
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.records import decode_binding
from radius_bridge.registry.settings import ConsulSettings
from tests.lab.consul import ConsulServer
from tests.registry.events import ADDRESS, OTHER, event

pytestmark = pytest.mark.integration

NOW = float(int(time.time()))


async def members(consul: Consul, keys: Keys) -> dict[str, bytes]:
    """`user address` → expiry, of all groups."""
    entries = (await consul.read(keys.groups, consistency="consistent")).entries
    return {entry.key.removeprefix(keys.groups).replace("$", "").replace("/", " "): entry.value for entry in entries}


async def test_a_login_a_move_and_a_logout_are_in_consul_when_they_are_answered(consul: Consul, keys: Keys) -> None:
    async with Lanes(consul, keys) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS, OTHER))
        expiry = format_expiry(NOW + 3600)
        assert await members(consul, keys) == {"user.alice 192.0.2.1": expiry, "user.alice 192.0.2.2": expiry}
        await lanes.submit(event(Kind.START, "bob", NOW + 1, ADDRESS))
        assert sorted(await members(consul, keys)) == ["user.alice 192.0.2.2", "user.bob 192.0.2.1"]
        await lanes.submit(event(Kind.STOP, "bob", NOW + 2, ADDRESS))
        await lanes.submit(event(Kind.STOP, "alice", NOW + 2))
        assert await members(consul, keys) == {}
        assert lanes.counters["conflicts"] == 0


async def test_a_repeated_event_is_answered_and_writes_nothing(consul: Consul, keys: Keys) -> None:
    async with Lanes(consul, keys) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        before = await consul.read(keys.root)
        transactions = lanes.counters["transactions"]
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        assert lanes.counters["transactions"] == transactions, "Consul is not even asked"
        assert (await consul.read(keys.bindings)).entries == tuple(
            entry for entry in before.entries if entry.key.startswith(keys.bindings)
        )


async def test_a_new_bridge_knows_the_sessions_of_the_one_before(consul: Consul, keys: Keys) -> None:
    async with Lanes(consul, keys) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
    await consul.transact([Op.set(f"{keys.bindings}no-address", b"{}"), Op.set(keys.binding(OTHER), b"?")])
    async with Lanes(consul, keys) as lanes:
        await lanes.load()
        assert lanes.counters["bad_records"] == 2
        await lanes.submit(event(Kind.STOP, "alice", NOW + 1))
        assert await members(consul, keys) == {}


async def test_a_start_that_comes_after_its_stop_on_another_bridge_revives_nothing(consul: Consul, keys: Keys) -> None:
    async with Lanes(consul, keys) as first, Lanes(consul, keys) as second:
        await first.submit(event(Kind.STOP, "alice", NOW + 1, ADDRESS))
        await second.submit(event(Kind.START, "alice", NOW, ADDRESS))
        assert second.counters["conflicts"] == 1
    assert await members(consul, keys) == {}


async def test_two_bridges_on_the_same_addresses_agree_with_consul(consul: Consul, keys: Keys) -> None:
    addresses = [Prefix(4, 0x0A000000 + number, 32) for number in range(50)]
    async with Lanes(consul, keys) as first, Lanes(consul, keys) as second:
        await asyncio.gather(
            *(
                lanes.submit(
                    event(Kind.START, f"{name}{turn}", NOW + turn, address, session=f"nas/{address}-{name}{turn}")
                )
                for turn in range(6)
                for name, lanes in (("a", first), ("b", second))
                for address in addresses
            )
        )
        assert first.counters["conflicts"] + second.counters["conflicts"] > 0
        assert first.counters["committed"] == second.counters["committed"] == 300
    bindings = {e.key: decode_binding(e.key, e.value) for e in (await consul.read(keys.bindings)).entries}
    owners = {key: binding.holding(NOW).user for key, binding in bindings.items()}
    assert {owner[1:] for owner in owners.values()} == {"5"}
    expected = {keys.group_member(user_group(owners[keys.binding(address)]), address) for address in addresses}
    assert {entry.key for entry in (await consul.read(keys.groups)).entries} == expected


async def test_a_burst_is_committed_in_full_transactions(consul: Consul, keys: Keys) -> None:
    async with Lanes(consul, keys) as lanes:
        await asyncio.gather(
            *(lanes.submit(event(Kind.START, f"u{n}", NOW, Prefix(4, 0x0A000000 + n, 32))) for n in range(1000))
        )
        assert lanes.counters["transactions"] < 80
    assert len(await members(consul, keys)) == 1000


async def settled(lanes: Lanes, first: int, count: int) -> list[bool]:
    """Submits logins and tells which were answered."""
    futures = [
        lanes.submit(event(Kind.START, f"u{n}", NOW, Prefix(4, 0x0A000000 + n, 32)))
        for n in range(first, first + count)
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert all(result is None or isinstance(result, NotRecorded) for result in results)
    return [result is None for result in results]


async def test_a_consul_that_stood_still_for_a_while_costs_no_login(own_server: ConsulServer, keys: Keys) -> None:
    async with Consul(ConsulSettings(url=own_server.url)) as consul, Lanes(consul, keys) as lanes:
        assert all(await settled(lanes, 0, 50))
        burst = asyncio.create_task(settled(lanes, 100, 200))
        own_server.pause()
        asyncio.get_running_loop().call_later(1, own_server.resume)
        assert all(await burst)
        assert len(await members(consul, keys)) == 250


async def test_while_consul_is_down_nothing_is_answered_and_afterwards_all_goes_on(
    own_server: ConsulServer, keys: Keys
) -> None:
    async with Consul(ConsulSettings(url=own_server.url)) as consul, Lanes(consul, keys, patience=2) as lanes:
        assert all(await settled(lanes, 0, 50))
        own_server.kill()
        assert not any(await settled(lanes, 100, 50))
        await asyncio.to_thread(own_server.start)
        assert all(await settled(lanes, 100, 50))
        assert len(await members(consul, keys)) == 100


async def test_whatever_moment_consul_is_killed_at_what_was_answered_is_there(
    own_server: ConsulServer, keys: Keys
) -> None:
    async with Consul(ConsulSettings(url=own_server.url)) as consul, Lanes(consul, keys, patience=3) as lanes:
        logins = [asyncio.create_task(settled(lanes, 100 * turn, 100)) for turn in range(30)]
        await asyncio.wait(logins, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(own_server.kill)
        answered = {100 * turn + n for turn, task in enumerate(logins) for n, ok in enumerate(await task) if ok}
        assert answered
        await asyncio.to_thread(own_server.start)
        present = await members(consul, keys)
        assert {f"user.u{n} {Prefix(4, 0x0A000000 + n, 32)}" for n in answered} <= present.keys()
