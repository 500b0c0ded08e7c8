"""The change feed on a real Consul: announced before answered, heard at once, and true after all that goes wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from radius_bridge.identity.events import Kind
from radius_bridge.policy.members import Prefix
from radius_bridge.registry import announcer as announcer_module
from radius_bridge.registry import follower as follower_module
from radius_bridge.registry import meta, notices, poll
from radius_bridge.registry import publisher as publisher_module
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.feed import MAX_RECORD, Change, Class, decode_record, record_key
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import MAX_OPS, Committed, Op
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.neighbours import Neighbours
from radius_bridge.registry.parts import PART
from radius_bridge.registry.publisher import Publisher
from radius_bridge.registry.settings import ConsulSettings
from radius_bridge.registry.view import Changed
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer
from tests.registry.events import ADDRESS, event

pytestmark = pytest.mark.integration

NOW = float(int(time.time()))
Eventually = Callable[..., Awaitable[float]]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "GAP_SPREAD", 0.1)
    monkeypatch.setattr(follower_module, "GAP_PAUSE", 0.1)
    monkeypatch.setattr(follower_module, "REWIND_SPREAD", 0.1)


class Host:
    """A follower, and when it heard of what."""

    def __init__(self, consul: Consul, keys: Keys) -> None:
        self.heard: dict[str, float] = {}
        self.slept = 0.0
        """Seconds that its clock has run on while it did not."""
        self.follower = Follower(
            consul, keys, keys.access_changes, changed=self._changed, clock=lambda: time.time() + self.slept
        )
        self._groups = keys.groups

    def _changed(self, changed: list[Changed]) -> None:
        self.heard |= {each.key: time.monotonic() for each in changed}

    @property
    def held(self) -> dict[str, bytes]:
        """Key and value of all it covers."""
        view = self.follower.view
        return {key: value for prefix in view.covered for key, value in view.below(prefix).items()}


@asynccontextmanager
async def following(consul: Consul, keys: Keys, *prefixes: str) -> AsyncIterator[Host]:
    """A host that has read everything."""
    await meta.ensure(consul, keys)
    host = Host(consul, keys)
    host.follower.cover(prefixes or (keys.groups, keys.services, keys.sets))
    async with running(host.follower.run()):
        await asyncio.wait_for(host.follower.wait_complete(), 10)
        yield host


async def stored(consul: Consul, keys: Keys) -> dict[str, bytes]:
    """What stands in Consul of groups, grants and sets."""
    found: dict[str, bytes] = {}
    for prefix in (keys.groups, keys.services, keys.sets):
        found |= {entry.key: entry.value for entry in (await consul.read(prefix, consistency="consistent")).entries}
    return found


def login(number: int) -> Prefix:
    return Prefix(4, 0x0A000000 + number, 32)


async def test_a_login_is_announced_when_it_is_answered_and_heard_at_once(consul: Consul, keys: Keys) -> None:
    async with Lanes(consul, keys) as lanes, following(consul, keys, f"{keys.groups}$user.alice$/") as host:
        await lanes.submit(event(Kind.START, "warm", NOW, login(99)))
        for number in range(20):
            await lanes.submit(event(Kind.START, "alice", NOW, login(number), session=f"nas/{number}"))
            answered = time.monotonic()
            pages = [e for e in (await consul.read(f"{keys.access_changes}bridge/")).entries if e.value]
            key = f"{keys.groups}$user.alice$/{login(number)}"
            assert any(f"{keys.root}/{name}" == key for page in pages for name, *_ in decode_record(page.value).entries)
            while key not in host.heard:
                assert time.monotonic() - answered < 1
                await asyncio.sleep(0.001)
        assert host.follower.counters["reads"] == 1
        assert host.follower.counters["gaps"] == 0
    assert host.held.keys() == {f"{keys.groups}$user.alice$/{login(n)}" for n in range(20)}


async def test_under_load_records_stay_small_and_the_follower_keeps_up(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    sizes: list[int] = []

    async def look() -> None:
        index = 0
        while True:
            snapshot = await consul.read(f"{keys.access_changes}bridge/", index=index)
            sizes.extend(len(entry.value) for entry in snapshot.entries)
            index = snapshot.index

    async with Lanes(consul, keys) as lanes, following(consul, keys) as host, running(look()):
        for turn in range(4):
            await asyncio.gather(*(lanes.submit(event(Kind.START, f"u{n}", NOW + turn, login(n))) for n in range(2000)))
        assert await eventually(lambda: _agree(consul, keys, host), within=5) < 5
        assert len(host.held) == 2000
        await eventually(lambda: _is(sizes[-1] < 1000), within=6)
    assert max(sizes) <= MAX_RECORD
    assert host.follower.counters["rewinds"] == host.follower.counters["forged"] == 0


async def _agree(consul: Consul, keys: Keys, host: Host) -> bool:
    return host.held == await stored(consul, keys)


async def _is(value: bool) -> bool:
    return value


async def test_a_gap_leads_to_a_new_reading(consul: Consul, keys: Keys, eventually: Eventually) -> None:
    key = f"{keys.groups}$user.alice$/192.0.2.1"
    async with following(consul, keys) as host:
        await consul.transact([Op.set(key, b"-1")])
        writer = record_key(keys, Class.BRIDGE, "late")
        await consul.transact([Op.set(writer, b'{"first":7,"clock":%d}' % NOW)])
        await eventually(lambda: _is(host.held == {key: b"-1"}), within=5)
        assert host.follower.counters["gaps"] == 1


async def test_a_host_that_was_away_for_long_reads_again(consul: Consul, keys: Keys, eventually: Eventually) -> None:
    async with following(consul, keys) as host:
        missed = f"{keys.services}ssh_tcp_22/192.0.2.1"
        await consul.transact([Op.set(missed, b"-1")])  # its record has come and gone
        host.slept = 100.0
        await consul.transact(notices.announced(keys, [Op.set(f"{keys.services}ssh_tcp_22/192.0.2.2", b"-1")]))
        await eventually(lambda: _agree(consul, keys, host), within=5)
        assert host.follower.counters["absences"] == 1
        assert missed in host.held


async def test_a_record_that_is_removed_is_no_gap_and_its_writer_goes_on(
    consul: Consul, keys: Keys, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer_module, "ABANDONED", -1.0)
    clock = NOW - 3600  # so that the record looks abandoned
    announcer = Announcer(consul, keys, Class.BRIDGE, clock=lambda: clock)
    async with following(consul, keys) as host, running(announcer.run()):
        await announcer.announce([Change(f"{keys.groups}$user.alice$/192.0.2.1", b"-1", 1)])
        folder = f"{keys.access_changes}bridge/"
        (record,) = [e for e in (await consul.read(folder)).entries if e.key != folder]
        await consul.transact([Op.delete(record.key)])
        committed = await consul.transact([Op.set(key := f"{keys.groups}$user.alice$/192.0.2.2", b"-1")])
        await announcer.announce([Change(key, b"-1", committed.index)])
        await eventually(lambda: _is(key in host.heard), within=2)
        assert host.follower.counters["gaps"] == host.follower.counters["rewinds"] == 0
        assert announcer.counters["lives"] == 0


class Mute(Consul):
    """A connection whose answers to transactions do not arrive, as if its owner had died."""

    async def transact(self, ops: Sequence[Op], *, timeout: float = 5.0) -> Committed:
        await super().transact(ops, timeout=timeout)
        await asyncio.Event().wait()
        raise AssertionError


async def test_what_a_writer_committed_that_died_at_that_moment_is_announced(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    async with following(consul, keys) as host, Lanes(consul, keys) as lanes, Mute(consul.settings) as mute:
        await lanes.submit(event(Kind.START, "bob", NOW, ADDRESS))
        async with Lanes(mute, keys) as dying:
            await dying.load()
            dying.submit(event(Kind.START, "alice", NOW + 1, ADDRESS))
            await eventually(lambda: _is(host.held.keys() == {f"{keys.groups}$user.alice$/{ADDRESS}"}), within=2)
        assert host.held == await stored(consul, keys)
        assert host.follower.counters["reads"] == 3, "once for each prefix"


async def test_a_stop_without_an_address_finds_what_another_bridge_bound(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    await meta.ensure(consul, keys)
    async with Lanes(consul, keys) as first, Lanes(consul, keys) as second:
        neighbours = Neighbours(consul, keys, second)
        async with running(neighbours.run()):
            await eventually(lambda: _is(neighbours.counters["polls"] > 0), within=2)
            await first.submit(event(Kind.START, "alice", NOW, ADDRESS))
            await eventually(lambda: _is(second.known.session("nas/alice") is not None), within=2)
            await second.submit(event(Kind.STOP, "alice", NOW + 1))
    assert await stored(consul, keys) == {}


async def test_what_another_program_puts_or_deletes_is_heard_of_within_15_seconds(
    server: ConsulServer, consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    await meta.ensure(consul, keys)
    user, grant = f"{keys.groups}$user.alice$/192.0.2.1", f"{keys.services}ssh_tcp_22/$staff$"
    async with following(consul, keys) as host, running(Publisher(consul, keys).run()):
        await asyncio.to_thread(server.command, "kv", "put", user, "-1")
        await asyncio.to_thread(server.command, "kv", "put", grant, "-1")
        await eventually(lambda: _agree(consul, keys, host), within=15)
        await asyncio.to_thread(server.command, "kv", "delete", grant)
        await eventually(lambda: _agree(consul, keys, host), within=15)
        assert host.follower.counters["gaps"] == 0
        assert host.follower.counters["reads"] == 3


async def test_what_was_put_before_there_was_a_publisher_is_heard_of_too(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    async with following(consul, keys) as host:
        await consul.transact([Op.set(f"{keys.groups}$user.alice$/192.0.2.1", b"-1")])
        await consul.transact([Op.set(f"{keys.services}ssh_tcp_22/$staff$", b"-1")])
        async with running(Publisher(consul, keys).run()):
            await eventually(lambda: _agree(consul, keys, host), within=15)


async def test_a_value_too_large_to_announce_is_heard_of_and_ends_no_publisher(
    server: ConsulServer,
    consul: Consul,
    keys: Keys,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(publisher_module, "EVERY", 0.5)
    await meta.ensure(consul, keys)
    large = tmp_path / "large"
    large.write_bytes(b"\0" * 500_000)
    key, grant = f"{keys.services}ssh_tcp_22/large", f"{keys.services}ssh_tcp_22/$staff$"
    publisher = Publisher(consul, keys)
    async with following(consul, keys) as host, running(publisher.run()):
        await asyncio.to_thread(server.command, "kv", "put", key, f"@{large}")
        await eventually(lambda: _agree(consul, keys, host), within=15)
        await asyncio.to_thread(server.command, "kv", "put", grant, "-1")
        await eventually(lambda: _agree(consul, keys, host), within=15)


async def test_of_many_keys_that_are_read_in_parts_nothing_is_missed(
    consul: Consul, keys: Keys, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "EVERY", 0.5)
    monkeypatch.setattr(publisher_module, "SPREAD", 0.5)
    await meta.ensure(consul, keys)
    users = [f"{keys.groups}$user.u{n}$/192.0.2.{n % 200}" for n in range(2 * PART + 100)]
    for start in range(0, len(users), MAX_OPS):
        await consul.transact([Op.set(user, b"-1") for user in users[start : start + MAX_OPS]])
    publisher = Publisher(consul, keys)
    async with following(consul, keys) as host, running(publisher.run()):
        await eventually(lambda: _is(publisher.counters["announced"] == len(users)), within=10)  # the first of all
        staff, grant = f"{keys.groups}$staff$/{users[0]}", f"{keys.services}ssh_tcp_22/$staff$"
        await consul.transact([Op.set(users[7], b"1900000000"), Op.delete(users[-7]), Op.set(staff, b"-1")])
        await consul.transact([Op.set(f"{keys.groups}$user.new$/192.0.2.1", b"-1"), Op.set(grant, b"-1")])
        await eventually(lambda: _agree(consul, keys, host), within=10)
        assert host.follower.counters["reads"] == 3
        assert publisher.counters["announced"] == len(users) + 5
        assert publisher.counters["restored"] == 0


async def test_what_is_put_or_deleted_while_nobody_publishes_is_heard_of_when_somebody_does_again(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    first, second = (f"{keys.services}ssh_tcp_22/192.0.2.{n}" for n in (1, 2))
    await meta.ensure(consul, keys)
    await consul.transact([Op.set(first, b"-1")])

    async def published() -> bool:
        return await consul.get(keys.lock("published-engineer")) is not None

    async with following(consul, keys) as host:
        async with running(Publisher(consul, keys).run()):
            await eventually(published, within=10)
        await consul.transact([Op.set(second, b"-1")])
        async with running(Publisher(consul, keys).run()):
            await eventually(lambda: _agree(consul, keys, host), within=15)
        assert host.follower.counters["reads"] == 3
        await consul.transact([Op.delete(first), Op.delete(second)])
        async with running(Publisher(consul, keys).run()):
            await eventually(lambda: _agree(consul, keys, host), within=15)


async def test_notify_makes_it_heard_at_once(consul: Consul, keys: Keys, eventually: Eventually) -> None:
    folder = f"{keys.services}ssh_tcp_22/"
    async with following(consul, keys) as host:
        await consul.transact([Op.set(f"{folder}192.0.2.{n}", b"-1") for n in range(50)])
        assert await notices.notify(consul, keys, folder) == (50, [])
        await eventually(lambda: _agree(consul, keys, host), within=1)
        await consul.transact([Op.delete(f"{folder}192.0.2.49")])
        assert await notices.notify(consul, keys, f"{folder}192.0.2.49") == (1, [])
        await eventually(lambda: _agree(consul, keys, host), within=1)
        assert len(host.held) == 49


async def test_a_command_announces_in_the_transaction_of_its_data(
    consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    key = f"{keys.services}ssh_tcp_22/$staff$"
    async with following(consul, keys) as host:
        await consul.transact(notices.announced(keys, [Op.set(key, b"-1")]))
        await eventually(lambda: _is(host.held == {key: b"-1"}), within=1)
        await consul.transact(notices.announced(keys, [Op.delete(key)]))
        await eventually(lambda: _is(host.held == {}), within=1)


async def test_records_of_the_dead_are_removed(
    consul: Consul, keys: Keys, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "SWEEP_EVERY", 0.2)
    await meta.ensure(consul, keys)
    old, young = (record_key(keys, Class.ENGINEER, name) for name in ("old", "young"))
    await consul.transact(
        [
            Op.set(old, b'{"first":0,"clock":%d,"brief":true}' % (time.time() - 100)),
            Op.set(young, b'{"first":0,"clock":%d,"brief":true}' % time.time()),
        ]
    )
    async with running(Publisher(consul, keys).run()):

        async def gone() -> bool:
            return old not in {e.key for e in (await consul.read(f"{keys.access_changes}engineer/")).entries}

        await eventually(gone, within=10)
    assert await consul.get(young) is not None


async def test_an_older_snapshot_restored_under_blocked_followers_and_writers_is_agreed_on(
    own_server: ConsulServer, keys: Keys, eventually: Eventually
) -> None:
    saved = f"{own_server.folder}/saved"
    async with (
        Consul(ConsulSettings(url=own_server.url)) as consul,
        Lanes(consul, keys) as lanes,
        following(consul, keys) as host,
        running(Publisher(consul, keys).run()),
    ):
        await lanes.submit(event(Kind.START, "alice", NOW, login(1)))
        await asyncio.to_thread(own_server.command, "snapshot", "save", saved)
        await lanes.submit(event(Kind.START, "bob", NOW, login(2)))
        await lanes.submit(event(Kind.STOP, "alice", NOW + 1, login(1)))
        await eventually(lambda: _agree(consul, keys, host), within=2)
        await asyncio.to_thread(own_server.command, "snapshot", "restore", saved)
        assert f"{keys.groups}$user.alice$/{login(1)}" in await stored(consul, keys)
        await eventually(lambda: _agree(consul, keys, host), within=40)
        # All go on from there.
        await lanes.submit(event(Kind.START, "carol", NOW, login(3)))
        await eventually(lambda: _agree(consul, keys, host), within=15)
        assert host.follower.counters["forged"] == 0
        assert len(host.held) == 2


async def test_a_restore_that_a_new_login_hides_from_blocked_followers_is_agreed_on_too(
    own_server: ConsulServer, keys: Keys, eventually: Eventually
) -> None:
    saved = f"{own_server.folder}/saved"
    async with (
        Consul(ConsulSettings(url=own_server.url)) as consul,
        Lanes(consul, keys) as lanes,
        following(consul, keys) as host,
        running(Publisher(consul, keys).run()),
    ):
        await lanes.submit(event(Kind.START, "alice", NOW, login(1)))
        await asyncio.to_thread(own_server.command, "snapshot", "save", saved)
        await consul.transact(notices.announced(keys, [Op.set(f"{keys.services}ssh_tcp_22/$staff$", b"-1")]))
        await eventually(lambda: _agree(consul, keys, host), within=2)
        await asyncio.to_thread(own_server.command, "snapshot", "restore", saved)
        await lanes.submit(event(Kind.START, "bob", NOW, login(2)))
        await eventually(lambda: _agree(consul, keys, host), within=40)
        assert len(host.held) == 2


async def test_a_registry_lost_while_the_feed_was_idle_is_noticed_though_its_index_has_overtaken_ours(
    keys: Keys, eventually: Eventually
) -> None:
    folder = f"{keys.services}ssh_tcp_22/"
    with ConsulServer() as server:
        async with Consul(ConsulSettings(url=server.url)) as consul:
            await meta.ensure(consul, keys)
            await consul.transact([Op.set(f"{keys.access_changes}engineer/", b""), Op.set(f"{folder}192.0.2.1", b"-1")])
            async with following(consul, keys) as host:
                assert host.held == {f"{folder}192.0.2.1": b"-1"}
                before = await consul.index_of(keys.services)
                server.restart()  # it keeps nothing
                await consul.transact([Op.set(f"{keys.access_changes}engineer/", b"")])
                while await consul.index_of(keys.services) < before + 100:
                    await consul.transact([Op.set(f"{folder}192.0.2.2", b"%d" % time.time_ns())])
                await meta.ensure(consul, keys)
                await eventually(lambda: _agree(consul, keys, host), within=40)
                assert list(host.held) == [f"{folder}192.0.2.2"]
                assert host.follower.counters["rewinds"] == 1


async def test_nothing_is_believed_of_a_registry_without_its_sentinel(
    consul: Consul, keys: Keys, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "WAIT", 0.2)
    key = f"{keys.services}ssh_tcp_22/192.0.2.1"
    await meta.ensure(consul, keys)
    await consul.transact([Op.set(f"{keys.access_changes}engineer/", b""), Op.set(key, b"-1")])
    async with following(consul, keys) as host:
        found = await consul.get(keys.meta)
        assert found is not None
        await consul.transact([Op.delete(keys.meta), Op.delete(key)])
        await eventually(lambda: _is(keys.meta in host.follower.trouble), within=5)
        assert host.held == {key: b"-1"}
        await consul.transact([Op.set(keys.meta, found.value)])
        await eventually(lambda: _is(not host.follower.trouble), within=10)
        assert host.held == {key: b"-1"}
