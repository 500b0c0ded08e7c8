"""Announcing in the transaction that records: pages, and what becomes of them."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from radius_bridge.identity.events import Kind
from radius_bridge.policy.members import Prefix
from radius_bridge.registry import announcer as announcer_module
from radius_bridge.registry import pages as pages_module
from radius_bridge.registry.announcer import QUIET
from radius_bridge.registry.errors import Conflict, RegistryError
from radius_bridge.registry.feed import (
    ABANDONED,
    BRIEF_KEPT,
    FRESH,
    KEPT_BYTES,
    KEPT_FOR,
    PAGE_BYTES,
    READ_AGAIN,
    Change,
    Record,
    decode_record,
)
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Committed, Op
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.pages import OCTETS, Page, Pages
from tests.registry.events import ADDRESS, event
from tests.registry.fake_consul import FakeConsul
from tests.waiting import until

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
    for waits in ("BRIEF_KEPT", "FRESH", "KEPT_FOR", "QUIET"):
        monkeypatch.setattr(pages_module, waits, 0.0)
    monkeypatch.setattr(announcer_module, "QUIET", 0.001)


FULL = 1 + PAGE_BYTES // 40
"""Changes that fill a page."""


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


def live(consul: FakeConsul) -> dict[str, Record]:
    """The pages that have not ended."""
    return {key: record for key, record in records(consul).items() if not record.brief}


async def load(pages: Pages, consul: FakeConsul, clock: list[float], every: float, seconds: float) -> tuple[float, int]:
    """Fills a page every so many seconds: for how long what was said stood at least, and in how many pages at most."""
    said: dict[tuple[str, int], float] = {}
    shortest, most, ends = seconds, 0, clock[0] + seconds
    tidied = clock[0]
    while clock[0] < ends:
        clock[0] += every
        if clock[0] - tidied >= FRESH:
            await pages._tidy(clock[0])
            tidied = clock[0]
        page = write(pages, consul, changes(FULL))
        standing = {(key, record.first) for key, record in records(consul).items() if record.entries}
        shortest = min([shortest, *(clock[0] - at for which, at in said.items() if which not in standing)])
        said = {which: said.get(which, clock[0]) for which in standing}
        assert (page.key, page.log.first) in said
        most = max(most, len(standing))
    return shortest, most


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
    full = write(pages, consul, changes(FULL))
    clock[0] += KEPT_FOR - 0.01
    second = write(pages, consul, changes(FULL))
    assert second is not full
    clock[0] += 0.02
    again = write(pages, consul, changes(1))
    assert again is full
    record = records(consul)[again.key]
    assert (record.first, len(record.entries)) == (FULL, 1)


async def test_while_no_more_than_16_kib_are_full_what_is_said_stands_for_two_seconds(clock: list[float]) -> None:
    consul = FakeConsul()
    shortest, most = await load(make_pages(consul), consul, clock, every=0.5, seconds=20)
    assert shortest >= KEPT_FOR
    assert most <= KEPT_BYTES // PAGE_BYTES + 1


async def test_beyond_that_16_kib_stand_and_all_that_is_fresh(clock: list[float]) -> None:
    consul = FakeConsul()
    shortest, most = await load(make_pages(consul), consul, clock, every=0.2, seconds=20)
    assert shortest > 0.2 * (KEPT_BYTES // PAGE_BYTES - 1) - 0.01
    assert most <= KEPT_BYTES // PAGE_BYTES


async def test_at_high_rates_what_is_said_stands_as_long_as_it_is_fresh_and_no_longer(clock: list[float]) -> None:
    consul = FakeConsul()
    shortest, most = await load(make_pages(consul), consul, clock, every=0.02, seconds=20)
    assert shortest >= FRESH
    assert most <= FRESH / 0.02 + 2


async def test_what_a_burst_has_left_over_is_soon_empty_while_the_load_goes_on(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    for _ in range(20):
        write(pages, consul, changes(FULL))
    assert len(live(consul)) == 20
    await load(pages, consul, clock, every=0.2, seconds=2 * FRESH)
    assert sum(bool(record.entries) for record in live(consul).values()) <= KEPT_BYTES // PAGE_BYTES + 1


async def test_the_next_burst_uses_those_pages_and_those_that_none_has_used_for_a_minute_end(
    clock: list[float],
) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    for _ in range(3):
        for _ in range(20):
            write(pages, consul, changes(FULL))
        await load(pages, consul, clock, every=0.2, seconds=5)
    assert len(live(consul)) == len(records(consul)) <= 22
    await load(pages, consul, clock, every=0.2, seconds=BRIEF_KEPT + 5)
    assert len(live(consul)) <= KEPT_BYTES // PAGE_BYTES + 2


async def test_who_takes_a_page_and_says_nothing_changes_nothing(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    write(pages, consul, changes(FULL))
    clock[0] += KEPT_FOR
    pages.give_back(pages.take())
    await pages._tidy(clock[0])
    assert not told(consul), "what everybody has read goes, all the same"


async def test_what_is_fresh_is_not_emptied(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    for _ in range(20):
        write(pages, consul, changes(FULL))
    clock[0] += FRESH - 0.01
    await pages._tidy(clock[0])
    assert all(record.entries for record in records(consul).values())


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


async def test_in_quiet_times_one_empty_page_is_left_and_the_others_end(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    for page in [pages.take() for _ in range(3)]:
        page.committed(consul.commit(page.ops(changes(40))).modified[page.key])
        pages.give_back(page, 1, 40)
    clock[0] += KEPT_FOR
    await pages._tidy(clock[0])
    assert len(live(consul)) == 3
    assert not told(consul)
    clock[0] += BRIEF_KEPT
    await pages._tidy(clock[0])
    assert len(live(consul)) == 1
    write(pages, consul, changes(1))
    assert len(records(consul)) == 3, "the one that is left is used"


async def test_a_few_entries_are_left_and_their_page_is_the_next_to_be_used(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    page = write(pages, consul, changes(3))
    clock[0] += BRIEF_KEPT
    await pages._tidy(clock[0])
    assert len(told(consul)) == 3, "no host is woken for so little"
    assert write(pages, consul, changes(1)) is page


@pytest.mark.usefixtures("_hasty")
async def test_pages_tidy_themselves_and_end_with_the_bridge() -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    write(pages, consul, changes(FULL))
    tidying = asyncio.create_task(pages.run())
    await until(lambda: not told(consul), "empty pages", every=0)
    tidying.cancel()
    write(pages, consul, changes(1))
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


async def test_a_spare_page_that_was_swept_does_not_look_like_a_restored_consul(clock: list[float]) -> None:
    consul = FakeConsul()
    pages = make_pages(consul)
    both = pages.take(), pages.take()
    for page in both:
        page.committed(consul.commit(page.ops(changes(1))).modified[page.key])
        pages.give_back(page, 1, 1)
    while clock[0] < 1000 + ABANDONED:
        clock[0] += 1
        used = write(pages, consul, changes(1))
        await pages._tidy(clock[0])
    (spare,) = {*both} - {used}
    del consul.store[spare.key]
    clock[0] += QUIET
    await pages._tidy(clock[0])
    clock[0] += ABANDONED
    await pages.close()
    assert pages.counters["lives"] == 0
