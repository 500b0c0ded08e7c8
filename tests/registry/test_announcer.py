"""The announcer against faults that a real Consul cannot be made to show at a given moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from radius_bridge.registry import announcer as announcer_module
from radius_bridge.registry.announcer import READ_ALL, Announcer
from radius_bridge.registry.errors import NotRecorded
from radius_bridge.registry.feed import READ_AGAIN, Change, Class, Record, decode_record
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from tests.registry.fake_consul import FakeConsul, Fault
from tests.waiting import until

KEYS = Keys()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer_module, "BACKOFF", (0.001, 0.01))


@asynccontextmanager
async def announcing(consul: FakeConsul) -> AsyncIterator[Announcer]:
    announcer = Announcer(consul, KEYS, Class.BRIDGE)
    task = asyncio.create_task(announcer.run())
    yield announcer
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def member(number: int) -> Change:
    return Change(f"{KEYS.groups}$user.u{number}$/192.0.2.1", b"1", number + 1)


def records(consul: FakeConsul) -> list[Record]:
    return [decode_record(e.value) for key, e in sorted(consul.store.items()) if not key.endswith("/")]


async def test_what_is_announced_stands_in_the_record_when_the_future_is_done() -> None:
    consul = FakeConsul()
    async with announcing(consul) as announcer:
        await announcer.announce([member(1)])
        (record,) = records(consul)
        assert record.entries == (("$alias$/$user.u1$/192.0.2.1", "1", 2),)


async def test_one_announcement_takes_all_that_waits() -> None:
    consul = FakeConsul()
    async with announcing(consul) as announcer:
        await asyncio.gather(*(announcer.announce([member(n)]) for n in range(500)))
        assert announcer.counters["announcements"] <= 2
        assert announcer.counters["entries"] == 500


async def test_too_much_for_one_record_goes_out_in_several() -> None:
    consul = FakeConsul()
    async with announcing(consul) as announcer:
        await announcer.announce([member(n) for n in range(5000)])
        assert announcer.counters["announcements"] > 2
        (record,) = records(consul)
        assert record.first + len(record.entries) == 5000


@pytest.mark.parametrize("fault", [Fault.REQUEST_LOST, Fault.ANSWER_LOST, Fault.LATE])
async def test_whatever_is_lost_each_entry_is_announced_once_and_in_order(fault: Fault) -> None:
    faults = iter([Fault.NONE, fault, fault])
    consul = FakeConsul(lambda: next(faults, Fault.NONE))
    async with announcing(consul) as announcer:
        for number in range(3):
            await announcer.announce([member(number)])
        (record,) = records(consul)
        assert [index for _, _, index in record.entries] == [1, 2, 3]
        assert announcer.counters["lives"] == 0


async def test_a_record_that_changed_behind_our_back_begins_a_new_life_and_has_all_read_again() -> None:
    consul = FakeConsul()
    async with announcing(consul) as announcer:
        await announcer.announce([member(1)])
        before = dict(consul.store)
        await announcer.announce([member(2)])
        consul.store = before  # restored
        await announcer.announce([member(3)])
        assert announcer.counters["lives"] == 1
        fresh = [record for record in records(consul) if record.entries[0][0] == READ_AGAIN]
        assert [record.first for record in fresh] == [0]
        assert len(records(consul)) == 2


async def test_a_record_swept_while_we_were_idle_is_written_again_with_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcer_module, "ABANDONED", -1.0)
    consul = FakeConsul()
    async with announcing(consul) as announcer:
        await announcer.announce([member(1)])
        (key,) = (key for key in consul.store if not key.endswith("/"))
        consul.commit([Op.delete(key)])
        await announcer.announce([member(2)])
        assert key in consul.store
        assert announcer.counters["lives"] == 0


async def test_what_nobody_can_hold_is_refused_and_replaced_by_the_advice_to_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcer_module, "PENDING", 2)
    consul = FakeConsul()
    async with announcing(consul) as announcer:
        with pytest.raises(NotRecorded, match="too much"):
            await announcer.announce([member(1), member(2), member(3)])
        await announcer.announce([member(4)])
        (record,) = records(consul)
        assert [key for key, _, _ in record.entries] == [READ_ALL.key, "$alias$/$user.u4$/192.0.2.1"]


async def test_after_a_long_outage_everybody_reads_again_instead_of_hearing_old_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcer_module, "OUTAGE", 0.02)
    down = [True]
    consul = FakeConsul(lambda: Fault.REQUEST_LOST if down[0] else Fault.NONE)
    async with announcing(consul) as announcer:
        old = announcer.announce([member(1)])
        await asyncio.sleep(0.1)
        down[0] = False
        await asyncio.wait_for(old, 2)
        (record,) = records(consul)
        assert [key for key, _, _ in record.entries] == [READ_AGAIN]


async def test_a_large_record_is_emptied_when_things_go_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer_module, "QUIET", 0.01)
    consul = FakeConsul()
    async with announcing(consul) as announcer:
        await announcer.announce([member(n) for n in range(300)])
        await until(lambda: not records(consul)[0].entries)
        await announcer.announce([member(1)])
        assert records(consul)[0].first == 300


async def test_a_writer_that_ends_leaves_an_empty_record_that_is_soon_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer_module, "QUIET", 0.05)
    consul = FakeConsul()
    announcer = Announcer(consul, KEYS, Class.BRIDGE)
    task = asyncio.create_task(announcer.run())
    announced = announcer.announce([member(number) for number in range(100)])
    announcer.close()
    await asyncio.wait_for(task, 5)
    assert announced.done()
    (record,) = records(consul)
    assert (record.first, record.entries, record.brief) == (100, (), True)


async def test_a_writer_that_had_nothing_to_say_ends_at_once() -> None:
    consul = FakeConsul()
    announcer = Announcer(consul, KEYS, Class.BRIDGE)
    announcer.close()
    await asyncio.wait_for(announcer.run(), announcer_module.QUIET / 2)
    assert not records(consul)
