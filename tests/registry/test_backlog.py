"""What waits to be copied: keys and when, never values."""

from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.registry.backlog import Backlog, present
from radius_bridge.registry.feed import LONGEST_VALUE
from radius_bridge.registry.kv import MAX_BYTES, Op


def test_what_is_over_is_to_be_gone_and_what_is_no_expiry_is_copied_as_it_is() -> None:
    assert present(None, 100) is None
    assert present(b"100", 100) is None
    assert present(b"101", 100) == b"101"
    assert present(b"-1", 100) == b"-1"
    assert present(b"garbage", 100) == b"garbage"


def test_what_no_transaction_could_carry_is_not_copied() -> None:
    largest = present(b"\0" * LONGEST_VALUE, 100)
    assert largest is not None
    assert Op.set("key", largest).size <= MAX_BYTES
    assert present(b"\0" * (LONGEST_VALUE + 1), 100) is None


def test_the_oldest_comes_first_and_keeps_its_moment() -> None:
    backlog = Backlog()
    for moment, key in enumerate(["a", "b", "a", "c"]):
        backlog.mark(key, moment)
    assert backlog.waiting(10) == 10
    assert backlog.take(2) == ["a", "b"]
    assert backlog.waiting(10) == 10, "until it is copied"
    backlog.settle(2)
    assert backlog.waiting(10) == 7
    assert backlog.take(2) == ["c"]
    backlog.settle(1)
    assert backlog.waiting(10) == 0


def test_what_was_taken_and_not_copied_comes_first_again_with_its_first_moment() -> None:
    backlog = Backlog()
    backlog.mark("a", 1)
    backlog.take(5)
    backlog.mark("b", 2)
    backlog.mark("a", 3)
    backlog.settle(0)
    assert backlog.waiting(3) == 2
    assert backlog.take(5) == ["a", "b"]


def test_too_much_forgets_all_and_asks_for_a_comparison() -> None:
    backlog = Backlog(limit=2)
    backlog.mark("x", 0)
    backlog.take(1)
    for key in "abcd":
        backlog.mark(key, 0)
    assert backlog.overflowed
    backlog.settle(0)
    assert len(backlog) == 0
    backlog.begin_again()
    backlog.mark("e", 0)
    assert backlog.take(1) == ["e"]
    assert [backlog.overflowed] == [False]


def test_what_a_comparison_finds_fits_and_leaves_room_for_what_changes_meanwhile() -> None:
    backlog = Backlog(limit=2)
    backlog.begin_again()
    backlog.expect(3)
    for key in "abcde":
        backlog.mark(key, 0)
    assert len(backlog) == 5
    backlog.mark("f", 0)
    assert len(backlog) == 0
    backlog.begin_again()
    for key in "abc":
        backlog.mark(key, 0)
    assert len(backlog) == 0, "without a comparison the limit is the old one"


@given(st.lists(st.tuples(st.sampled_from(["mark", "take", "fail"]), st.integers(0, 9))))
def test_nothing_marked_is_ever_lost(steps: list[tuple[str, int]]) -> None:
    backlog, outstanding = Backlog(), set[str]()
    for what, number in steps:
        if what == "mark":
            backlog.mark(str(number), number)
            outstanding.add(str(number))
        else:
            taken = backlog.take(number)
            copied = 0 if what == "fail" else len(taken)
            backlog.settle(copied)
            outstanding -= set(taken[:copied])
    assert set(backlog.take(100)) == outstanding
