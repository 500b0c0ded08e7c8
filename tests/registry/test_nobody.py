"""Rows 8 to 10 of what real networks send, through the session engine: who is no user takes addresses and gets none."""

import pytest

from radius_bridge.identity.engine import take_event
from radius_bridge.identity.events import NOBODY, Event, Kind
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import Known
from radius_bridge.registry.records import everybodys, members
from radius_bridge.registry.turn import Overlay
from tests.registry.events import ADDRESS, event

KEYS = Keys()
NOW = 1_700_000_000.0
AT = str(ADDRESS)


def groups(*events: Event) -> set[str]:
    """The groups that hold ADDRESS after some events, each of them heard twice."""
    state = Overlay(Known(KEYS), lambda _source, _address: True)
    for each in events * 2:
        take_event(state, each, each.at)
    now = max(each.at for each in events)
    written = members(KEYS, AT, state.binding(AT), now)
    gone = {key for key, value in everybodys(KEYS, AT, state.binding(AT), now).items() if value is None}
    for key in (*written, *gone):
        assert "$user.$" not in key
        assert NOBODY not in key
    return {key.removeprefix(KEYS.groups).partition("/")[0] for key in written}


ALICE = event(Kind.START, "alice", NOW, ADDRESS, groups=("radius.staff",))


@pytest.mark.parametrize("user", ["", NOBODY], ids=["anonymous", "machine or MAC address"])
def test_whoever_comes_to_an_address_without_a_stop_of_the_last_does_not_inherit_it(user: str) -> None:
    assert groups(ALICE) == {"$user.alice$", "$radius.staff$"}
    assert groups(ALICE, event(Kind.START, user, NOW + 60, ADDRESS, session="nas/other")) == set()


def test_row_8_an_anonymous_update_leaves_a_session_its_user() -> None:
    update = event(Kind.INTERIM, "", NOW + 60, ADDRESS, session=ALICE.session, groups=("radius.staff",))
    assert groups(ALICE, update) == {"$user.alice$", "$radius.staff$"}


def test_row_8_a_session_that_began_anonymously_gets_its_user_with_an_update() -> None:
    start = event(Kind.START, "", NOW, ADDRESS, session=ALICE.session, groups=("radius.staff",))
    assert groups(start) == set(), "nobody said who it is: no role either"
    assert groups(start, event(Kind.INTERIM, "alice", NOW + 60, ADDRESS, session=ALICE.session)) == {"$user.alice$"}


def test_row_9_a_user_follows_the_machine_in_one_session_and_the_machine_him() -> None:
    machine = event(Kind.START, NOBODY, NOW, ADDRESS, session=ALICE.session)
    person = event(Kind.INTERIM, "alice", NOW + 60, ADDRESS, session=ALICE.session)
    again = event(Kind.INTERIM, NOBODY, NOW + 120, ADDRESS, session=ALICE.session)
    assert groups(machine) == set()
    assert groups(machine, person) == {"$user.alice$"}
    assert groups(machine, person, again) == set()


def test_row_10_a_device_may_be_in_a_group_of_attributes_but_in_no_users() -> None:
    printer = event(Kind.START, NOBODY, NOW, ADDRESS, groups=("radius.printers",))
    assert groups(printer) == {"$radius.printers$"}
