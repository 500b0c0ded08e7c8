"""Records of the change feed: what a writer keeps in them, and how a follower reads them."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radius_bridge.registry.announcer import READ_ALL
from radius_bridge.registry.feed import (
    FRESH,
    KEPT_BYTES,
    LONGEST_VALUE,
    MAX_RECORD,
    STANDS,
    Change,
    Class,
    Log,
    brief_record,
    class_for,
    decode_record,
    is_abandoned,
    record_key,
)
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import MAX_BYTES, Entry, Op
from radius_bridge.registry.positions import Positions

KEYS = Keys()
NOW = 1_800_000_000.0
WRITER = record_key(KEYS, Class.BRIDGE, "w")


def member(number: int, value: bytes | None = b"1800003600", index: int = 5) -> Change:
    return Change(f"{KEYS.groups}$user.u{number}$/192.0.2.1", value, index)


def at(index: int, log: Log, now: float = NOW) -> list[Entry]:
    """The feed with the record of one writer."""
    return [Entry(WRITER, index, raw=log.record(now))]


@given(st.lists(st.tuples(st.text(), st.none() | st.binary(), st.integers(0, 1 << 60))))
def test_what_is_written_is_read(changes: list[tuple[str, bytes | None, int]]) -> None:
    pending = deque(Change(f"{KEYS.root}/{key}", value, index) for key, value, index in changes)
    log = Log(KEYS)
    assert log.add(pending, NOW) == len(changes)
    record = decode_record(log.record(NOW))
    assert (record.first, record.clock, record.brief) == (0, NOW, False)
    assert list(record.entries) == [
        (key, None if value is None else value.decode("utf-8", "replace"), index) for key, value, index in changes
    ]


@given(st.binary())
def test_what_is_no_record_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="no record"):
        decode_record(value)


@pytest.mark.parametrize("value", [b'{"first":-1,"clock":0}', b'{"first":0,"clock":0,"entries":[["a",null,-1]]}'])
def test_a_record_with_negative_numbers_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="negative"):
        decode_record(value)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 3)), max_size=12))
def test_a_record_never_outgrows_its_bounds_and_numbers_no_entry_twice(steps: list[tuple[int, float]]) -> None:
    log, now, written = Log(KEYS), NOW, 0
    for count, pause in steps:
        pending = deque(member(n) for n in range(count))
        while pending:
            fresh = log.add(pending, now)
            if log.crowded and not fresh:
                now += STANDS
                continue
            written += fresh
            record = decode_record(log.record(now))
            assert len(log.record(now)) <= MAX_RECORD
            assert record.first + len(record.entries) == written
            assert len(record.entries) >= fresh > 0
        now += pause


def test_under_load_only_what_is_fresh_stays() -> None:
    log = Log(KEYS)
    for step in range(50):
        log.add(deque(member(n) for n in range(100)), NOW + step * FRESH / 4)
    assert KEPT_BYTES < len(log.record(NOW)) <= KEPT_BYTES + 20000
    assert not log.crowded


def test_a_burst_waits_until_followers_have_had_the_time_to_read_the_one_before() -> None:
    log = Log(KEYS)
    pending = deque(member(n) for n in range(3000))
    first = log.add(pending, NOW)
    assert log.crowded
    assert log.add(pending, NOW + STANDS - 0.001) == 0
    assert log.crowded
    assert len(decode_record(log.record(NOW)).entries) == first
    assert log.add(pending, NOW + STANDS) == 3000 - first
    assert not log.crowded


def test_what_is_new_pushes_out_no_more_than_it_needs_room_for() -> None:
    log = Log(KEYS)
    log.add(deque(member(n) for n in range(1000)), NOW)
    log.add(deque(member(n) for n in range(1000)), NOW + STANDS)
    assert not log.crowded
    assert len(log.record(NOW)) > MAX_RECORD - 1000


@pytest.mark.parametrize(
    ("key", "writers"),
    [
        ("$alias$/$user.alice$/192.0.2.1", Class.BRIDGE),
        ("$alias$/$radius.vpn$/192.0.2.1", Class.BRIDGE),
        ("$alias$/$staff$/$user.alice$", Class.ENGINEER),
        ("$service$/dc1/ssh_tcp_22/$staff$", Class.ENGINEER),
        ("$ipset$/rules_deny/192.0.2.1", Class.ENGINEER),
        ("$binding$/192.0.2.1", Class.IDENTITY),
        ("$meta$", None),
        ("$lock$/sweeper", None),
        ("$changes$/access/bridge/x", None),
    ],
)
def test_each_key_may_be_named_by_one_class_at_most(key: str, writers: Class | None) -> None:
    assert class_for(KEYS, f"befw/{key}") is writers
    assert [each for each in Class if each.may_name(key)] == ([writers] if writers else [])
    assert [each for each in Class if each.concerns(key)] == ([writers] if writers else [])


def test_the_groups_as_a_whole_concern_both_classes_of_access() -> None:
    assert [each for each in Class if each.concerns("$alias$/")] == [Class.BRIDGE, Class.ENGINEER]


def test_the_first_look_brings_nothing_and_the_next_ones_only_what_is_new() -> None:
    log, positions = Log(KEYS), Positions(KEYS)
    log.add(deque([member(1)]), NOW)
    assert positions.read(at(10, log), NOW).changes == []
    log.add(deque([member(2)]), NOW)
    assert positions.read(at(11, log), NOW).changes == [member(2)]
    assert positions.read(at(11, log), NOW).changes == []


def test_a_new_writer_is_expected_to_begin_at_the_beginning() -> None:
    positions, log = Positions(KEYS), Log(KEYS)
    positions.read([], NOW)
    log.add(deque([member(1)]), NOW)
    news = positions.read(at(10, log), NOW)
    assert (news.changes, news.gaps) == ([member(1)], {})


def test_what_was_missed_is_a_gap_and_what_is_there_is_used() -> None:
    positions, log = Positions(KEYS), Log(KEYS)
    positions.read([], NOW)
    log.add(deque([member(1)]), NOW)
    log.trim()
    log.add(deque([member(2)]), NOW)
    news = positions.read(at(10, log), NOW)
    assert list(news.gaps) == [WRITER]
    assert news.changes == [member(2)]


def test_a_record_that_cannot_be_read_is_a_gap_now_and_when_it_can_be_read_again() -> None:
    positions, log = Positions(KEYS), Log(KEYS)
    positions.read([], NOW)
    assert list(positions.read([Entry(WRITER, 10, raw=b"?")], NOW).gaps) == [WRITER]
    assert positions.read([Entry(WRITER, 10, raw=b"?")], NOW).gaps == {}
    log.add(deque([member(1)]), NOW)
    assert list(positions.read(at(11, log), NOW).gaps) == [WRITER]


def test_what_our_own_record_says_is_no_news_and_no_gap() -> None:
    positions, log, others = Positions(KEYS), Log(KEYS), Log(KEYS)
    positions.read([], NOW)
    others.add(deque([member(9)]), NOW)
    log.add(deque([member(1)]), NOW)
    log.trim()
    log.add(deque([member(2)]), NOW)
    positions.read(at(10, log), NOW, WRITER)
    log.trim()
    log.add(deque([member(3)]), NOW)
    other = Entry(record_key(KEYS, Class.BRIDGE, "other"), 11, raw=others.record(NOW))
    news = positions.read([*at(11, log), other], NOW, WRITER)
    assert (news.changes, news.gaps) == ([member(9)], {})
    assert news.clocks.keys() == {WRITER, other.key}


def test_our_own_record_that_cannot_be_read_is_no_gap() -> None:
    positions = Positions(KEYS)
    positions.read([], NOW)
    assert positions.read([Entry(WRITER, 10, raw=b"?")], NOW, WRITER).gaps == {}


def test_our_own_record_of_a_new_life_still_says_that_all_is_to_be_read_again() -> None:
    positions, log = Positions(KEYS), Log(KEYS)
    positions.read([], NOW)
    log.add(deque([READ_ALL]), NOW)
    assert positions.read(at(10, log), NOW, WRITER).again


def test_index_0_is_that_of_the_record() -> None:
    positions = Positions(KEYS)
    positions.read([], NOW)
    record = brief_record(KEYS, [member(1, None, 0)], NOW)
    assert positions.read([Entry(WRITER, 10, raw=record)], NOW).changes == [member(1, None, 10)]


@pytest.mark.parametrize(
    ("record", "change"),
    [
        (WRITER, Change(f"{KEYS.services}ssh_tcp_22/192.0.2.1", b"-1", 5)),
        (record_key(KEYS, Class.ENGINEER, "w"), member(1)),
        (record_key(KEYS, Class.IDENTITY, "w"), member(1)),
        (WRITER, member(1, index=11)),
        (f"{KEYS.access_changes}other/w", member(1)),
    ],
)
def test_what_a_writer_may_not_say_is_discarded_with_an_alarm(record: str, change: Change) -> None:
    positions = Positions(KEYS)
    positions.read([], NOW)
    news = positions.read([Entry(record, 10, raw=brief_record(KEYS, [change], NOW))], NOW)
    assert news.changes == []
    assert len(news.forged) == 1


def test_an_older_record_than_before_means_that_consul_was_restored() -> None:
    positions, log = Positions(KEYS), Log(KEYS)
    log.add(deque([member(1)]), NOW)
    positions.read(at(10, log), NOW)
    assert positions.read(at(9, log), NOW).rewound


def test_so_does_a_young_record_that_is_gone_and_not_an_old_one() -> None:
    positions, log = Positions(KEYS), Log(KEYS)
    positions.read(at(10, log, NOW - 5), NOW)
    assert positions.read([], NOW).rewound
    positions.forget()
    positions.read(at(10, log, NOW - 500), NOW)
    assert not positions.read([], NOW).rewound


def test_a_writer_asks_everybody_to_read_again() -> None:
    positions = Positions(KEYS)
    positions.read([], NOW)
    news = positions.read([Entry(WRITER, 10, raw=brief_record(KEYS, [READ_ALL], NOW))], NOW)
    assert news.again
    assert not news.rewound


@pytest.mark.parametrize("value", [b"\0" * LONGEST_VALUE, b"\xff" * LONGEST_VALUE, b"\0" * (512 << 10)])
def test_whatever_somebody_stored_its_announcement_fits_into_a_transaction(value: bytes) -> None:
    positions, log = Positions(KEYS), Log(KEYS)
    positions.read([], NOW)
    log.add(deque([member(1, value)]), NOW)
    assert Op.cas(WRITER, log.record(NOW), 10).size <= MAX_BYTES
    assert Op.set(WRITER, brief_record(KEYS, [member(1, value)], NOW)).size <= MAX_BYTES
    news = positions.read(at(10, log), NOW)
    assert news.again == (len(value) > LONGEST_VALUE), "then everybody reads it himself"
    assert len(news.changes) == (not news.again)


def test_records_are_kept_as_long_as_followers_may_need_them() -> None:
    brief = decode_record(brief_record(KEYS, [member(1)], NOW))
    lasting = decode_record(Log(KEYS).record(NOW))
    assert not is_abandoned(brief, NOW + 59)
    assert is_abandoned(brief, NOW + 60)
    assert not is_abandoned(lasting, NOW + 599)
    assert is_abandoned(lasting, NOW + 600)
