"""How often a follower asks."""

from itertools import accumulate, repeat

from radius_bridge.registry.feed import FRESH
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.poll import FEW, PAUSE, SKEW, Poll, next_pause
from radius_bridge.registry.positions import News
from tests.registry.fake_consul import FakeConsul


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
        poll._note(news)
    assert len(poll.alarms) == poll.counters["skewed"] == 2
