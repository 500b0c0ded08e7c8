"""Watching a prefix of a real Consul: every change, and never an error or a lost registry taken for empty."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from radius_bridge.registry import meta
from radius_bridge.registry import watch as watch_module
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.settings import ConsulSettings
from radius_bridge.registry.watch import watch
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "BACKOFF", (0.05, 0.5))


class Watched:
    """What a watcher was given, and what was reported to it."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[list[str]] = asyncio.Queue()
        self.reports: asyncio.Queue[RegistryError | None] = asyncio.Queue()

    async def next(self) -> list[str]:
        """The next snapshot: the values in it."""
        return await asyncio.wait_for(self.given.get(), 10)

    async def reported(self, wanted: Callable[[RegistryError | None], bool]) -> None:
        """Waits for such a report among those that nobody has waited for yet."""
        async with asyncio.timeout(15):
            while not wanted(await self.reports.get()):
                pass


@asynccontextmanager
async def watching(consul: Consul, keys: Keys, prefix: str) -> AsyncIterator[Watched]:
    watched = Watched()

    async def follow() -> None:
        async for snapshot in watch(consul, keys, prefix, report=watched.reports.put_nowait):
            watched.given.put_nowait([entry.value.decode() for entry in snapshot.entries])

    async with running(follow()):
        yield watched


async def test_every_change_is_given_and_what_is_no_change_is_not(consul: Consul, keys: Keys) -> None:
    await meta.ensure(consul, keys)
    async with watching(consul, keys, keys.groups) as watched:
        assert await watched.next() == []
        await consul.transact([Op.set(f"{keys.groups}a", b"1")])
        assert await watched.next() == ["1"]
        await consul.transact([Op.set(f"{keys.groups}a", b"1"), Op.set(f"{keys.services}x", b"9")])
        await consul.transact([Op.set(f"{keys.groups}b", b"2")])
        assert await watched.next() == ["1", "2"]
        await consul.transact([Op.delete(f"{keys.groups}a"), Op.delete(f"{keys.groups}b")])
        assert await watched.next() == []


async def test_a_missing_prefix_without_the_sentinel_is_an_error_until_the_sentinel_is_there(
    consul: Consul, keys: Keys
) -> None:
    async with watching(consul, keys, keys.groups) as watched:
        await watched.reported(lambda report: report is not None and "$meta$" in str(report))
        assert watched.given.empty()
        await meta.ensure(consul, keys)
        assert await watched.next() == []


async def test_a_prefix_that_vanishes_together_with_the_sentinel_takes_nothing_away(consul: Consul, keys: Keys) -> None:
    await meta.ensure(consul, keys)
    await consul.transact([Op.set(f"{keys.groups}a", b"1")])
    async with watching(consul, keys, keys.groups) as watched:
        assert await watched.next() == ["1"]
        await consul.transact([Op.delete(f"{keys.groups}a"), Op.delete(keys.meta)])
        await watched.reported(lambda report: report is not None)
        assert watched.given.empty()


async def test_a_consul_that_goes_and_comes_back_gives_nothing_but_what_changed(
    own_server: ConsulServer, keys: Keys
) -> None:
    async with Consul(ConsulSettings(url=own_server.url)) as consul:
        await meta.ensure(consul, keys)
        await consul.transact([Op.set(f"{keys.groups}a", b"1")])
        async with watching(consul, keys, keys.groups) as watched:
            assert await watched.next() == ["1"]
            await asyncio.to_thread(own_server.kill)
            await watched.reported(lambda report: report is not None)
            await asyncio.to_thread(own_server.start)
            await watched.reported(lambda report: report is None)
            await consul.transact([Op.set(f"{keys.groups}b", b"2")])
            assert await watched.next() == ["1", "2"]


async def test_a_consul_that_lost_its_data_takes_nothing_away_and_its_smaller_index_is_followed(
    keys: Keys,
) -> None:
    with ConsulServer() as server:
        async with Consul(ConsulSettings(url=server.url)) as consul:
            await meta.ensure(consul, keys)
            for number in range(50):
                await consul.transact([Op.set(f"{keys.groups}a", b"%d" % number)])
            async with watching(consul, keys, keys.groups) as watched:
                assert await watched.next() == ["49"]
                await asyncio.to_thread(server.restart)
                await watched.reported(lambda report: report is not None and "$meta$" in str(report))
                assert watched.given.empty()
                await meta.ensure(consul, keys)
                await consul.transact([Op.set(f"{keys.groups}b", b"new")])
                while (given := await watched.next()) != ["new"]:
                    assert given == [], "empty only once the sentinel was back"


async def test_an_older_snapshot_restored_under_a_blocked_poll_is_noticed(
    own_server: ConsulServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "WAIT", 1.0)
    async with Consul(ConsulSettings(url=own_server.url)) as consul:
        await meta.ensure(consul, keys)
        await consul.transact([Op.set(f"{keys.groups}a", b"old")])
        saved = f"{own_server.folder}/saved"
        await asyncio.to_thread(own_server.command, "snapshot", "save", saved)
        await consul.transact([Op.set(f"{keys.groups}a", b"new")])
        async with watching(consul, keys, keys.groups) as watched:
            assert await watched.next() == ["new"]
            await asyncio.to_thread(own_server.command, "snapshot", "restore", saved)
            assert await watched.next() == ["old"]
