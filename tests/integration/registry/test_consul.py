"""The adapter against a real Consul: what the library gets wrong, and what an error must not be taken for."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from radius_bridge.registry import meta
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import BadRecord, Conflict, Forbidden, RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import MAX_OPS, Op
from radius_bridge.registry.parts import parts, read_parts
from radius_bridge.registry.settings import ConsulSettings
from tests.lab.consul import ConsulServer

pytestmark = pytest.mark.integration

MASTER = "c0ffee00-0000-4000-8000-000000000001"
LIMITED = "c0ffee00-0000-4000-8000-000000000002"


async def test_keys_come_back_as_they_were_written_whatever_they_hold(consul: Consul, keys: Keys) -> None:
    odd = [f"{keys.groups}$user.a%2Fb%25%20$/192.0.2.0/24", f"{keys.groups}$user.ä +?&=#$/::1"]
    await consul.transact([Op.set(key, b"\x00\xff") for key in odd])
    assert [(entry.key, entry.value) for entry in (await consul.read(keys.groups)).entries] == [
        (key, b"\x00\xff") for key in sorted(odd)
    ]
    for key in odd:
        entry = await consul.get(key)
        assert entry is not None
        assert entry.key == key


async def test_a_listing_of_keys_gives_what_a_read_does_in_its_order(consul: Consul, keys: Keys) -> None:
    names = [f"{keys.groups}$user.{n}{tail}$/192.0.2.1" for n in range(4000) for tail in ("", '",', '","x', "é")]
    for start in range(0, len(names), MAX_OPS):
        await consul.transact([Op.set(name, b"-1") for name in names[start : start + MAX_OPS]])
    listing, snapshot = await consul.read_keys(keys.groups), await consul.read(keys.groups)
    assert list(listing.keys) == [entry.key for entry in snapshot.entries] == sorted(names)
    assert (listing.index, listing.missing) == (snapshot.index, False)
    assert await consul.index_of(keys.groups) == snapshot.index


async def test_parts_are_read_as_they_were_listed_whatever_keys_hold(consul: Consul, keys: Keys) -> None:
    odd = ["", "a//b", "a/./b", "a/../b", "a/..b", "a%2Fb", "a%2Fc", "ä", "a?b", "a#b", "aa", "ab"]
    names = sorted(f"{keys.groups}{each}" for each in odd)
    await consul.transact([Op.set(name, b"-1") for name in names])
    found = {part.prefix for part in parts(keys.groups, names, 1)}
    assert len(found) == len(names)
    read: set[str] = set()
    async for entries in read_parts(consul, keys.groups, names, spread=0.0, limit=1):
        read |= {entry.key for entry in entries}
    assert read == set(names)


async def test_whether_there_is_anything_is_told_without_reading_it(consul: Consul, keys: Keys) -> None:
    assert not await consul.has_any(keys.bindings)
    await consul.transact([Op.set(f"{keys.bindings[:-1]}x/192.0.2.1", b"1")])
    assert not await consul.has_any(keys.bindings)
    await consul.transact([Op.set(f"{keys.bindings}192.0.2.1", b"1")])
    assert await consul.has_any(keys.bindings)


async def test_a_prefix_without_keys_is_missing_and_no_error(consul: Consul, keys: Keys) -> None:
    snapshot = await consul.read(keys.groups)
    assert (snapshot.missing, snapshot.entries) == (True, ())
    assert snapshot.index >= 1
    assert snapshot.known_leader


async def test_a_read_with_an_index_waits_for_the_next_change(consul: Consul, keys: Keys) -> None:
    await consul.transact([Op.set(f"{keys.groups}a", b"1")])
    first = await consul.read(keys.groups)
    waiting = asyncio.create_task(consul.read(keys.groups, index=first.index, wait=10))
    await consul.transact([Op.set(f"{keys.groups}b", b"2")])
    second = await asyncio.wait_for(waiting, 5)
    assert [entry.value for entry in second.entries] == [b"1", b"2"]
    assert second.index > first.index


async def test_a_read_without_a_change_returns_after_the_wait(consul: Consul, keys: Keys) -> None:
    await consul.transact([Op.set(f"{keys.groups}a", b"1")])
    first = await consul.read(keys.groups)
    began = time.monotonic()
    assert (await consul.read(keys.groups, index=first.index, wait=0.3)).index == first.index
    assert 0.3 <= time.monotonic() - began < 3


async def test_a_transaction_tells_its_index_and_an_unchanged_value_keeps_its_own(consul: Consul, keys: Keys) -> None:
    a, b = f"{keys.root}/a", f"{keys.root}/b"
    first = await consul.transact([Op.cas(a, b"1", 0), Op.set(b, b"")])
    assert first.modified == {a: first.index, b: first.index}
    second = await consul.transact([Op.cas(a, b"2", first.index), Op.set(b, b"")])
    assert second.index == second.modified[a] > first.index
    assert second.modified[b] == first.index, "nobody who watches b is woken"
    entry = await consul.get(a, consistency="consistent")
    assert entry is not None
    assert entry.modify_index == second.index


async def test_a_check_that_fails_names_its_operation_and_nothing_is_written(consul: Consul, keys: Keys) -> None:
    a, b = f"{keys.root}/a", f"{keys.root}/b"
    index = (await consul.transact([Op.set(a, b"1")])).index
    with pytest.raises(Conflict) as caught:
        await consul.transact([Op.set(b, b"1"), Op.check(a, index + 1), Op.check(a, index), Op.cas(a, b"2", 0)])
    assert caught.value.failed == {1, 3}
    assert await consul.get(b) is None


async def test_a_transaction_of_checks_only_is_carried_out_too(consul: Consul, keys: Keys) -> None:
    a = f"{keys.root}/a"
    index = (await consul.transact([Op.set(a, b"1")])).index
    assert (await consul.transact([Op.check(a, index), Op.check(f"{keys.root}/b", 0)])).index == 0
    with pytest.raises(Conflict):
        await consul.transact([Op.check(a, 0)])


async def test_many_keys_are_read_at_once_and_missing_ones_are_left_out(consul: Consul, keys: Keys) -> None:
    wanted = [f"{keys.root}/{number:03}" for number in range(100)]
    for lot in (wanted[:64:2], wanted[64::2]):
        await consul.transact([Op.set(key, b"x") for key in lot])
    assert sorted(await consul.get_many(wanted, consistent=True)) == wanted[::2]


async def test_a_transaction_that_consul_would_refuse_for_its_size_is_not_sent(consul: Consul, keys: Keys) -> None:
    with pytest.raises(ValueError, match="65 operations"):
        await consul.transact([Op.set(f"{keys.root}/{n}", b"") for n in range(MAX_OPS + 1)])
    with pytest.raises(ValueError, match="octets"):
        await consul.transact([Op.set(f"{keys.root}/a", bytes(400_000))])
    with pytest.raises(ValueError, match="0 operations"):
        await consul.transact([])


async def test_operations_whose_sizes_fit_into_a_transaction_do(consul: Consul, keys: Keys) -> None:
    value = bytes((512 * 1024 - 32 * 1024) // 64 * 3 // 4)
    ops = [Op.set(f"{keys.root}/{n}", value) for n in range(MAX_OPS)]
    assert 500_000 < sum(op.size for op in ops) <= 512 * 1024
    await consul.transact(ops)


async def test_a_lock_has_one_holder_and_ends_with_its_session(consul: Consul, keys: Keys) -> None:
    key = keys.lock("x")
    one, two = [await consul.create_session("test", ttl=10, lock_delay=1) for _ in range(2)]
    assert await consul.acquire(key, one, b"one")
    assert not await consul.acquire(key, two, b"two")
    await consul.transact([Op.check_session(key, one)])
    with pytest.raises(Conflict):
        await consul.transact([Op.check_session(key, two)])
    await consul.release(key, one)
    assert await consul.acquire(key, two, b"two")
    assert await consul.renew_session(two)
    await consul.destroy_session(two)
    assert not await consul.renew_session(two)


async def test_the_agent_tells_its_node_and_its_services(consul: Consul) -> None:
    assert await consul.agent_self() == ("lab", "dc1")
    assert await consul.agent_services() == {}


async def test_the_sentinel_is_written_once(consul: Consul, keys: Keys) -> None:
    first, second = await asyncio.gather(meta.ensure(consul, keys), meta.ensure(consul, keys))
    assert first == second == await meta.read(consul, keys)
    assert first.schema == 1


async def test_a_sentinel_of_another_schema_is_refused(consul: Consul, keys: Keys) -> None:
    await consul.transact([Op.set(keys.meta, b'{"schema":9,"generation":"x"}')])
    with pytest.raises(BadRecord, match="schema 9"):
        await meta.ensure(consul, keys)


async def test_a_consul_that_is_not_there_is_an_error() -> None:
    async with Consul(ConsulSettings(url="http://127.0.0.1:1")) as consul:
        with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1 cannot be reached"):
            await consul.read("befw/")


async def test_an_unknown_datacenter_is_an_error_for_reads_and_transactions_alike(server: ConsulServer) -> None:
    async with Consul(ConsulSettings(url=server.url, datacenter="elsewhere")) as consul:
        with pytest.raises(RegistryError, match="No path to datacenter"):
            await consul.read("befw/")
        with pytest.raises(RegistryError, match="No path to datacenter"):
            await consul.transact([Op.set("befw/x", b"")])


@pytest.fixture(scope="module")
def guarded() -> Iterator[ConsulServer]:
    """A Consul that lets a limited token write below `open/` and read below `look/`, and lists are rights."""
    acl = {"enabled": True, "default_policy": "deny", "enable_key_list_policy": True, "tokens": {"master": MASTER}}
    with ConsulServer(config={"acl": acl}, token=MASTER) as server:
        rules = 'key_prefix "open/" { policy = "write" } key_prefix "look/" { policy = "list" }'
        server.command("acl", "policy", "create", "-name=limited", f"-rules={rules}")
        server.command("acl", "token", "create", f"-secret={LIMITED}", "-policy-name=limited")
        yield server


async def test_the_token_goes_with_every_request_whatever_the_environment_says(
    guarded: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "wrong")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")
    async with Consul(ConsulSettings.model_validate({"url": guarded.url, "token": LIMITED})) as consul:
        await consul.transact([Op.set("open/a", b"1")])
        assert (await consul.get_many(["open/a"]))["open/a"].value == b"1"
        assert (await consul.read("open/")).entries[0].value == b"1"


async def test_what_the_token_may_not_do_is_no_conflict_and_never_empty(guarded: ConsulServer) -> None:
    async with Consul(ConsulSettings.model_validate({"url": guarded.url, "token": MASTER})) as consul:
        await consul.transact([Op.set("closed/a", b"1"), Op.set("look/a", b"1")])
    async with Consul(ConsulSettings.model_validate({"url": guarded.url, "token": LIMITED})) as consul:
        assert not (await consul.read("look/")).missing
        for refused in (consul.read("closed/"), consul.get("closed/a"), consul.get_many(["open/b", "closed/a"])):
            with pytest.raises(Forbidden):
                await refused
        with pytest.raises(Forbidden, match="look/a: the token may not set it") as caught:
            await consul.transact([Op.set("open/b", b"1"), Op.set("look/a", b"2")])
        assert caught.value.failed == {1}
        with pytest.raises(Forbidden):
            await consul.create_session("x", ttl=10, lock_delay=1)


async def test_an_unknown_token_is_forbidden_everything(guarded: ConsulServer) -> None:
    async with Consul(ConsulSettings.model_validate({"url": guarded.url, "token": "unknown"})) as consul:
        with pytest.raises(Forbidden, match="ACL not found"):
            await consul.read("open/")
        with pytest.raises(Forbidden):
            await consul.transact([Op.set("open/a", b"1")])


async def test_a_token_that_was_changed_is_taken_when_the_old_one_is_refused(
    guarded: ConsulServer, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("of yesterday")
    async with Consul(ConsulSettings(url=guarded.url, token_file=file)) as consul:
        file.unlink()
        with pytest.raises(Forbidden, match=r"; token_file .* cannot be read"):
            await consul.read("open/")
        file.touch(0o600)
        file.write_text(LIMITED)
        with pytest.raises(Forbidden):
            await consul.transact([Op.set("open/a", b"1")])
        await consul.transact([Op.set("open/a", b"1")])


async def test_a_consul_that_stands_still_is_given_up(own_server: ConsulServer) -> None:
    async with Consul(ConsulSettings(url=own_server.url)) as consul:
        await consul.transact([Op.set("a", b"1")])
        own_server.pause()
        with pytest.raises(RegistryError, match="in time"):
            await consul.transact([Op.set("a", b"2")], timeout=0.3)
        own_server.resume()


async def test_a_session_named_like_a_step_in_a_path_is_read_in_parts_too(consul: Consul, keys: Keys) -> None:
    names = [f"{keys.sessions}nas/{name}" for name in (".", "..", "..1", ".1", "1")]
    await consul.transact([Op.set(name, b"{}") for name in names])
    listing = await consul.read_keys(keys.sessions)
    read = [
        entry.key async for lot in read_parts(consul, keys.sessions, listing.keys, spread=0, limit=1) for entry in lot
    ]
    assert set(read) == set(names)
