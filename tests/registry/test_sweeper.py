from math import inf

import pytest

from radius_bridge.identity.bindings import Binding, Claim
from radius_bridge.identity.sessions import RETENTION, Session
from radius_bridge.registry import hosts
from radius_bridge.registry.hosts import HostRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Entry, Op
from radius_bridge.registry.records import Restarted, encode
from radius_bridge.registry.sweeper import sweep_links, sweep_records

NOW = 1_800_000_000.0


def test_what_has_expired_goes_unless_it_changes_meanwhile() -> None:
    entries = [
        Entry("over", 3, raw=b"1799999999"),
        Entry("now", 4, raw=b"1800000000"),
        Entry("on", 5, raw=b"1800000001"),
    ]
    sweep = sweep_links(entries, NOW)
    assert sweep.over == [Op.delete_cas("over", 3), Op.delete_cas("now", 4)]
    assert sweep.next_due == NOW + 1


def test_what_has_no_end_stays() -> None:
    assert sweep_links([Entry("never", 3, raw=b"-1")], NOW).over == []
    assert sweep_links([Entry("never", 3, raw=b"-1")], NOW).next_due == inf


@pytest.mark.parametrize("value", [None, b"", b"soon", b"1e9", b"\xff", b"99999999999999999999"])
def test_a_value_that_is_no_expiry_is_left_alone_and_counted(value: bytes | None) -> None:
    sweep = sweep_links([Entry("odd", 3, raw=value)], NOW)
    assert (sweep.over, sweep.unreadable) == ([], 1)


KEYS = Keys()


@pytest.mark.parametrize(
    ("key", "record"),
    [
        (KEYS.binding("192.0.2.1"), Binding({"nas/1": Claim("alice", NOW - 60, NOW, NOW + 60, NOW + 60, ended=NOW)})),
        (KEYS.binding("192.0.2.1"), Binding({"nas/1": Claim("alice", NOW - 60, NOW, NOW, NOW)})),
        (KEYS.session("nas/1"), Session("alice", NOW, NOW, NOW, NOW, "campus", 60, 600, ended=NOW)),
        (KEYS.session("nas/1"), Session("alice", NOW - 600, NOW - 600, NOW - 600, NOW - 600, "campus", 60, 600)),
        (KEYS.restart("campus", "nas"), Restarted(NOW, NOW)),
    ],
)
def test_a_record_goes_when_no_late_packet_could_contradict_it(key: str, record: Binding | Session | Restarted) -> None:
    entry = Entry(key, 9, raw=encode(record))
    assert sweep_records(KEYS, [entry], NOW + RETENTION - 1).over == []
    assert sweep_records(KEYS, [entry], NOW + RETENTION).over == [Op.delete_cas(key, 9)]


def test_a_host_is_forgotten_two_days_after_its_last_word() -> None:
    entry = Entry(KEYS.host("web1"), 9, raw=hosts.encode(HostRecord(NOW, "dc1", "consul")))
    assert sweep_records(KEYS, [entry], NOW + 2 * 86400 - 1).over == []
    assert sweep_records(KEYS, [entry], NOW + 2 * 86400).over == [Op.delete_cas(KEYS.host("web1"), 9)]


def test_a_bridge_under_a_name_that_is_used_no_more_is_forgotten_likewise() -> None:
    entry = Entry(KEYS.health("bridge-7f9c"), 9, raw=b"%d" % NOW)
    assert sweep_records(KEYS, [entry], NOW + 2 * 86400 - 1).over == []
    assert sweep_records(KEYS, [entry], NOW + 2 * 86400).over == [Op.delete_cas(entry.key, 9)]


@pytest.mark.parametrize(
    "key",
    [
        KEYS.binding("192.0.2.1"),
        KEYS.session("nas/1"),
        KEYS.restart("campus", "nas"),
        KEYS.host("web1"),
        KEYS.health("a"),
    ],
)
def test_an_unreadable_record_is_left_to_the_next_event_and_counted(key: str) -> None:
    sweep = sweep_records(KEYS, [Entry(key, 9, raw=b"?")], NOW)
    assert (sweep.over, sweep.unreadable) == ([], 1)
