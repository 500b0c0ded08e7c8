"""Leases on their way to who records them."""

import asyncio
from collections import Counter

from radius_bridge.identity.events import Lease
from radius_bridge.leases.outbox import LANES, WAITING, Outbox
from radius_bridge.policy.members import Prefix
from radius_bridge.registry.errors import NotRecorded
from tests.leases.recorder import Recorder
from tests.waiting import until


def lease(number: int, expires: float = 10) -> Lease:
    return Lease(Prefix(4, number, 32), "", 0, expires, "dhcp")


async def test_what_could_not_be_recorded_is_tried_again() -> None:
    recorder, counters = Recorder(), Counter[str]()
    recorder.failures = 3
    outbox = Outbox(recorder.submit, counters)
    task = asyncio.create_task(outbox.run())
    await outbox.put(lease(1))
    await until(lambda: recorder.leases == [lease(1)], "the lease")
    assert counters == {"not_recorded": 3, "recorded": 1, "superseded": 0}
    task.cancel()


async def test_of_one_address_only_the_newest_word_waits_and_words_never_overtake() -> None:
    recorder, counters = Recorder(), Counter[str]()
    recorder.gate.clear()
    outbox = Outbox(recorder.submit, counters)
    task = asyncio.create_task(outbox.run())
    await outbox.put(lease(1, 1))
    await until(lambda: recorder.under_way, "the first word")
    for expires in (2, 3, 4):
        await outbox.put(lease(1, expires))
    recorder.gate.set()
    await until(lambda: len(recorder.leases) == 2, "the last word")
    assert [each.expires for each in recorder.leases] == [1, 4]
    assert counters["superseded"] == 2
    task.cancel()


async def test_what_could_not_be_recorded_is_not_told_after_a_newer_word() -> None:
    recorder, counters = Recorder(), Counter[str]()
    recorder.gate.clear()
    recorder.failures = 1
    outbox = Outbox(recorder.submit, counters)
    task = asyncio.create_task(outbox.run())
    await outbox.put(lease(1, 10))
    await until(lambda: recorder.under_way, "the first word")
    await outbox.put(lease(1, 0))
    recorder.gate.set()
    await until(lambda: recorder.leases, "the last word")
    assert recorder.leases == [lease(1, 0)], "it was given back"
    assert counters["not_recorded"] == 1
    task.cancel()


async def test_who_has_more_than_can_wait_waits() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    outbox = Outbox(recorder.submit, Counter())
    task = asyncio.create_task(outbox.run())
    count = 2 * LANES * WAITING

    async def give() -> None:
        for number in range(count):
            await outbox.put(lease(number))

    giving = asyncio.create_task(give())
    await until(lambda: recorder.under_way == LANES, "all lanes to work")
    await asyncio.sleep(0)
    assert not giving.done()
    recorder.gate.set()
    await until(lambda: len(recorder.leases) == count, "everything")
    task.cancel()


async def test_one_lease_that_cannot_be_recorded_keeps_no_other_waiting() -> None:
    recorder, counters = Recorder(), Counter[str]()

    async def submit(each: Lease) -> None:
        if each.address.number == 0:
            raise NotRecorded("internal error")
        await recorder.submit(each)

    outbox = Outbox(submit, counters)
    task = asyncio.create_task(outbox.run())
    await outbox.put(lease(0))
    for number in range(1, 2 * LANES * WAITING):
        await outbox.put(lease(number))
    await until(lambda: len(recorder.leases) == 2 * LANES * WAITING - 1, "all the others")
    assert counters["not_recorded"] > 0
    task.cancel()
