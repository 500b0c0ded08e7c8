"""Keys that leave when their time has come."""

from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.policy.expiring import Expiring
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
    for end in range(1000):
        kept.put("a", end)
    assert len(kept._queue) < 100
    assert kept.expire(998) == []
    assert kept.expire(999) == ["a"]


ends = st.one_of(st.just(NEVER), st.integers(0, 50))


@given(st.lists(st.tuples(st.integers(0, 200), ends)), st.lists(st.integers(0, 60)))
def test_what_is_left_is_what_is_not_over(puts: list[tuple[int, int]], times: list[int]) -> None:
    kept: Expiring[int] = Expiring()
    expected: dict[int, float] = {}
    for key, end in puts:
        kept.put(key, end)
        expected[key] = end
    for now in sorted(times):
        over = {key for key, end in expected.items() if is_over(end, now)}
        assert set(kept.expire(now)) == over
        expected = {key: end for key, end in expected.items() if key not in over}
        assert kept.ends == expected
        assert kept.soonest() == min((end for end in expected.values() if end >= 0), default=None)


@given(st.dictionaries(st.integers(0, 30), st.one_of(st.just(-1.0), st.floats(0, 100))), st.floats(0, 100))
def test_how_many_end_until_then_is_counted(ends: dict[int, float], until: float) -> None:
    expiring = Expiring[int]()
    for key, end in ends.items():
        expiring.put(key, until)  # an end that is of the past
        expiring.put(key, end)
    assert expiring.ending(until) == sum(0 <= end <= until for end in ends.values())
