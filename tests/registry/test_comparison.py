from collections.abc import Mapping

import pytest

from radius_bridge.registry.announcer import READ_ALL
from radius_bridge.registry.comparison import Comparison
from radius_bridge.registry.feed import Change, Class
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.view import View

ROOT, FOLDER = "befw/", "befw/$alias$/"
ALICE, STAFF = f"{FOLDER}$user.alice$/192.0.2.1", f"{FOLDER}$staff$/$user.alice$"
NOW = 1_800_000_000.0
BOTH = {Class.BRIDGE: 10, Class.ENGINEER: 10}


@pytest.fixture
def view() -> View:
    """What was read at index 10."""
    view = View()
    view.cover(FOLDER)
    view.begin(FOLDER)
    view.complete(FOLDER, 10, [Entry(ALICE, 9, raw=b"-1"), Entry(STAFF, 10, raw=b"-1")])
    return view


def comparison(view: View, since: Mapping[Class, int] = BOTH, index: int = 12) -> Comparison:
    made = Comparison(view, ROOT, FOLDER, since, NOW)
    made.index = index
    return made


def test_what_everybody_knows_is_no_news(view: View) -> None:
    compared = comparison(view)
    compared.look([Entry(ALICE, 9, raw=b"-1"), Entry(STAFF, 10, raw=b"-1")])
    compared.look_for([ALICE, STAFF], {ALICE, STAFF})
    assert compared.settle() == {Class.BRIDGE: [], Class.ENGINEER: []}
    assert compared.done(Class.BRIDGE) == 12


def test_each_class_hears_what_its_writers_may_name(view: View) -> None:
    compared = comparison(view)
    compared.look([Entry(ALICE, 11, raw=b"1900000000"), Entry(STAFF, 12, raw=b"1900000000")])
    assert compared.settle() == {
        Class.BRIDGE: [Change(ALICE, b"1900000000", 11)],
        Class.ENGINEER: [Change(STAFF, b"1900000000", 12)],
    }


def test_what_its_writer_announces_meanwhile_is_left_to_him(view: View) -> None:
    compared = comparison(view)
    compared.look([Entry(ALICE, 11, raw=b"1900000000")])
    compared.look_for([STAFF], {ALICE})
    view.apply(Change(ALICE, b"1900000000", 11))
    view.apply(Change(STAFF, None, 12))
    assert compared.settle() == {Class.BRIDGE: [], Class.ENGINEER: []}


def test_what_is_gone_is_told_as_of_the_listing(view: View) -> None:
    compared = comparison(view)
    compared.look_for([ALICE, STAFF], {STAFF})
    assert compared.settle()[Class.BRIDGE] == [Change(ALICE, None, 12)]


def test_what_is_gone_because_its_time_was_over_is_no_news(view: View) -> None:
    view.apply(Change(ALICE, b"1799999999", 11))
    compared = comparison(view)
    compared.look_for([ALICE], set())
    assert compared.settle()[Class.BRIDGE] == []
    assert view.get(ALICE) is None


def test_what_changed_while_it_was_read_waits_for_the_next_reading(view: View) -> None:
    compared = comparison(view)
    view.apply(Change(ALICE, b"1900000000", 13))
    compared.note([ALICE])
    compared.look([Entry(ALICE, 11, raw=b"-1")])
    compared.look_for([ALICE], set())
    assert compared.settle()[Class.BRIDGE] == []


def test_an_older_value_than_the_feed_told_says_that_consul_has_gone_back(view: View) -> None:
    view.apply(Change(ALICE, b"1900000000", 13))
    compared = comparison(view)
    compared.look([Entry(ALICE, 11, raw=b"-1")])
    assert compared.settle() == {Class.BRIDGE: [READ_ALL], Class.ENGINEER: []}


def test_a_new_leader_tells_what_changed_after_the_last_one_looked_though_it_knows_it(view: View) -> None:
    compared = comparison(view, {Class.BRIDGE: 8, Class.ENGINEER: 10})
    compared.look([Entry(ALICE, 9, raw=b"-1"), Entry(STAFF, 10, raw=b"-1")])
    assert compared.settle() == {Class.BRIDGE: [Change(ALICE, b"-1", 9)], Class.ENGINEER: []}


def test_the_first_leader_of_all_tells_everything_since_hosts_may_have_read_before_it_was_there(view: View) -> None:
    compared = comparison(view, {Class.BRIDGE: 0, Class.ENGINEER: 0})
    compared.look([Entry(ALICE, 9, raw=b"-1"), Entry(STAFF, 10, raw=b"-1")])
    assert compared.settle() == {
        Class.BRIDGE: [Change(ALICE, b"-1", 9)],
        Class.ENGINEER: [
            Change(STAFF, b"-1", 10),
        ],
    }


def test_a_folder_read_again_meanwhile_hides_nothing(view: View) -> None:
    compared = comparison(view)
    compared.look([Entry(ALICE, 11, raw=b"1900000000")])
    view.begin(FOLDER)
    view.complete(FOLDER, 11, [Entry(ALICE, 11, raw=b"1900000000"), Entry(STAFF, 10, raw=b"-1")])
    assert compared.settle()[Class.BRIDGE] == [Change(ALICE, b"1900000000", 11)]
    assert compared.done(Class.BRIDGE) == 10  # the next one has to look at all of it again


def test_what_an_engineer_deleted_before_we_followed_is_read_again_by_all_since_nobody_can_name_it() -> None:
    view = View()
    view.cover("befw/$service$/")
    view.begin("befw/$service$/")
    view.complete("befw/$service$/", 20, [])

    def compared(since: int) -> dict[Class, list[Change]]:
        made = Comparison(view, ROOT, "befw/$service$/", {Class.ENGINEER: since}, NOW)
        made.index, made.is_empty = 21, True
        return made.settle()

    assert compared(10) == {Class.ENGINEER: [READ_ALL]}
    assert compared(0) == {Class.ENGINEER: []}  # it was empty when it was last looked at
