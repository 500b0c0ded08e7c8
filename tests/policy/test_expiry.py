"""Ends of things: what counts as an expiry, and how durations are typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.policy.expiry import (
    NEVER,
    earliest,
    format_duration,
    format_expiry,
    is_over,
    latest,
    parse_duration,
    parse_expiry,
)

expiries = st.one_of(st.just(NEVER), st.integers(0, 1 << 40))


@pytest.mark.parametrize(
    ("value", "expiry"),
    [(b"1800000000", 1_800_000_000), (b"-1", NEVER), (b"-77", NEVER), (b" 5\n", 5), (b"0", 0)],
)
def test_epoch_seconds_and_negative_for_never(value: bytes, expiry: int) -> None:
    assert parse_expiry(value) == expiry


@pytest.mark.parametrize(
    "value", [b"", b"soon", b"1.5", b"1e9", b"\xff", b"--1", b"+1", b"9" * 17, b"1 2", "٣".encode()]
)
def test_anything_else_is_no_expiry(value: bytes) -> None:
    assert parse_expiry(value) is None


@given(expiries)
def test_what_is_written_is_read_back(expires: int) -> None:
    assert parse_expiry(format_expiry(expires)) == expires


def test_a_fraction_never_lengthens() -> None:
    assert format_expiry(9.99) == b"9"


@given(expiries, expiries)
def test_a_chain_ends_with_its_first_link_and_two_ways_with_the_last(a: int, b: int) -> None:
    for now in (0, a, b, max(a, b) + 1):
        assert is_over(earliest(a, b), now) == (is_over(a, now) or is_over(b, now))
        assert is_over(latest(a, b), now) == (is_over(a, now) and is_over(b, now))


def test_never_is_never_over() -> None:
    assert not is_over(NEVER, 1e12)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("45s", 45), ("30m", 1800), ("8h", 28800), ("1h30m", 5400)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "h", "1.5h", "8 h", "99999w", "eight", "٣"])
def test_what_is_no_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(1, 10**8))
def test_a_formatted_duration_is_never_longer_than_it_was(seconds: int) -> None:
    assert 0 < parse_duration(format_duration(seconds)) <= seconds
