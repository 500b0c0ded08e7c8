"""Lanes against faults that a real Consul cannot be made to show at a given moment."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radius_bridge.identity import engine
from radius_bridge.identity.bindings import Binding, Claim
from radius_bridge.identity.events import Event, Kind, Lease
from radius_bridge.identity.sessions import MAX_ADDRESSES
from radius_bridge.policy.expiry import format_expiry
from radius_bridge.policy.members import Prefix, user_group
from radius_bridge.registry import announcer as announcer_module
from radius_bridge.registry import lanes as lanes_module
from radius_bridge.registry import pages as pages_module
from radius_bridge.registry.errors import NotRecorded
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Entry, Op
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.records import Restarted, decode_binding, decode_session, encode
from tests.registry.events import ADDRESS, OTHER, event
from tests.registry.fake_consul import FakeConsul, Fault

KEYS = Keys()
NOW = 1_800_000_000.0
MAC = "02:00:00:00:00:01"
ALICE = "befw/$alias$/$user.alice$/192.0.2.1"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "BACKOFF", (0.001, 0.01))
    monkeypatch.setattr(announcer_module, "BACKOFF", (0.001, 0.01))
    monkeypatch.setattr(announcer_module, "FIRST_INTERVAL", 0.001)
    for module in (announcer_module, pages_module):
        monkeypatch.setattr(module, "QUIET", 0.001)  # which a writer that ends gives its followers, too


def make_lanes(consul: FakeConsul, **options: float) -> Lanes:
    return Lanes(consul, KEYS, clock=lambda: NOW, **options)  # type: ignore[arg-type]  # ints are floats here


async def test_an_answer_lost_after_the_commit_is_found_out_and_not_repeated() -> None:
    faults = iter([Fault.ANSWER_LOST])
    consul = FakeConsul(lambda: next(faults, Fault.NONE))
    async with make_lanes(consul) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
    assert consul.store[ALICE].value == b"1800003600"
    assert consul.store[ALICE].modify_index == 1, "it was not written twice"
    assert lanes.counters["committed"] == 1


async def test_a_request_that_arrives_after_it_was_given_up_changes_nothing_that_came_later() -> None:
    faults = iter([Fault.LATE])
    consul = FakeConsul(lambda: next(faults, Fault.NONE))
    async with make_lanes(consul) as lanes:
        await asyncio.gather(
            lanes.submit(event(Kind.START, "alice", NOW, ADDRESS)),
            lanes.submit(event(Kind.STOP, "alice", NOW + 1, ADDRESS)),
        )
    assert ALICE not in consul.store


async def test_what_cannot_be_committed_in_time_is_not_recorded() -> None:
    consul = FakeConsul(lambda: Fault.REQUEST_LOST)
    async with make_lanes(consul, patience=0.05) as lanes:
        with pytest.raises(NotRecorded, match=r"0\.05 s"):
            await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
    assert lanes.counters["not_recorded"] == 1
    assert lanes.known.session("nas/alice") is None, "nothing is kept of what failed"


async def test_a_full_queue_refuses_at_once() -> None:
    lanes = make_lanes(FakeConsul(), queue_limit=1)
    first = lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
    with pytest.raises(NotRecorded, match="full"):
        await lanes.submit(event(Kind.START, "bob", NOW, OTHER))
    assert lanes.counters["overflow"] == 1
    async with lanes:
        await first


async def test_closing_fails_what_is_not_committed_and_takes_nothing_more() -> None:
    lanes = make_lanes(FakeConsul())
    waiting = lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
    await lanes.close()
    with pytest.raises(NotRecorded, match="shutting down"):
        await waiting
    with pytest.raises(NotRecorded, match="shutting down"):
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))


async def test_draining_waits_for_what_was_submitted() -> None:
    async with make_lanes(FakeConsul()) as lanes:
        futures = [lanes.submit(event(Kind.START, f"u{n}", NOW, Prefix(4, n, 32))) for n in range(500)]
        assert await lanes.drain(5)
        assert all(future.done() for future in futures)


async def test_the_events_of_one_address_are_made_into_one_change() -> None:
    consul = FakeConsul()
    lanes = make_lanes(consul)
    futures = [lanes.submit(event(Kind.START, "alice", NOW + 1000 * n, ADDRESS)) for n in range(100)]
    async with lanes:
        await asyncio.gather(*futures)
    assert consul.sizes == [3]
    assert consul.store[ALICE].value == b"1800102600"


async def test_many_logins_at_once_fill_transactions() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        await lanes.submit(event(Kind.START, "first", NOW, Prefix(4, 999, 32)))
        await asyncio.gather(*(lanes.submit(event(Kind.START, f"u{n}", NOW, Prefix(4, n, 32))) for n in range(210)))
    assert consul.sizes == [3] + [63] * 10


async def test_under_load_logins_gather_into_one_transaction() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        await lanes.submit(event(Kind.START, "first", NOW, OTHER))
        lanes._interval = 0.1  # since that one, which another lane may have begun
        futures = []
        for n in range(10):
            futures.append(lanes.submit(event(Kind.START, f"u{n}", NOW, Prefix(4, n, 32))))
            await asyncio.sleep(0)
        await asyncio.gather(*futures)
    assert consul.sizes == [3, 30]


async def test_a_login_alone_waits_for_no_timer() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        done = lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        for _ in range(20):
            await asyncio.sleep(0)
        assert done.done()


async def test_a_stop_that_names_no_address_ends_what_its_session_claimed_even_a_moment_ago() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        start = lanes.submit(event(Kind.START, "alice", NOW, ADDRESS, OTHER))
        stop = lanes.submit(event(Kind.STOP, "alice", NOW + 1))
        await asyncio.gather(start, stop)
    assert not [key for key in consul.store if key.startswith(KEYS.groups)]


async def test_a_stop_that_names_one_address_ends_its_session_on_the_others_too() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS, OTHER))
        await lanes.submit(event(Kind.STOP, "alice", NOW + 1, ADDRESS))
    assert not [key for key in consul.store if key.startswith(KEYS.groups)]


async def test_leases_beyond_those_that_a_session_may_have_are_counted_and_it_comes_to_rest() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW - 50, mac=MAC))
        for number in range(1, 11):
            await lanes.submit_lease(Lease(Prefix(4, number, 32), MAC, NOW - number, NOW + 600, "kea"))
        members = [key for key in consul.store if key.startswith(KEYS.groups)]
        assert len(members) == MAX_ADDRESSES
        assert lanes.counters["leases_left_out"] >= 1
        written = lanes.counters["operations"]
        await lanes.submit(event(Kind.START, "alice", NOW - 50, mac=MAC))
        assert lanes.counters["operations"] <= written + 2, "no more than checks"


async def test_a_stop_of_an_unknown_session_leaves_a_record_so_that_its_late_start_revives_nothing() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        await lanes.submit(event(Kind.STOP, "alice", NOW))
        assert lanes.counters["unknown_stops"] == 1
        await lanes.submit(event(Kind.START, "alice", NOW - 5, ADDRESS))
    assert not [key for key in consul.store if key.startswith(KEYS.groups)]


async def test_a_restart_of_a_nas_without_a_name_is_learnt_from_another_bridge_and_lets_nothing_late_in() -> None:
    consul = FakeConsul()
    key = KEYS.restart("127.0.0.1", "")
    consul.commit([Op.set(key, encode(Restarted(NOW, NOW)))])
    async with make_lanes(consul) as lanes:
        lanes.learn([Entry(KEYS.restarts, 1), consul.store[key]])
        await lanes.submit(event(Kind.INTERIM, "alice", NOW - 1, ADDRESS))
    assert ALICE not in consul.store, "its session was over before"
    assert lanes.counters["bad_records"] == 0, "a folder that is a key says nothing"


async def test_an_unreadable_record_is_replaced_and_the_event_is_kept() -> None:
    consul = FakeConsul()
    key = KEYS.binding(ADDRESS)
    consul.index = 7
    consul.store[key] = Entry(key, 7, raw=b"not a record")
    async with make_lanes(consul) as lanes:
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
    assert decode_binding(key, consul.store[key].value).holding(NOW).user == "alice"
    assert lanes.counters["bad_records"] == 1


async def test_a_fault_of_ours_costs_the_event_and_not_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with make_lanes(FakeConsul()) as lanes:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "take_event", broken)
            with pytest.raises(NotRecorded, match="internal error"):
                await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
    assert lanes.counters["faults"] == 1


async def test_a_lane_or_an_announcer_that_dies_is_not_lost_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def faulty(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(announcer_module.Announcer, "_write", faulty)
    async with make_lanes(FakeConsul()) as lanes:
        watching = asyncio.create_task(lanes.watch())
        await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(watching, 5)


async def test_a_caller_who_went_away_disturbs_nobody() -> None:
    consul = FakeConsul()
    lanes = make_lanes(consul)
    lanes.submit(event(Kind.START, "alice", NOW, ADDRESS)).cancel()
    other = lanes.submit(event(Kind.START, "bob", NOW, OTHER))
    async with lanes:
        await other
        await lanes.drain(1)
    assert ALICE in consul.store


USERS = ("alice", "bob", "carol")
ADDRESSES = (ADDRESS, OTHER)

steps = st.lists(
    st.tuples(
        st.sampled_from(list(Kind)),
        st.sampled_from(USERS),
        st.sampled_from(ADDRESSES),
        st.integers(0, 20),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps, seed=st.integers(0, 1000))
def test_whatever_fails_two_bridges_keep_bindings_and_groups_in_step_and_lose_nothing_answered(
    steps: list[tuple[Kind, str, Prefix, int, bool]], seed: int
) -> None:
    asyncio.run(_two_bridges(steps, random.Random(seed)))


async def _two_bridges(steps: list[tuple[Kind, str, Prefix, int, bool]], dice: random.Random) -> None:
    consul = FakeConsul(lambda: dice.choices(list(Fault), (6, 1, 1, 1))[0])
    answered: list[tuple[Event, Prefix]] = []
    async with make_lanes(consul, count=2) as first, make_lanes(consul, count=2) as second:
        futures = []
        for kind, user, address, offset, by_first in steps:
            each = event(kind, user, NOW + 1000 * offset, address)  # so far apart that each is worth writing
            futures.append((each, address, (first if by_first else second).submit(each)))
            if dice.random() < 0.3:
                await asyncio.sleep(0)
        for each, address, future in futures:
            await future
            answered.append((each, address))
    holdings = {
        address: decode_binding(key, consul.store[key].value).holding(NOW)
        for address in ADDRESSES
        if (key := KEYS.binding(address)) in consul.store
    }
    members = {key: entry.value for key, entry in consul.store.items() if key.startswith(KEYS.groups)}
    assert members == {
        KEYS.group_member(user_group(holding.user), address): format_expiry(holding.expires)
        for address, holding in holdings.items()
        if holding.user
    }
    for each, _ in answered:
        key = KEYS.session(each.session)
        session = decode_session(key, consul.store[key].value)
        assert session.at >= each.at
        if session.at == each.at and each.kind is Kind.STOP:
            assert session.end


async def test_a_change_that_fits_into_no_transaction_costs_its_event_and_freezes_nothing() -> None:
    consul = FakeConsul()
    many = {
        f"nas/{number}": Claim(
            "alice", NOW, NOW, NOW + 9000, NOW + 9000, groups=tuple(f"radius.g{number}-{each}" for each in range(3))
        )
        for number in range(30)
    }
    consul.commit([Op.set(KEYS.binding(ADDRESS), encode(Binding(many)))])
    async with make_lanes(consul, count=1) as lanes:
        lanes.learn(consul.store.values())
        late = lanes.submit(event(Kind.START, "bob", NOW + 1, ADDRESS))
        await asyncio.wait_for(lanes.submit(event(Kind.START, "carol", NOW + 1, OTHER)), 20)
        with pytest.raises(NotRecorded):
            await late
        assert lanes.counters["faults"] == 1
