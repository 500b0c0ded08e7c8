"""Requests that come twice (RFC 5080 §2.2.2)."""

from radius_bridge.radius.duplicates import KEEP, Duplicates, Seen

KEY = (b"192.0.2.1 40000", 7)
FIRST, SECOND = b"1" * 16, b"2" * 16


def test_a_response_is_kept_for_5_to_30_seconds_rfc_5080_2_2_2() -> None:
    assert 5 <= KEEP <= 30


def test_a_request_is_new_then_in_progress_then_answered_from_the_cache() -> None:
    cache = Duplicates(keep=10)
    assert cache.begin(KEY, FIRST, 0) is Seen.NEW
    assert cache.begin(KEY, FIRST, 1) is Seen.IN_PROGRESS
    assert cache.answer(KEY, FIRST, b"response", 2)
    assert cache.begin(KEY, FIRST, 11.9) == b"response"
    assert cache.begin(KEY, FIRST, 12) is Seen.NEW


def test_other_ports_and_identifiers_are_other_requests() -> None:
    cache = Duplicates()
    assert cache.begin(KEY, FIRST, 0) is Seen.NEW
    assert cache.begin((b"192.0.2.1 40001", 7), FIRST, 0) is Seen.NEW
    assert cache.begin((b"192.0.2.1 40000", 8), FIRST, 0) is Seen.NEW
    assert cache.begin((b"192.0.2.2 40000", 7), FIRST, 0) is Seen.NEW


def test_another_authenticator_under_the_same_identifier_replaces_an_answered_request() -> None:
    cache = Duplicates()
    cache.begin(KEY, FIRST, 0)
    cache.answer(KEY, FIRST, b"response", 0)
    assert cache.begin(KEY, SECOND, 1) is Seen.NEW
    assert cache.begin(KEY, SECOND, 1) is Seen.IN_PROGRESS
    assert cache.answer(KEY, SECOND, b"other", 2)
    assert cache.begin(KEY, SECOND, 3) == b"other"
    assert cache.begin(KEY, FIRST, 3) is Seen.NEW


def test_a_request_replaced_while_in_progress_gets_no_response() -> None:
    cache = Duplicates()
    cache.begin(KEY, FIRST, 0)
    assert cache.begin(KEY, SECOND, 1) is Seen.NEW
    assert not cache.answer(KEY, FIRST, b"late", 2)
    assert cache.begin(KEY, SECOND, 2) is Seen.IN_PROGRESS


def test_a_forgotten_request_is_new_again() -> None:
    cache = Duplicates()
    cache.begin(KEY, FIRST, 0)
    assert cache.forget(KEY, FIRST)
    assert not cache.forget(KEY, FIRST)
    assert cache.begin(KEY, FIRST, 0) is Seen.NEW


def test_it_never_keeps_more_than_its_limit_and_counts_what_it_gives_up() -> None:
    cache = Duplicates(keep=10, limit=3)
    for identifier in range(5):
        key = (b"192.0.2.1 40000", identifier)
        cache.begin(key, FIRST, 0)
        cache.answer(key, FIRST, b"response", 0)
    assert len(cache) == 3
    assert cache.evicted == 2
    assert cache.begin((b"192.0.2.1 40000", 4), FIRST, 1) == b"response"
    assert cache.begin((b"192.0.2.1 40000", 0), FIRST, 1) is Seen.NEW


def test_what_is_over_leaves() -> None:
    cache = Duplicates(keep=10)
    for identifier in range(5):
        key = (b"192.0.2.1 40000", identifier)
        cache.begin(key, FIRST, identifier)
        cache.answer(key, FIRST, b"response", identifier)
    assert cache.begin(KEY, FIRST, 12) is Seen.NEW
    assert len(cache) == 3  # two answered, one in progress
