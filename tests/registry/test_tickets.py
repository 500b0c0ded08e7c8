"""Where work waits: few full transactions, and each station's order kept."""

import time
from collections import Counter

import pytest

from radius_bridge.identity.events import Kind
from radius_bridge.registry.errors import NotRecorded
from radius_bridge.registry.tickets import FULL, SLOW, Lane, Tickets
from tests.registry.events import ADDRESS, event

NOW = 1_800_000_000.0


@pytest.fixture
def tickets() -> Tickets:
    return Tickets(4, 10.0, 10_000, Counter())


def submit(tickets: Tickets, *stations: str) -> None:
    for station in stations:
        tickets.submit(event(Kind.START, "alice", NOW, ADDRESS), station)


def waiting(tickets: Tickets) -> list[int]:
    return [len(lane.pending) for lane in tickets.lanes]


def fly(lane: Lane, since: float = 0.0) -> None:
    """All that waits in a lane is in its transaction now, and has been for `since` seconds."""
    lane.in_flight = len(lane.pending)
    lane.began = time.monotonic() - since


async def test_what_waits_fills_one_transaction_before_the_next(tickets: Tickets) -> None:
    submit(tickets, *(f"s{n}" for n in range(FULL + 1)))
    assert waiting(tickets) == [FULL, 1, 0, 0]
    assert [lane.full.is_set() for lane in tickets.lanes] == [True, False, False, False]


async def test_while_a_transaction_is_in_flight_the_next_one_gathers_behind_it(tickets: Tickets) -> None:
    submit(tickets, "a")
    fly(tickets.lanes[0])
    submit(tickets, *(f"s{n}" for n in range(FULL)))
    assert waiting(tickets) == [FULL + 1, 0, 0, 0]


async def test_nothing_waits_behind_a_slow_transaction_while_another_lane_is_free(tickets: Tickets) -> None:
    submit(tickets, "a")
    fly(tickets.lanes[0], SLOW)
    submit(tickets, "b", "a")
    assert waiting(tickets) == [2, 1, 0, 0], "but for what must keep its order"
    for lane in tickets.lanes[1:]:
        submit(tickets, f"of {id(lane)}")
        fly(lane, SLOW)
    submit(tickets, "c")
    assert len(tickets.lanes[0].pending) == 3, "all are slow"


async def test_when_all_are_full_one_after_the_other_takes_another_transaction(tickets: Tickets) -> None:
    submit(tickets, *(f"s{n}" for n in range(5 * FULL + 1)))
    assert waiting(tickets) == [2 * FULL, FULL + 1, FULL, FULL]


async def test_what_concerns_a_station_follows_what_waits_of_it(tickets: Tickets) -> None:
    submit(tickets, *(f"s{n}" for n in range(FULL)), "late", "s0", "late")
    first, second, *_ = tickets.lanes
    assert [ticket.station for ticket in first.pending][-1] == "s0"
    assert [ticket.station for ticket in second.pending] == ["late", "late"]
    for ticket in list(second.pending):
        second.remove(ticket)
    for ticket in list(first.pending):
        first.remove(ticket)
    submit(tickets, "late")
    assert waiting(tickets) == [1, 0, 0, 0], "nothing of it waits any more: it is free to go anywhere"


async def test_while_an_outcome_is_unknown_its_stations_stay_where_it_is_read_first(tickets: Tickets) -> None:
    submit(tickets, *(f"s{n}" for n in range(FULL)), "given up")
    second = tickets.lanes[1]
    second.doubtful = {"befw/$session$/nas/1"}
    tickets.abandon(second, next(iter(second.pending)), "overdue")
    submit(tickets, "given up")
    assert waiting(tickets) == [FULL, 1, 0, 0]
    second.clear_up()
    tickets.abandon(second, next(iter(second.pending)), "overdue")
    assert "given up" not in second


async def test_a_lane_in_trouble_gets_nothing_that_can_go_elsewhere(tickets: Tickets) -> None:
    submit(tickets, "a")
    tickets.lanes[0].failures = 1
    submit(tickets, "b", "a")
    assert waiting(tickets) == [2, 1, 0, 0]


async def test_what_is_given_up_tells_who_waits_for_it(tickets: Tickets) -> None:
    done = tickets.submit(event(Kind.START, "alice", NOW, ADDRESS), "a")
    tickets.give_up_all("shutting down")
    with pytest.raises(NotRecorded, match="shutting down"):
        await done


async def test_a_refresh_in_flight_has_not_seen_what_becomes_known_meanwhile(tickets: Tickets) -> None:
    tickets.refresh("ap1/1", "laptop")
    assert tickets.is_refreshing("ap1/1")
    (ticket,) = tickets.lanes[0].pending
    tickets.begin([ticket])
    assert not tickets.is_refreshing("ap1/1"), "another one may be queued behind it"
    tickets.begin_again([ticket])
    assert tickets.is_refreshing("ap1/1"), "it is built anew"
    tickets.give_up(ticket, "shutting down")
    assert not tickets.is_refreshing("ap1/1")
