"""Keys that leave when their time has come."""

from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.policy.expiring import AHEAD, Expiring
from radius_bridge.policy.expiry import NEVER, is_over


def test_a_key_leaves_at_its_last_end_and_is_given_once() -> None:
    kept: Expiring[str] = Expiring()
    kept.put("a", 10)
    kept.put("a", 20)
    kept.put("b", NEVER)
    kept.put("c", 10)
    kept.drop("c")
    assert kept.expire(10) == []
    assert kept.soonest() == 20
    assert kept.expire(20) == ["a"]
    assert kept.expire(30) == []
    assert kept.soonest() is None
    assert kept.ends == {"b": NEVER}


def test_a_thousand_renewals_of_one_key_are_not_remembered() -> None:
    kept: Expiring[str] = Expiring()
    assert kept.expire(0) == []
    for end in range(1, 500):
        kept.put("a", end)
    assert len(kept._queue) < 100
    assert kept.expire(498) == []
    assert kept.expire(499) == ["a"]


def test_what_ends_late_is_in_no_queue() -> None:
    kept: Expiring[int] = Expiring()
    for key in range(100):
        kept.put(key, 10_000 + 100 * key)
    assert kept.expire(100) == []
    assert kept.soonest() == 10_000
    assert len(kept._queue) == 1
    assert kept.expire(10_000) == [0]
    assert kept.expire(10_001) == []
    assert len(kept._queue) == AHEAD / 100


ends = st.one_of(st.just(NEVER), st.integers(0, int(5 * AHEAD)))
puts = st.lists(st.tuples(st.integers(0, 200), ends))


@given(puts, st.lists(st.tuples(st.integers(0, int(6 * AHEAD)), puts)), st.booleans())
def test_what_is_left_is_what_is_not_over(
    first: list[tuple[int, int]], later: list[tuple[int, list[tuple[int, int]]]], asks: bool
) -> None:
    kept: Expiring[int] = Expiring()
    expected: dict[int, float] = {}
    for now, more in [(0, first), *sorted(later)]:
        over = {key for key, end in expected.items() if is_over(end, now)}
        assert set(kept.expire(now)) == over
        expected = {key: end for key, end in expected.items() if key not in over}
        for key, end in more:
            kept.put(key, end)
            expected[key] = end
        assert kept.ends == expected
        if asks:
            assert kept.soonest() == min((end for end in expected.values() if end >= 0), default=None)


@given(st.dictionaries(st.integers(0, 30), st.one_of(st.just(-1.0), st.floats(0, 100))), st.floats(0, 100))
def test_how_many_end_until_then_is_counted(ends: dict[int, float], until: float) -> None:
    expiring = Expiring[int]()
    for key, end in ends.items():
        expiring.put(key, until)  # an end that is of the past
        expiring.put(key, end)
    assert expiring.ending(until) == sum(0 <= end <= until for end in ends.values())
