"""How often a follower asks."""

import asyncio
import time
from itertools import accumulate, repeat

import pytest

from radius_bridge.registry import meta
from radius_bridge.registry.consul import Consistency
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.feed import FRESH, Change, Class, brief_record, record_key
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op, Snapshot
from radius_bridge.registry.poll import FEW, PAUSE, SKEW, Poll, next_pause
from radius_bridge.registry.positions import News
from tests.registry.fake_consul import FakeConsul, Fault


def test_single_logins_are_heard_at_once() -> None:
    assert next_pause(0.0, FEW) == 0.0


def test_under_load_a_follower_pauses_ever_longer_and_misses_nothing() -> None:
    pauses = list(accumulate(repeat(50, 8), next_pause, initial=0.0))
    assert pauses[:4] == [0.0, PAUSE[0], 2 * PAUSE[0], 4 * PAUSE[0]]
    assert pauses[-1] == PAUSE[1] < FRESH


def test_when_the_load_is_over_it_pauses_no_more() -> None:
    pauses = list(accumulate(repeat(1, 8), next_pause, initial=PAUSE[1]))
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[-1] == 0.0


def test_a_clock_that_differs_is_told_once_and_again_when_it_has_been_right() -> None:
    now = 1_800_000_000.0
    poll = Poll(FakeConsul(), Keys(), Keys().access_changes, clock=lambda: now)
    wrong, right = News(clocks={"bridge": now + 2 * SKEW}), News(clocks={"bridge": now})
    for news in (wrong, wrong, wrong, right, wrong, wrong):  # forty a second, under load
        poll._note(news, followed=True)
    assert len(poll.alarms) == poll.counters["skewed"] == 2


async def test_a_record_that_waited_for_us_says_nothing_of_its_writers_clock() -> None:
    keys, consul, now = Keys(), FakeConsul(), 1_800_000_000.0
    await meta.ensure(consul, keys)
    poll = Poll(consul, keys, keys.access_changes, clock=lambda: now)
    for skewed in (0, 1):
        consul.commit([Op.set(record_key(keys, Class.BRIDGE, f"{skewed}"), brief_record(keys, [], now - 2 * SKEW))])
        await poll.look()
        assert poll.counters["skewed"] == skewed


async def test_after_a_failure_the_next_look_does_not_wait() -> None:
    faults, waited = [Fault.NONE], []

    class Watched(FakeConsul):
        async def read(
            self, prefix: str, *, index: int = 0, wait: float = 30.0, consistency: Consistency = "default"
        ) -> Snapshot:
            waited.append(index > 0)
            return await super().read(prefix)

    keys, consul = Keys(), Watched(lambda: faults[-1])
    await meta.ensure(consul, keys)
    poll = Poll(consul, keys, keys.access_changes)
    await poll.look()
    faults.append(Fault.REQUEST_LOST)
    with pytest.raises(RegistryError):
        await poll.look()
    assert poll.trouble
    faults.append(Fault.NONE)
    await poll.look()
    assert not poll.trouble
    assert waited[-2:] == [True, False]


async def test_a_look_that_is_cancelled_at_whatever_moment_loses_nothing() -> None:
    keys, consul = Keys(), FakeConsul()
    await meta.ensure(consul, keys)
    poll = Poll(consul, keys, keys.access_changes)
    await poll.look()
    cancelled: list[bool] = []
    for turns in range(8):
        change = Change(f"{keys.groups}$user.alice$/192.0.2.{turns}", b"-1", 0)
        record = brief_record(keys, [change], time.time())
        consul.commit([Op.set(record_key(keys, Class.BRIDGE, f"writer{turns}"), record)])
        look = asyncio.create_task(poll.look())
        for _ in range(turns):
            await asyncio.sleep(0)
        look.cancel()
        await asyncio.wait([look])
        cancelled.append(look.cancelled())
        news = await poll.look(at_once=True) if look.cancelled() else look.result()
        assert [each.key for each in news.changes] == [change.key]
    assert set(cancelled) == {True, False}
