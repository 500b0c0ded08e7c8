"""Copies in another datacenter: two real Consul servers, joined as two datacenters are."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from radius_bridge.registry import copying as copying_module
from radius_bridge.registry import datacenters, meta, notices
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.backlog import Backlog
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.copies import Copies
from radius_bridge.registry.copying import Copy
from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.feed import Class
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.hosts import GONE, HostRecord
from radius_bridge.registry.hosts import encode as encode_host
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.leader import Leader
from radius_bridge.registry.settings import ConsulSettings
from radius_bridge.registry.view import Changed
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[float]]

LATER = str(int(time.time()) + 3600).encode()
DCS = Datacenters("dc1", ("dc2",))


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ConsulServer, ConsulServer]]:
    """dc1, the home, and dc2."""
    with ConsulServer() as home, ConsulServer(datacenter="dc2", node="lab2") as other:
        home.federate(other)
        yield home, other


@pytest.fixture
async def home(servers: tuple[ConsulServer, ConsulServer], keys: Keys) -> AsyncIterator[Consul]:
    async with Consul(ConsulSettings(url=servers[0].url)) as consul:
        await meta.ensure(consul, keys)
        await consul.transact([Op.set(f"{keys.access_changes}bridge/", b"")])
        yield consul


@pytest.fixture
async def there(servers: tuple[ConsulServer, ConsulServer]) -> AsyncIterator[Consul]:
    """dc2 as those see it that live there."""
    async with Consul(ConsulSettings(url=servers[1].url)) as consul:
        yield consul


@pytest.fixture
async def remote(servers: tuple[ConsulServer, ConsulServer]) -> AsyncIterator[Consul]:
    """dc2 through dc1's Consul, as the bridge sees it."""
    async with Consul(ConsulSettings(url=servers[0].url, datacenter="dc2")) as consul:
        yield consul


def user(keys: Keys, name: str, address: str = "192.0.2.1") -> str:
    return f"{keys.groups}$user.{name}$/{address}"


async def groups(consul: Consul, keys: Keys) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await consul.read(keys.groups)).entries}


@asynccontextmanager
async def copying(home: Consul, remote: Consul, keys: Keys) -> AsyncIterator[Copy]:
    copies = Copies(home, keys, DCS, {"dc2": remote})
    async with running(Leader(home, keys.lock("copies")).run(copies.work)):
        yield copies.copies["dc2"]


@asynccontextmanager
async def following(consul: Consul, keys: Keys) -> AsyncIterator[tuple[Follower, list[Changed]]]:
    """A host's view, and what changed in it."""
    changed: list[Changed] = []
    follower = Follower(consul, keys, keys.access_changes, changed=changed.extend)
    follower.cover([keys.groups])
    async with running(follower.run()):
        await follower.wait_complete()
        yield follower, changed


async def announced(home: Consul, keys: Keys, *ops: Op) -> None:
    """Commits and announces at home, as a bridge does."""
    await home.transact(notices.announced(keys, ops))


async def test_a_login_at_home_wakes_the_hosts_elsewhere_and_a_logout_too(
    home: Consul, remote: Consul, there: Consul, keys: Keys, eventually: Eventually
) -> None:
    key = user(keys, "alice")
    async with copying(home, remote, keys) as copy:

        async def is_set_up() -> bool:
            return copy.counters["comparisons"] > 0

        await eventually(is_set_up, within=10)
        async with following(there, keys) as (follower, _):
            reads = follower.counters["reads"]

            async def has_it() -> bool:
                return follower.view.get(key) == LATER

            async def has_lost_it() -> bool:
                return follower.view.get(key) is None

            await announced(home, keys, Op.set(key, LATER))
            assert await eventually(has_it, within=2) < 1
            await announced(home, keys, Op.delete(key))
            assert await eventually(has_lost_it, within=2) < 1
            assert follower.counters["reads"] == reads, "nobody had to read anything again"
        assert await groups(there, keys) == {}
    assert await datacenters.read(there, keys) == DCS


async def test_a_restart_compares_and_leaves_alone_what_engineers_wrote_there(
    home: Consul, remote: Consul, there: Consul, keys: Keys, eventually: Eventually
) -> None:
    await meta.ensure(there, keys)
    staff = f"{keys.groups}$staff$/$user.carol$"
    await there.transact(
        [
            Op.set(user(keys, "gone"), LATER),
            Op.set(user(keys, "moved"), LATER),
            Op.set(user(keys, "over"), b"1"),
            Op.set(staff, b"-1"),
            Op.set(f"{keys.groups}$staff$/$user.over$", b"1"),
        ]
    )
    at_home = {user(keys, "new"): LATER, user(keys, "moved"): b"-1"}
    ops = [Op.set(key, value) for key, value in at_home.items()]
    await home.transact([*ops, Op.set(user(keys, "past"), b"2"), Op.set(f"{keys.groups}$dba$/192.0.2.9", b"-1")])

    async def same() -> bool:
        return await groups(there, keys) == at_home | {staff: b"-1"}

    async with copying(home, remote, keys):
        await eventually(same, within=5)


async def test_a_copy_that_lacks_more_than_may_wait_is_made_all_the_same(
    home: Consul, remote: Consul, there: Consul, keys: Keys, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying_module, "Backlog", lambda: Backlog(limit=2))
    at_home = {user(keys, f"user{number}"): LATER for number in range(9)}
    await home.transact([Op.set(key, value) for key, value in at_home.items()])

    async def same() -> bool:
        return await groups(there, keys) == at_home

    async with copying(home, remote, keys) as copy:
        await eventually(same, within=5)
        assert copy.counters["comparisons"] <= 2


async def test_a_dead_datacenter_delays_nobody_and_is_never_led_through_the_past(
    servers: tuple[ConsulServer, ConsulServer],
    home: Consul,
    remote: Consul,
    there: Consul,
    keys: Keys,
    eventually: Eventually,
) -> None:
    async with copying(home, remote, keys) as copy:

        async def is_set_up() -> bool:
            return copy.counters["comparisons"] > 0

        await eventually(is_set_up, within=10)
        async with following(there, keys) as (follower, changed):
            servers[1].pause()
            try:
                # A few come and go while nobody listens; one stays.
                for round in range(5):
                    began = time.monotonic()
                    await announced(home, keys, Op.set(user(keys, f"guest{round}"), LATER))
                    await announced(home, keys, Op.delete(user(keys, f"guest{round}")))
                    assert time.monotonic() - began < 1
                await announced(home, keys, Op.set(user(keys, "alice"), LATER))

                async def shows() -> bool:
                    return copy.behind > 1

                await eventually(shows, within=5)
            finally:
                servers[1].resume()

            async def same() -> bool:
                return (
                    await groups(there, keys) == {user(keys, "alice"): LATER} == dict(follower.view.below(keys.groups))
                )

            await eventually(same, within=20)
        # One transaction was under way when it stopped; no other guest was ever seen.
        assert {each.key for each in changed if each.new} <= {user(keys, "guest0"), user(keys, "alice")}
        assert copy.behind == 0


async def test_who_was_deposed_writes_nothing_more(home: Consul, remote: Consul, there: Consul, keys: Keys) -> None:
    clock = time.time
    deposed, leading = (Copy(remote, keys, DCS, "dc2", clock=clock) for _ in range(2))
    announcer = Announcer(remote, keys, Class.BRIDGE)
    await deposed._take_over(announcer)
    await leading._take_over(announcer)
    with pytest.raises(RegistryError, match="no longer ours"):
        await deposed._commit([Op.set(user(keys, "mallory"), LATER)], is_open=True)
    await leading._commit([Op.set(user(keys, "alice"), LATER)], is_open=True)
    assert await groups(there, keys) == {user(keys, "alice"): LATER}


async def test_what_a_dead_copier_did_not_announce_the_next_one_has_read_again(
    home: Consul, remote: Consul, there: Consul, keys: Keys, eventually: Eventually
) -> None:
    key = user(keys, "alice")
    await home.transact([Op.set(key, LATER)])
    dead = Copy(remote, keys, DCS, "dc2", clock=time.time)
    await dead._take_over(Announcer(remote, keys, Class.BRIDGE))
    await there.transact([Op.set(f"{keys.access_changes}bridge/", b"")])
    async with following(there, keys) as (follower, _):
        await dead._commit([Op.set(key, LATER)], is_open=True)
        async with copying(home, remote, keys):

            async def has_it() -> bool:
                return follower.view.get(key) == LATER

            await eventually(has_it, within=15)


async def test_a_datacenter_that_records_itself_or_has_another_home_is_refused(
    home: Consul, remote: Consul, there: Consul, keys: Keys
) -> None:
    announcer = Announcer(remote, keys, Class.BRIDGE)
    await Copy(remote, keys, DCS, "dc2", clock=time.time)._take_over(announcer)
    other_home = Copy(remote, keys, Datacenters("dc3", ("dc2",)), "dc2", clock=time.time)
    with pytest.raises(RegistryError, match="copy of dc1"):
        await other_home._take_over(announcer)
    await there.transact([Op.set(f"{keys.bindings}192.0.2.1", b"{}")])
    with pytest.raises(RegistryError, match="bindings of its own"):
        await Copy(remote, keys, DCS, "dc2", clock=time.time)._take_over(announcer)


async def test_what_expires_there_is_removed_and_wakes_nobody(
    home: Consul, remote: Consul, there: Consul, keys: Keys, eventually: Eventually
) -> None:
    soon = int(time.time()) + 3
    key, grant = user(keys, "alice"), f"{keys.services}ssh_tcp_22/$user.alice$"
    await home.transact([Op.set(key, b"%d" % soon)])
    await meta.ensure(there, keys)
    gone, fresh = (
        Op.set(keys.host(node), encode_host(HostRecord(at, "dc2", "consul")))
        for node, at in (("gone", time.time() - GONE), ("fresh", time.time() - GONE / 2))
    )
    await there.transact([Op.set(grant, b"%d" % soon), gone, fresh])
    async with copying(home, remote, keys) as copy:

        async def copied() -> bool:
            return key in await groups(there, keys)

        await eventually(copied, within=5)
        async with following(there, keys) as (follower, changed):
            await asyncio.sleep(max(0.0, soon - time.time()) + 0.1)  # the thing itself: time passes
            copy._sweep_at = 0.0
            copy.mark([])

            async def swept() -> bool:
                return await groups(there, keys) == {} and await there.get(grant) is None

            await eventually(swept, within=5)
            assert [entry.key for entry in (await there.read(keys.hosts)).entries] == [fresh.key]
            assert changed[1:] == []
            assert follower.view.get(key) is not None, "hosts know the time themselves"
