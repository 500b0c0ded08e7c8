"""Two bridges, both active, on one Consul: any fact may reach either of them, and faults befall them."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from radius_bridge.identity.events import Kind, Lease, Restart
from radius_bridge.policy.members import parse_prefix
from radius_bridge.registry import announcer, meta, neighbours
from radius_bridge.registry.consul import Consistency, Consul
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Listing
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.neighbours import Neighbours
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer
from tests.lab.identity import Run, island
from tests.registry.events import ADDRESS, OTHER, event

pytestmark = pytest.mark.integration

NOW = float(int(time.time()))
MAC = "02:00:00:00:00:01"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "QUIET", 0.1)  # which a writer that ends gives its followers, too


@pytest.fixture(scope="module")
def server() -> Iterator[ConsulServer]:
    with ConsulServer() as server:
        yield server


@pytest.fixture
async def consul(server: ConsulServer) -> AsyncIterator[Consul]:
    async with Consul(ConsulSettings(url=server.url)) as consul:
        yield consul


@pytest.fixture
def keys() -> Keys:
    return Keys(f"test-{time.monotonic_ns()}")


class Pair:
    """Two bridges, and what stands in Consul."""

    def __init__(self, consul: Consul, keys: Keys, one: Lanes, two: Lanes) -> None:
        self._consul = consul
        self._keys = keys
        self.one = one
        self.two = two

    async def members(self) -> set[str]:
        """`user address` of all groups."""
        entries = (await self._consul.read(self._keys.groups, consistency="consistent")).entries
        return {entry.key.removeprefix(self._keys.groups).replace("$user.", "").replace("$/", " ") for entry in entries}

    async def come_to(self, members: set[str]) -> None:
        """Waits until the groups are these: what one bridge did, the other hears of in a moment."""
        await until(self.members, members)


async def until(look: Callable[[], Awaitable[object]], expected: object) -> None:
    deadline = time.monotonic() + 5
    while (found := await look()) != expected:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


@pytest.fixture
async def pair(consul: Consul, keys: Keys) -> AsyncIterator[Pair]:
    await meta.ensure(consul, keys)
    async with AsyncExitStack() as stack:
        lanes = [await stack.enter_async_context(Lanes(consul, keys)) for _ in range(2)]
        for each in lanes:
            others = Neighbours(consul, keys, each)
            await stack.enter_async_context(running(others.run()))

            async def polls(others: Neighbours = others) -> object:
                return others.counters["polls"] > 0

            await until(polls, True)
        yield Pair(consul, keys, *lanes)


async def test_a_start_on_one_bridge_after_its_stop_on_the_other_revives_nothing(pair: Pair) -> None:
    await pair.one.submit(event(Kind.STOP, "alice", NOW + 1, ADDRESS))
    await pair.two.submit(event(Kind.START, "alice", NOW, ADDRESS))
    await pair.two.submit(event(Kind.INTERIM, "alice", NOW + 1, ADDRESS))
    assert await pair.members() == set()


async def test_a_stop_without_the_address_on_the_other_bridge_ends_the_session(pair: Pair) -> None:
    await pair.one.submit(event(Kind.START, "alice", NOW, ADDRESS, OTHER))
    await pair.two.submit(event(Kind.STOP, "alice", NOW + 1))
    assert await pair.members() == set(), "though the other one has not heard of it yet"


async def test_a_lease_on_one_bridge_and_a_session_on_the_other_join_in_the_same_moment(pair: Pair) -> None:
    await asyncio.gather(
        pair.one.submit_lease(Lease(ADDRESS, MAC, NOW, NOW + 600, "kea")),
        pair.two.submit(event(Kind.START, "alice", NOW, mac=MAC)),
    )
    await pair.come_to({f"alice {ADDRESS}"})
    await asyncio.gather(
        pair.one.submit(event(Kind.STOP, "alice", NOW + 5)),
        pair.two.submit_lease(Lease(OTHER, MAC, NOW + 1, NOW + 600, "kea")),
    )
    await pair.come_to(set())


async def test_accounting_on_at_one_bridge_ends_the_sessions_learnt_by_the_other_rfc_2866_5_1(pair: Pair) -> None:
    await pair.one.submit(event(Kind.START, "alice", NOW, ADDRESS))
    await pair.one.submit(event(Kind.START, "bob", NOW, OTHER, session="elsewhere/1"))
    await pair.come_to({f"alice {ADDRESS}", f"bob {OTHER}"})
    await pair.two.submit(Restart("127.0.0.1", "nas", NOW + 5, NOW + 5))
    await pair.come_to({f"bob {OTHER}"})
    await pair.one.submit(event(Kind.INTERIM, "alice", NOW + 4, ADDRESS))
    await pair.come_to({f"bob {OTHER}"})


async def test_a_station_that_roams_from_one_bridge_to_the_other_keeps_its_address_rfc_3580_2_2(pair: Pair) -> None:
    await pair.one.submit(event(Kind.START, "alice", NOW, ADDRESS, session="ap1/1", multi="M"))
    await asyncio.gather(
        pair.two.submit(event(Kind.START, "alice", NOW + 5, session="ap2/1", multi="M")),
        pair.one.submit(event(Kind.STOP, "alice", NOW + 6, ADDRESS, session="ap1/1", multi="M")),
    )
    await pair.come_to({f"alice {ADDRESS}"})


class Counting(Consul):
    """A connection that knows what was listed through it."""

    def __init__(self, settings: ConsulSettings) -> None:
        super().__init__(settings)
        self.listings: Counter[str] = Counter()

    async def read_keys(self, prefix: str, *, consistency: Consistency = "default") -> Listing:
        self.listings[prefix] += 1
        return await super().read_keys(prefix, consistency=consistency)


async def test_a_bridge_that_starts_while_another_records_reads_everything_once_and_knows_it(
    consul: Consul, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "SPREAD", 0.0)  # whatever else is to be read is read at once
    await meta.ensure(consul, keys)
    users = [f"user{number}" for number in range(20)]
    async with Lanes(consul, keys) as one, Counting(consul.settings) as own, Lanes(own, keys) as two:

        async def log_in(users: list[str]) -> None:
            for user in users:
                await one.submit(event(Kind.START, user, NOW, parse_prefix(f"10.0.0.{user[4:]}")))

        async def unknown() -> list[str]:
            return [user for user in users if two.known.session(f"nas/{user}") is None]

        await log_in(users[:5])
        starting = Neighbours(own, keys, two)
        logins = asyncio.create_task(log_in(users[5:]))
        await starting.load()
        assert not set(users[:5]) & set(await unknown())
        async with running(starting.run()):
            await logins
            await until(unknown, [])
    assert own.listings == {keys.restarts: 1, keys.sessions: 1, keys.bindings: 1}


async def test_whatever_befalls_two_bridges_consul_ends_up_as_the_reference_says(
    server: ConsulServer, consul: Consul, keys: Keys
) -> None:
    dice = random.Random(4)
    islands = [island(number, dice) for number in range(100)]
    run = Run(server.url, keys.root, dice, islands, ["kill", "cut", "pause"])
    outcome = await run.run(consul)
    assert outcome.events == 1440
    assert sum(outcome.faults.values()) == 3
    assert not outcome.violations
