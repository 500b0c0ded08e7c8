"""Announcing in the transaction that records: pages, and what becomes of them."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from radius_bridge.identity.events import Kind
from radius_bridge.policy.members import Prefix
from radius_bridge.registry import announcer as announcer_module
from radius_bridge.registry import pages as pages_module
from radius_bridge.registry.errors import Conflict, RegistryError
from radius_bridge.registry.feed import ABANDONED, FRESH, PAGE_BYTES, READ_AGAIN, Change, Record, decode_record
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Committed, Op
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.pages import OCTETS, Page, Pages
from tests.registry.events import ADDRESS, event
from tests.registry.fake_consul import FakeConsul

KEYS = Keys()
NOW = 1_800_000_000.0
FOLDER = f"{KEYS.access_changes}bridge/"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time of pages, to be set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "QUIET", 0.0)
    monkeypatch.setattr(announcer_module, "QUIET", 0.001)


def make_pages(consul: FakeConsul) -> Pages:
    return Pages(consul, KEYS, lambda: NOW)


def changes(count: int, size: int = 10) -> list[Change]:
    return [Change(f"{KEYS.groups}$user.u{n}$/192.0.2.1", b"1" * size, 0) for n in range(count)]


def write(pages: Pages, consul: FakeConsul, some: list[Change]) -> Page:
    """Announces on a page, as a lane does, and gives it back."""
    page = pages.take()
    ops = page.ops(some)
    assert page.operations == len(ops)
    page.committed(consul.commit(ops).modified[page.key])
    pages.give_back(page, ops[0].size, len(some))
    return page


def records(consul: FakeConsul) -> dict[str, Record]:
    """The pages in Consul."""
    return {key: decode_record(e.value) for key, e in consul.store.items() if key.startswith(FOLDER) and e.value}


def told(consul: FakeConsul) -> set[str]:
    """The keys below the root that all pages name."""
    return {name for record in records(consul).values() for name, *_ in record.entries}


@pytest.mark.usefixtures("_hasty")
async def test_a_login_is_announced_by_the_transaction_that_records_it() -> None:
    consul = FakeConsul()
    async with Lanes(consul, KEYS, clock=lambda: NOW) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        member = consul.store["befw/$alias$/$user.alice$/192.0.2.1"]
        page = next(entry for key, entry in consul.store.items() if key.startswith(FOLDER) and entry.value)
    assert page.modify_index == member.modify_index
    assert decode_record(page.value).entries == (("$alias$/$user.alice$/192.0.2.1", "1800003600", 0),)


@pytest.mark.usefixtures("_hasty")
async def test_what_changes_in_no_group_is_announced_on_no_page() -> None:
    consul = FakeConsul()
    async with Lanes(consul, KEYS, clock=lambda: NOW) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW))
    assert not records(consul)


class Lossy(FakeConsul):
    """One whose answer to the next transaction of a lane is lost."""

    loses = False

    async def transact(self, ops: Sequence[Op], *, timeout: float = 5.0) -> Committed:
        done = await super().transact(ops, timeout=timeout)
        if self.loses and not ops[0].key.startswith(KEYS.changes):
            self.loses = False
            raise RegistryError("no answer")
        return done


@pytest.mark.usefixtures("_hasty")
async def test_of_a_transaction_whose_answer_is_lost_the_page_is_left_as_it_is() -> None:
    consul = Lossy()
    async with Lanes(consul, KEYS, clock=lambda: NOW, count=1) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        consul.loses = True
        await lanes.submit(event(Kind.START, "bob", NOW, Prefix(4, 1, 32)))
        assert len(records(consul)) == 1
        await lanes.submit(event(Kind.START, "carol", NOW, Prefix(4, 2, 32)))
        assert len(records(consul)) == 2, "nobody knows who writes the first one last"


def test_when_idle_there_is_one_page_and_it_keeps_what_was_said_lately(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    for number in range(5):
        clock[0] += 0.5
        write(pages, consul, [Change(f"{KEYS.groups}$user.u{number}$/192.0.2.1", b"1", 0)])
    (record,) = records(consul).values()
    assert [name for name, *_ in record.entries] == [f"$alias$/$user.u{n}$/192.0.2.1" for n in range(5)]
    clock[0] += 2.1
    write(pages, consul, changes(1))
    (record,) = records(consul).values()
    assert record.first == 5, "older than two seconds"


def test_entries_of_the_commit_itself_have_its_index_and_earlier_ones_their_own(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    first = write(pages, consul, changes(1)).index
    write(pages, consul, changes(1))
    (record,) = records(consul).values()
    assert [index for *_, index in record.entries] == [first, 0]


def test_a_full_page_rests_until_it_was_read_and_then_goes_on_with_its_numbers(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    many = changes(1 + PAGE_BYTES // 40)
    full = write(pages, consul, many)
    second = write(pages, consul, many)
    assert second is not full
    clock[0] += FRESH + 0.01
    again = write(pages, consul, changes(1))
    assert again is second, "the one that has rested for the shortest time"
    record = records(consul)[again.key]
    assert (record.first, len(record.entries)) == (len(many), 1)


@pytest.mark.usefixtures("_hasty")
async def test_pages_that_a_burst_has_left_over_end_while_the_load_goes_on(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    many = changes(1 + PAGE_BYTES // 40)
    for _ in range(10):
        write(pages, consul, many)
    for _ in range(30):
        clock[0] += 0.2
        write(pages, consul, many)
        await pages._tidy(clock[0] - 2.0, keep=1)
    assert sum(not record.brief for record in records(consul).values()) <= 3


def test_pages_at_the_same_time_are_different_ones() -> None:
    pages = make_pages(FakeConsul())
    assert pages.take() is not pages.take()


def test_the_largest_page_has_room_beside_the_largest_transaction() -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    write(pages, consul, changes(PAGE_BYTES // 52))
    page = pages.take()
    assert page.log.size > PAGE_BYTES * 0.85
    longest = [Change(f"{KEYS.groups}$user.{'%41' * 253}{n}$/2001:db8::1", b"1800003600", 0) for n in range(61)]
    assert sum(op.size for op in page.ops(longest)) <= OCTETS


def test_a_page_that_may_be_swept_any_moment_is_not_used_again(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    old = write(pages, consul, changes(1))
    clock[0] += ABANDONED / 2
    assert write(pages, consul, changes(1)) is not old


@pytest.mark.usefixtures("_hasty")
async def test_in_quiet_times_one_empty_page_is_left_and_the_others_end() -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    taken = [pages.take() for _ in range(3)]
    for page in taken:
        some = changes(40)
        page.committed(consul.commit(page.ops(some)).modified[page.key])
        pages.give_back(page, 1, 40)
    tidying = asyncio.create_task(pages.run())
    async with asyncio.timeout(5):
        while told(consul):  # noqa: ASYNC110 - pages are emptied silently
            await asyncio.sleep(0)
    tidying.cancel()
    assert sorted(record.brief for record in records(consul).values()) == [False, True, True]
    write(pages, consul, changes(1))
    assert len(records(consul)) == 3, "the one that is left is used"
    await pages.close()
    assert all(record.brief and not record.entries for record in records(consul).values())


def test_when_consul_was_restored_the_next_page_says_so() -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    page = write(pages, consul, changes(1))
    consul.commit([Op.delete(page.key)])
    page = pages.take()
    with pytest.raises(Conflict):
        consul.commit(page.ops(changes(1)))
    pages.restored()
    write(pages, consul, changes(1))
    (record,) = records(consul).values()
    assert record.entries[0][0] == READ_AGAIN


@pytest.mark.usefixtures("_hasty")
async def test_a_lane_finds_out_that_consul_was_restored_and_records_all_the_same() -> None:
    consul = FakeConsul()
    async with Lanes(consul, KEYS, clock=lambda: NOW, count=1) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        consul.commit([Op.delete(key) for key in records(consul)])
        await lanes.submit(event(Kind.START, "bob", NOW, Prefix(4, 1, 32)))
        assert told(consul) == {READ_AGAIN, "$alias$/$user.bob$/0.0.0.1"}
        assert lanes.pages.counters["lives"] == 1
