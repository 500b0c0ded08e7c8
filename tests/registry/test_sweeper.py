from math import inf

import pytest

from radius_bridge.identity.bindings import EMPTY, RETENTION, apply
from radius_bridge.identity.events import Kind
from radius_bridge.registry.kv import Entry, Op
from radius_bridge.registry.records import encode
from radius_bridge.registry.sweeper import sweep_bindings, sweep_links
from tests.registry.events import ADDRESS, event

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


def test_a_binding_goes_when_no_late_packet_could_contradict_it() -> None:
    ended = apply(EMPTY, event(Kind.STOP, "alice", NOW, ADDRESS), NOW)
    entry = Entry("befw/$binding$/192.0.2.1", 9, raw=encode(ended))
    assert sweep_bindings([entry], NOW + RETENTION - 1).over == []
    assert sweep_bindings([entry], NOW + RETENTION).over == [Op.delete_cas(entry.key, 9)]


def test_an_unreadable_binding_is_left_to_the_next_event_and_counted() -> None:
    sweep = sweep_bindings([Entry("befw/$binding$/192.0.2.1", 9, raw=b"?")], NOW)
    assert (sweep.over, sweep.unreadable) == ([], 1)
