"""Views: an entry counts if it is newer than what is known, whatever the order things arrive in."""

import pytest

from radius_bridge.registry.feed import Change
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.view import Changed, View

FOLDER = "befw/$service$/ssh_tcp_22/"
KEY = f"{FOLDER}192.0.2.1"


@pytest.fixture
def view() -> View:
    """Covers the folder, read at index 10 with nothing in it."""
    view = View()
    view.cover(FOLDER)
    view.begin(FOLDER)
    view.complete(FOLDER, 10, [])
    return view


def test_only_what_is_covered_is_kept(view: View) -> None:
    assert view.apply(Change("befw/$service$/www_tcp_80/192.0.2.1", b"1", 11)) == []
    assert view.apply(Change(KEY, b"1", 11)) == [Changed(KEY, None, b"1")]
    assert view.get(KEY) == b"1"


def test_a_prefix_ends_with_a_slash(view: View) -> None:
    with pytest.raises(ValueError, match="slash"):
        view.cover("befw/$alias$/$user.")


@pytest.mark.parametrize("index", [9, 10])
def test_what_is_not_newer_than_the_read_changes_nothing(view: View, index: int) -> None:
    assert view.apply(Change(KEY, b"1", index)) == []


def test_a_slow_writer_does_not_put_back_what_is_gone(view: View) -> None:
    view.apply(Change(KEY, None, 12))
    assert view.apply(Change(KEY, b"1", 11)) == []
    assert view.get(KEY) is None


def test_the_same_again_is_no_change(view: View) -> None:
    view.apply(Change(KEY, b"1", 11))
    assert view.apply(Change(KEY, b"1", 12)) == []
    assert view.index(KEY) == 12


def test_a_read_replaces_everything_and_tells_what_changed(view: View) -> None:
    view.apply(Change(KEY, b"1", 11))
    view.begin(FOLDER)
    assert view.complete(FOLDER, 12, [Entry(f"{FOLDER}b", 12, raw=b"2")]) == [
        Changed(f"{FOLDER}b", None, b"2"),
        Changed(KEY, b"1", None),
    ]


def test_what_a_read_finds_unchanged_stays_where_it_is_in_memory(view: View) -> None:
    view.apply(Change(KEY, b"1234567890", 11))
    known = view.get(KEY)
    view.begin(FOLDER)
    assert view.complete(FOLDER, 12, [Entry(KEY, 11, raw=bytes(bytearray(b"1234567890")))]) == []
    assert view.get(KEY) is known


def test_members_that_end_at_the_same_time_share_one_value(view: View) -> None:
    view.begin(FOLDER)
    view.complete(FOLDER, 12, [Entry(f"{FOLDER}{each}", 11, raw=bytes(bytearray(b"1234567890"))) for each in "ab"])
    assert view.get(f"{FOLDER}a") is view.get(f"{FOLDER}b")


def test_a_key_that_is_listed_twice_hides_none_that_is_gone(view: View) -> None:
    view.apply(Change(KEY, b"1", 11))
    other = f"{FOLDER}b"
    view.apply(Change(other, b"2", 11))
    view.begin(FOLDER)
    assert view.complete(FOLDER, 12, [Entry(other, 11, raw=b"2")] * 2) == [Changed(KEY, b"1", None)]


def test_what_is_heard_while_a_read_is_under_way_is_laid_over_it(view: View) -> None:
    view.begin(FOLDER)
    view.apply(Change(KEY, b"1", 13))
    assert view.complete(FOLDER, 12, []) == []
    assert view.get(KEY) == b"1"


def test_after_a_restore_everything_stays_until_it_is_read_and_nothing_is_added(view: View) -> None:
    view.apply(Change(KEY, b"1", 11))
    view.rewind()
    other = f"{FOLDER}b"
    assert view.apply(Change(other, b"2", 12)) == []
    assert view.get(KEY) == b"1"
    assert view.incomplete == {FOLDER}
    view.begin(FOLDER)
    assert view.complete(FOLDER, 5, []) == [Changed(KEY, b"1", None), Changed(other, None, b"2")]


def test_a_read_that_was_asked_for_before_the_restore_is_too_old(view: View) -> None:
    view.begin(FOLDER)
    view.rewind()
    assert view.complete(FOLDER, 12, [Entry(KEY, 11, raw=b"1")]) == []
    assert not view.is_complete(FOLDER)


def test_uncovering_gives_back_what_was_known(view: View) -> None:
    view.apply(Change(KEY, b"1", 11))
    assert view.uncover(FOLDER) == [Changed(KEY, b"1", None)]
    assert view.uncover(FOLDER) == []
    assert view.get(KEY) is None
