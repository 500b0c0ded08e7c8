"""When a bridge must read everything again, and what it knows of what others record while it starts."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from radius_bridge.identity.sessions import Session
from radius_bridge.registry import meta, neighbours, poll
from radius_bridge.registry.consul import Consistency
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.feed import Change, Class, Log, record_key
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Listing, Op, Snapshot
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.neighbours import Neighbours, is_incomplete
from radius_bridge.registry.positions import News
from radius_bridge.registry.records import encode
from tests.identity.world import NOW
from tests.integration.registry.running import running
from tests.registry.fake_consul import FakeConsul
from tests.waiting import until

KEYS = Keys()


@pytest.mark.parametrize(
    ("news", "incomplete"),
    [
        (News(), False),
        (News(gaps={"befw/$changes$/identity/two": "12 entries"}), True),
        (News(again=True), True),
        (News(rewound=True), True),
        (News(missed=True), True),
    ],
)
def test_what_others_recorded_and_the_news_do_not_tell_is_to_be_read(news: News, incomplete: bool) -> None:
    assert is_incomplete(news) is incomplete


Something = Callable[[], Awaitable[None]]


class EventfulConsul(FakeConsul):
    """Waits as Consul does, and lets something happen just before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Something] = {}
        """By request (`read` or `list`, and the prefix), what happens the first time."""
        self.readings = 0
        """Of everything."""
        self.asked: set[tuple[str, Consistency]] = set()
        """What was read, and how."""

    async def read(
        self, prefix: str, *, index: int = 0, wait: float = 30.0, consistency: Consistency = "default"
    ) -> Snapshot:
        while (snapshot := await super().read(prefix)).index <= index:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        self.asked.add((prefix, consistency))
        if happens := self.before.pop(f"read {prefix}", None):
            await happens()
            return await super().read(prefix)
        return snapshot

    async def read_keys(self, prefix: str, *, consistency: Consistency = "default") -> Listing:
        self.readings += prefix == KEYS.bindings
        self.asked.add((prefix, consistency))
        if happens := self.before.pop(f"list {prefix}", None):
            await happens()
        return await super().read_keys(prefix)


class Another:
    """A bridge that records one session after the other, and announces each when it is told to."""

    def __init__(self, consul: FakeConsul) -> None:
        self._consul = consul
        self._record = Log(KEYS)
        self._committed: deque[Change] = deque()
        self.names: list[str] = []

    def commit(self) -> None:
        """Records a session."""
        self.names.append(f"nas/{len(self.names)}")
        key = KEYS.session(self.names[-1])
        value = encode(Session("alice", NOW, NOW, NOW, NOW, "nas", 3600, 86400))
        self._committed.append(Change(key, value, self._consul.commit([Op.set(key, value)]).index))

    def announce(self) -> None:
        """Announces what is recorded."""
        self._record.add(self._committed, time.monotonic())
        key = record_key(KEYS, Class.IDENTITY, "another")
        self._consul.commit([Op.set(key, self._record.record(time.time()))])

    def record(self) -> None:
        """Does both."""
        self.commit()
        self.announce()

    def forget(self) -> None:
        """Leaves nothing of what it announced."""
        self._record.trim()
        self.announce()


class Starting:
    """A bridge that starts, on a Consul where another one is at work."""

    def __init__(self) -> None:
        self.consul = EventfulConsul()
        self.another = Another(self.consul)
        self.lanes = Lanes(self.consul, KEYS, clock=lambda: NOW)
        self.neighbours = Neighbours(self.consul, KEYS, self.lanes)

    def knows_all(self) -> bool:
        """True if it knows all that the other one has recorded."""
        return all(self.lanes.known.session(name) is not None for name in self.another.names)

    async def counts(self, what: str) -> None:
        """Returns when something like that was found in the feed."""
        await until(lambda: self.neighbours.counters[what] > 0)

    async def hears_of_more(self) -> None:
        """Returns when it has heard all that is recorded, and what came after that."""
        for _ in range(2):
            self.another.record()
            await until(self.knows_all)


@pytest.fixture
async def starting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Starting]:
    monkeypatch.setattr(poll, "CALM", 0.0)
    monkeypatch.setattr(neighbours, "SPREAD", 0.0)
    monkeypatch.setattr(neighbours, "LASTING", 0.0)
    monkeypatch.setattr(neighbours, "PAUSE", 0.0)
    bridge = Starting()
    await meta.ensure(bridge.consul, KEYS)
    bridge.another.record()
    async with asyncio.timeout(10):
        yield bridge


async def test_at_a_start_everything_is_read_once(starting: Starting) -> None:
    await starting.neighbours.load()
    assert starting.knows_all()
    async with running(starting.neighbours.run()):
        await starting.hears_of_more()
    assert starting.consul.readings == 1


async def test_no_server_that_lags_behind_is_asked_for_everything(starting: Starting) -> None:
    await starting.neighbours.load()
    asked = {how for prefix, how in starting.consul.asked if prefix != KEYS.identity_changes}
    assert asked == {"consistent"}


async def test_who_did_not_load_reads_everything_when_it_runs(starting: Starting) -> None:
    async with running(starting.neighbours.run()):
        await until(starting.knows_all)


MOMENTS = [
    f"read {KEYS.identity_changes}",
    f"list {KEYS.restarts}",
    f"list {KEYS.sessions}",
    f"read {KEYS.sessions}",
    f"list {KEYS.bindings}",
]


@pytest.mark.parametrize("late", [False, True], ids=["announced at once", "announced late"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_another_bridge_records_at_any_moment_of_the_start_is_known_by_one_reading(
    starting: Starting, moment: str, late: bool
) -> None:
    async def happens() -> None:
        for _ in range(100):
            await asyncio.sleep(0)  # who does not wait for this answer goes ahead
        starting.another.commit()
        if not late:
            starting.another.announce()

    starting.consul.before[moment] = happens
    await starting.neighbours.load()
    assert not starting.consul.before
    if late:
        starting.another.announce()
    async with running(starting.neighbours.run()):
        await starting.hears_of_more()
    assert starting.consul.readings == 1


async def test_what_was_announced_and_forgotten_before_the_first_look_is_known(starting: Starting) -> None:
    async def happens() -> None:
        starting.another.record()
        starting.another.forget()

    starting.consul.before[f"read {KEYS.identity_changes}"] = happens
    await starting.neighbours.load()
    async with running(starting.neighbours.run()):
        await starting.hears_of_more()
    assert starting.consul.readings == 1


async def test_what_another_bridge_records_between_the_reading_and_the_first_look_after_it_is_known(
    starting: Starting,
) -> None:
    await starting.neighbours.load()
    starting.another.record()
    async with running(starting.neighbours.run()):
        await starting.hears_of_more()
    assert starting.consul.readings == 1


async def test_what_is_announced_and_forgotten_while_a_long_reading_lasts_is_known_by_it(starting: Starting) -> None:
    async def happens() -> None:
        starting.another.record()
        await until(starting.knows_all)
        starting.another.forget()

    starting.consul.before[f"list {KEYS.bindings}"] = happens
    await starting.neighbours.load()
    assert starting.knows_all()
    async with running(starting.neighbours.run()):
        await starting.hears_of_more()
    assert starting.consul.readings == 1


async def test_a_gap_found_while_everything_is_read_leads_to_another_reading(starting: Starting) -> None:
    async def happens() -> None:
        starting.another.record()
        starting.another.forget()
        await starting.counts("gaps")

    starting.consul.before[f"list {KEYS.bindings}"] = happens
    await starting.neighbours.load()
    assert not starting.knows_all()
    async with running(starting.neighbours.run()):
        await starting.hears_of_more()
    assert starting.consul.readings == 2


async def test_a_consul_restored_while_everything_is_read_leads_to_another_reading(starting: Starting) -> None:
    async def happens() -> None:
        del starting.consul.store[record_key(KEYS, Class.IDENTITY, "another")]
        starting.consul.index += 1
        await starting.counts("rewinds")

    starting.consul.before[f"list {KEYS.bindings}"] = happens
    await starting.neighbours.load()
    async with running(starting.neighbours.run()):
        await until(lambda: starting.consul.readings == 2)


async def fails() -> None:
    raise RegistryError("no answer")


@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_is_announced_and_forgotten_after_a_start_that_failed_is_known_by_the_next_one(
    starting: Starting, moment: str
) -> None:
    starting.consul.before[moment] = fails
    with pytest.raises(RegistryError):
        await starting.neighbours.load()
    starting.another.record()
    starting.another.forget()
    before = starting.consul.readings
    await starting.neighbours.load()
    assert starting.knows_all()
    async with running(starting.neighbours.run()):
        await starting.hears_of_more()
    assert starting.consul.readings == before + 1


async def test_a_start_that_failed_is_tried_again_though_nothing_is_new_meanwhile(starting: Starting) -> None:
    starting.consul.before[f"list {KEYS.restarts}"] = fails
    with pytest.raises(RegistryError):
        await starting.neighbours.load()
    async with asyncio.timeout(1):  # a look that waits for news lasts half a minute
        await starting.neighbours.load()


async def test_who_did_not_load_tries_until_everything_is_read(
    starting: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BACKOFF", (0.0, 0.0))
    starting.consul.before[f"list {KEYS.bindings}"] = fails
    async with running(starting.neighbours.run()):
        await until(lambda: starting.consul.readings == 2)
