"""What real networks send, situation by situation, and what becomes of it."""

import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from radius_bridge.identity.bindings import MAX_CLAIMS
from radius_bridge.identity.sessions import MAX_ADDRESSES, RETENTION
from radius_bridge.policy.members import parse_prefix
from tests.identity.reference import Reference
from tests.identity.world import LAPTOP, NOW, PHONE, Fact, World, X, Y, interim, leased, released, restart, start, stop


def in_any_order(*facts: Fact) -> list[World]:
    """What becomes of the facts in each of their orders, each fact told twice."""
    return [World().play(*order, *order) for order in itertools.permutations(facts)]


def test_a_start_names_no_address_and_an_interim_update_does() -> None:
    for world in in_any_order(start(mac=LAPTOP), interim("alice", "ap1/1", X, at=60, mac=LAPTOP)):
        assert world.owner() == "alice"


def test_a_start_names_no_address_and_a_dhcp_lease_does() -> None:
    for world in in_any_order(start(mac=LAPTOP), leased(at=2)):
        assert (world.owner(), world.until()) == ("alice", 1802)


def test_0_0_0_0_and_255_255_255_254_are_no_address_and_a_later_packet_names_one() -> None:
    # radius.addresses leaves them out: what arrives here names none.
    world = World().play(start())
    assert world.bindings == {}
    assert world.play(interim("alice", "ap1/1", X, at=600)).owner() == "alice"


def test_a_roaming_stations_new_start_arrives_before_the_old_stop() -> None:
    world = World().play(start("alice", "ap1/1", X), start("alice", "ap2/1", X, at=100))
    assert world.play(stop("alice", "ap1/1", X, at=101)).owner() == "alice"
    assert world.play(stop("alice", "ap2/1", X, at=200)).owner() == ""


def test_a_stop_without_the_address_ends_what_the_session_has() -> None:
    for world in in_any_order(start("alice", "ap1/1", X, mac=LAPTOP), leased(address=Y, at=2), stop(at=50)):
        assert (world.owner(X), world.owner(Y)) == ("", "")


def test_two_devices_of_one_user_do_not_cancel_each_other() -> None:
    laptop, phone = start("alice", "ap1/1", X, mac=LAPTOP), start("alice", "ap1/2", Y, mac=PHONE, at=5)
    for world in in_any_order(laptop, phone, stop("alice", "ap1/2", at=50)):
        assert (world.owner(X), world.owner(Y)) == ("alice", "")


def test_an_interim_update_after_the_stop_reopens_only_if_it_is_newer() -> None:
    begun = start("alice", "ap1/1", X)
    for world in in_any_order(begun, stop(at=100), interim("alice", "ap1/1", X, at=90)):
        assert world.owner() == "", "it was late"
    for world in in_any_order(begun, stop(at=100), interim("alice", "ap1/1", X, at=110)):
        assert world.owner() == "alice", "it is real"


def test_a_start_that_is_nearly_an_hour_late_revives_nothing() -> None:
    begun = start("alice", "ap1/1", X, timeout=7200)
    world = World().play(begun, stop(at=10))
    world.play(stop("bob", "ap2/1", X, at=3500), now=NOW + 3500)
    assert world.play(begun, now=NOW + 3500).owner(at=3500) == ""
    assert world.sessions["ap1/1"].over() >= NOW + 3610, "so long it is kept"


def test_of_many_who_say_that_they_have_an_address_those_who_had_it_are_forgotten_first() -> None:
    world = World().play(start("alice", "ap1/1", X, at=100, lease=600))
    for number in range(2 * MAX_CLAIMS):
        world.play(start("bob", f"ap2/{number}", X, at=number, lease=86400))
    assert len(world.bindings[str(X)].claims) == MAX_CLAIMS
    assert world.owner() == "alice", "though her time is over before that of the others would be"


def test_a_nas_that_reboots_without_stops_says_so_with_accounting_on() -> None:
    on_it, elsewhere = start("alice", "ap1/1", X), start("bob", "ap2/1", Y)
    for world in in_any_order(on_it, elsewhere, restart(at=100)):
        assert (world.owner(X), world.owner(Y)) == ("", "bob")


def test_a_nas_that_reboots_and_says_nothing_costs_access_when_the_time_is_over() -> None:
    world = World().play(start("alice", "ap1/1", X))
    assert world.owner(at=3599) == "alice"
    assert world.owner(at=3600) == ""


def test_a_session_that_comes_back_to_an_address_has_it_from_then_on() -> None:
    away_and_back = (
        start("alice", "ap1/1", X),
        interim("alice", "ap1/1", Y, at=100),
        interim("alice", "ap1/1", X, at=200),
    )
    for world in in_any_order(*away_and_back, start("bob", "ap2/1", X, at=150)):
        assert (world.owner(X), world.owner(Y)) == ("alice", ""), "bob never sent a Stop"
    for world in in_any_order(*away_and_back, start("bob", "ap2/1", X, at=250)):
        assert world.owner() == "bob", "he is newer"
    for world in in_any_order(*away_and_back, start("bob", "ap2/1", X, at=50)):
        assert world.owner() == "alice", "he was before"
    for world in in_any_order(*away_and_back, start("bob", "ap2/1", X, at=150), stop(at=300)):
        assert world.owner() == "", "nobody inherits it"


def test_an_acct_session_id_that_is_used_again_is_another_session_rfc_2866_5_5() -> None:
    # A NAS that restarted counts from 1 again.
    first = start("alice", "ap1/1", X, timeout=600), stop(at=100)
    for world in in_any_order(*first, start("alice", "ap1/1", X, at=2000, timeout=600)):
        assert (world.owner(at=2500), world.until()) == ("alice", 2600), "its time begins anew"
    for world in in_any_order(first[0], restart(at=1990), start("alice", "ap1/1", X, at=2000, timeout=600)):
        assert (world.owner(at=2500), world.until()) == ("alice", 2600), "though there was no Stop"
    length = {"timeout": 600, "started": 2000}
    for world in in_any_order(*first, interim("alice", "ap1/1", X, at=2100, **length)):
        assert world.until() == 2600, "its Start was lost"
    for world in in_any_order(*first, start("alice", "ap1/1", at=2000), stop(at=2100), restart(at=1990)):
        assert world.owner() == ""
    soon = World().play(
        start("alice", "ap1/1", X, timeout=30), stop(at=10), start("alice", "ap1/1", X, at=40, timeout=30)
    )
    assert (soon.owner(at=60), soon.until()) == ("alice", 70)
    for next_one in (start("bob", "ap1/1", at=50), interim("bob", "ap1/1", at=50, started=45)):
        world = World().play(start("alice", "ap1/1", X), stop(at=30), next_one)
        assert world.owner(at=60) == "", "nobody inherits its address, was his Start lost or not"


@pytest.mark.parametrize("who", ["alice", "bob", ""])
@pytest.mark.parametrize("mac", ["", PHONE])
def test_a_session_has_no_address_of_an_earlier_one_with_its_acct_session_id(who: str, mac: str) -> None:
    before = start("alice", "ap1/1", X, mac=mac and LAPTOP), interim("alice", "ap1/1", X, at=100, started=0)
    for world in in_any_order(*before, start(who, "ap1/1", at=2000, mac=mac)):
        assert world.owner() == ""
        assert world.sessions["ap1/1"].user == who, "nor its user"
    for world in in_any_order(*before, start(who, "ap1/1", at=2000, mac=mac), interim(who, "ap1/1", Y, at=2050)):
        assert (world.owner(X), world.owner(Y)) == ("", who)


def test_a_session_has_no_station_and_no_timeout_of_an_earlier_one_with_its_acct_session_id() -> None:
    before = start("alice", "ap1/1", mac=LAPTOP, multi="M", timeout=600), stop(at=100)
    for world in in_any_order(*before, start("bob", "ap1/1", X, at=2000), leased(address=Y, at=2010)):
        assert (world.owner(X), world.owner(Y)) == ("bob", ""), "the lease is that of alice's station"
        assert (world.until(X), world.sessions["ap1/1"].multi) == (2000 + 3600, "")


def test_a_session_with_an_earlier_ones_acct_session_id_is_newer_than_what_began_in_between() -> None:
    zombie = start("bob", "ap2/1", X, at=50)
    for world in in_any_order(start("alice", "ap1/1", X), zombie, start("alice", "ap1/1", X, at=2000)):
        assert world.owner() == "alice"


def test_a_session_is_no_other_one_because_a_packet_was_late_or_a_clock_was_set() -> None:
    late = interim("alice", "ap1/1", at=130, started=30)
    for world in in_any_order(start("alice", "ap1/1", X), late):
        assert world.owner() == "alice", "it does not say that it was late"
    slow = start("alice", "ap1/1", X, at=-3600, heard=0)
    for world in in_any_order(slow, interim("alice", "ap1/1", at=600, started=0)):
        assert world.owner() == "alice", "the clock of the NAS was set"
    for world in in_any_order(slow, interim("alice", "ap1/1", at=-3000, heard=7200, started=6600)):
        assert world.owner() == "alice", "a proxy kept it"


def test_the_machine_logs_in_and_then_the_user_in_the_same_session() -> None:
    for world in in_any_order(start("host/pc", "ap1/1", X, mac=LAPTOP), start("alice", "ap1/1", X, at=30, mac=LAPTOP)):
        assert world.owner() == "alice"


def test_a_packet_that_leaves_open_who_is_there_leaves_the_user_who_was_named_last() -> None:
    facts = start("alice", "ap1/1", X), interim("bob", "ap1/1", X, at=100), interim("", "ap1/1", X, at=200)
    for world in in_any_order(*facts):
        assert world.owner() == "bob"


def test_the_machine_logs_in_and_then_the_user_in_another_session_on_the_same_mac_address() -> None:
    machine = start("host/pc", "ap1/1", mac=LAPTOP)
    for world in in_any_order(machine, leased(at=1), start("alice", "ap1/2", at=30, mac=LAPTOP)):
        assert world.owner() == "alice"


def test_the_address_passes_to_another_user_without_a_stop() -> None:
    for world in in_any_order(start("alice", "ap1/1", X), start("bob", "ap2/1", X, at=50)):
        assert world.owner() == "bob"


def test_the_address_passes_without_a_stop_to_a_user_whose_session_is_older_and_had_none_so_far() -> None:
    # dot1x: the port opens, the address comes later. Whoever had it and never sent a Stop is not who sits there now.
    begun, zombie, named = start(), start("bob", "ap2/1", X, at=50), interim("alice", "ap1/1", X, at=100)
    for world in in_any_order(begun, zombie, named):
        assert world.owner() == "alice"
    for world in in_any_order(begun, zombie, named, stop(at=150)):
        assert world.owner() == "", "nobody inherits it"
    for world in in_any_order(begun, zombie, named, interim("alice", "ap1/1", Y, at=150)):
        assert (world.owner(X), world.owner(Y)) == ("", "alice"), "though it was heard only once"
    for world in in_any_order(start(mac=LAPTOP), zombie, leased(at=100)):
        assert world.owner() == "alice", "a lease says so, too"


def test_a_session_first_heard_of_in_the_middle_has_its_address_from_its_beginning_on() -> None:
    learnt_late = interim("alice", "ap1/1", X, at=100, started=0)
    for world in in_any_order(learnt_late, start("bob", "ap2/1", X, at=50)):
        assert world.owner() == "bob"


def test_an_address_that_only_the_stop_names_is_taken_from_nobody() -> None:
    for world in in_any_order(start(), start("bob", "ap2/1", X, at=90), stop("alice", "ap1/1", X, at=100)):
        assert world.owner() == "bob"


def test_nobody_inherits_the_address_when_the_newer_user_leaves() -> None:
    facts = start("alice", "ap1/1", X), start("bob", "ap2/1", X, at=50), stop("bob", "ap2/1", at=70)
    for world in in_any_order(*facts):
        assert world.owner() == ""
    for world in in_any_order(*facts, interim("alice", "ap1/1", X, at=80)):
        assert world.owner() == "alice", "it was heard again after that"


def test_nobody_inherits_the_address_when_the_newer_user_is_forgotten() -> None:
    zombie = start("alice", "ap1/1", X, lease=86400)
    world = World().play(zombie, start("bob", "ap2/1", X, at=50), stop("bob", "ap2/1", at=70))
    later = 70 + RETENTION + 1
    world.play(stop("carol", "ap3/1", X, at=later), now=NOW + later)
    assert "ap2/1" not in world.bindings[str(X)].claims
    assert world.owner(at=later) == "", "though her session may be live"
    assert world.play(interim("alice", "ap1/1", X, at=later + 5), now=NOW + later + 5).owner(at=later + 5) == "alice"


def test_the_mac_address_behind_the_address_changes() -> None:
    for world in in_any_order(start("alice", "ap1/1", X, mac=LAPTOP), leased(), leased(PHONE, at=100)):
        assert world.owner() == ""


def test_the_lease_passes_to_another_users_station() -> None:
    alice, bob = start("alice", "ap1/1", mac=LAPTOP), start("bob", "ap1/2", mac=PHONE, at=10)
    for world in in_any_order(alice, bob, leased(at=1), leased(PHONE, at=100)):
        assert world.owner() == "bob"


def test_a_nas_whose_event_timestamps_are_from_1970_is_taken_at_the_arrival() -> None:
    # radius.accounting puts the arrival in their place: what happened is then ordered by our clock.
    world = World().play(start("alice", "ap1/1", X), stop(at=10), interim("alice", "ap1/1", X, at=5))
    assert world.owner() == ""


def test_a_nas_whose_clock_is_ahead_does_not_own_an_address_for_ever() -> None:
    ahead = start("alice", "ap1/1", X, at=250, heard=0)
    for world in in_any_order(ahead, start("bob", "ap2/1", X, at=50)):
        assert world.owner() == "bob"
    assert World().play(ahead).until() == 3600


def test_accounting_on_or_off_ends_the_sessions_of_that_nas_rfc_2866_5_1() -> None:
    earlier, later = start("alice", "ap1/1", X), start("bob", "ap1/2", Y, at=101)
    for world in in_any_order(earlier, later, restart(at=100)):
        assert (world.owner(X), world.owner(Y)) == ("", "bob")
    other_client = start("alice", "ap1/1", X, source="branch")
    assert World().play(other_client, restart(at=100)).owner() == "alice", "another client told of it"


def test_accounting_on_without_a_name_ends_all_sessions_learnt_through_that_client_rfc_2866_5_1() -> None:
    sessions = start("alice", "ap1/1", X), start("bob", "ap2/1", Y)
    for world in in_any_order(*sessions, restart(at=100, nas="")):
        assert (world.owner(X), world.owner(Y)) == ("", "")


def test_a_session_goes_on_after_accounting_on_if_it_is_heard_of_later_rfc_2866_5_1() -> None:
    for world in in_any_order(start("alice", "ap1/1", X), restart(at=100), interim("alice", "ap1/1", X, at=200)):
        assert world.owner() == "alice"


@pytest.mark.parametrize("mac", ["", LAPTOP])
def test_acct_multi_session_id_links_the_sessions_of_a_roaming_station_rfc_3580_2_2(mac: str) -> None:
    at_one, at_two = start("alice", "ap1/1", X, multi="M", mac=mac), start("alice", "ap2/1", at=100, multi="M", mac=mac)
    for world in in_any_order(at_one, at_two, stop("alice", "ap1/1", X, at=101)):
        assert world.owner() == "alice"
    for world in in_any_order(at_one, stop("alice", "ap1/1", X, at=95), at_two):
        assert world.owner() == "alice", "the Stop came a moment before"
    for world in in_any_order(at_one, stop("alice", "ap1/1", X, at=80), at_two):
        assert world.owner() == "", "it was away for too long"
    for world in in_any_order(at_one, at_two, stop("alice", "ap2/1", at=150), stop("alice", "ap1/1", X, at=101)):
        assert world.owner() == ""


def test_another_user_with_the_same_acct_multi_session_id_takes_nothing_over_rfc_3580_2_2() -> None:
    for world in in_any_order(start("alice", "ap1/1", X, multi="M"), start("bob", "ap2/1", at=100, multi="M")):
        assert world.owner() == "alice"


def test_a_roaming_station_does_not_take_an_address_back_that_somebody_else_has() -> None:
    facts = (
        start("alice", "ap1/1", X, multi="M"),
        start("bob", "ap3/1", X, at=50),
        start("alice", "ap2/1", at=100, multi="M"),
    )
    for world in in_any_order(*facts):
        assert world.owner() == "bob"


@pytest.mark.parametrize("same", [{"mac": LAPTOP}, {"multi": "M"}])
def test_a_station_that_comes_back_when_its_time_was_over_takes_nothing_over(same: dict[str, Any]) -> None:
    # No Stop was heard of the session before; its address may be anybody's by now.
    facts = start("alice", "ap1/1", X, **same), start("alice", "ap2/1", at=3700, **same)
    for world in in_any_order(*facts):
        assert world.owner(at=3700) == ""
    for world in in_any_order(*facts, interim("alice", "ap1/1", X, at=3650, **same)):
        assert world.owner(at=3700) == "alice", "it was not over"


def test_a_roaming_station_takes_no_address_to_a_client_that_may_not_bind_it() -> None:
    facts = start("alice", "ap1/1", X, multi="M"), start("alice", "ap2/1", at=100, multi="M", source="branch")
    world = World(may_bind=lambda source, _address: source == "controller")
    world.play(*facts, stop("alice", "ap1/1", at=101))
    assert world.owner() == ""


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_a_station_keeps_what_it_took_over_when_the_session_before_is_long_forgotten(is_forgotten: bool) -> None:
    world = World().play(
        start("alice", "ap1/1", X, multi="M"),
        start("alice", "ap2/1", at=100, multi="M"),
        stop("alice", "ap1/1", X, at=101),
    )
    later = 101 + RETENTION + 1
    if is_forgotten:
        del world.sessions["ap1/1"]  # else its claim only is
    world.play(interim("alice", "ap2/1", at=later, multi="M"), now=NOW + later)
    world.play(interim("alice", "ap2/1", at=later + 60, multi="M"), now=NOW + later + 60)
    assert world.bindings[str(X)].claims.keys() == {"ap2/1"}
    assert world.until(at=later) == later + 60 + 3600


def test_what_a_station_says_itself_counts_before_what_it_took_over() -> None:
    facts = (
        start("alice", "ap1/1", X, multi="M"),
        start("alice", "ap2/1", at=100, multi="M"),
        interim("alice", "ap2/1", Y, at=160, multi="M"),
        stop("alice", "ap1/1", at=101),
    )
    for world in in_any_order(*facts):
        assert (world.owner(X), world.owner(Y)) == ("", "alice")


def test_the_mac_address_behind_the_address_changes_though_the_session_tells_none() -> None:
    session = start("alice", "ap1/1", X, at=10)
    for world in in_any_order(session, leased(), leased(PHONE, at=100)):
        assert world.owner() == "", "the lease of another station"
    for world in in_any_order(session, leased(), leased(PHONE, at=100), interim("alice", "ap1/1", X, at=110)):
        assert world.owner() == "alice", "she says that it is hers"
    passed_on = leased(), leased(PHONE, at=100), leased(PHONE, at=200)
    for world in in_any_order(session, *passed_on, interim("alice", "ap1/1", X, at=150)):
        assert world.owner() == "alice", "after it was passed on, and renewed only since"
    for world in in_any_order(session, leased(PHONE, at=-100), released(PHONE, at=-50), leased()):
        assert world.owner() == "alice", "that was over before"


@pytest.mark.parametrize(("whose", "mac"), [(LAPTOP, ""), ("", ""), ("", LAPTOP)])
def test_a_lease_that_is_joined_by_its_address_alone_ends_the_binding(whose: str, mac: str) -> None:
    # The session does not tell its MAC address, or the DHCP server does not (DUIDs without one).
    session = start("alice", "ap1/1", X, mac=mac)
    for world in in_any_order(session, leased(whose, at=2)):
        assert (world.owner(), world.until()) == ("alice", 1802)
    for world in in_any_order(session, leased(whose, at=2, term=7200)):
        assert world.until() == 7202, "the default is for those without a lease"
    for world in in_any_order(session, leased(whose, at=2), released(whose, at=100)):
        assert (world.owner(at=99), world.owner(at=100)) == ("alice", "")


@pytest.mark.parametrize(("whose", "mac"), [(LAPTOP, ""), ("", ""), ("", LAPTOP)])
def test_a_lease_that_is_joined_by_its_address_alone_revives_nobody(whose: str, mac: str) -> None:
    for world in in_any_order(start("alice", "ap1/1", X, mac=mac), leased(whose, at=5000)):
        assert world.owner(at=5000) == "", "it may be anybody's: her time was over at 3600"


def test_nobody_inherits_an_address_from_an_unknown_station_for_having_had_a_lease_of_it_once() -> None:
    world = World().play(start(mac=LAPTOP), leased(at=1))
    for at in (3000, 6000, 9000):
        world.play(interim("alice", "ap1/1", at=at, mac=LAPTOP), now=NOW + at)
    assert world.bindings[str(X)].claims == {}, "that is forgotten"
    assert world.play(leased("", at=9100), now=NOW + 9100).owner(at=9100) == ""


def test_a_release_or_a_decline_ends_the_binding() -> None:
    for world in in_any_order(start(mac=LAPTOP), leased(at=1), released(at=100)):
        assert (world.owner(at=99), world.owner(at=100)) == ("alice", "")
    for world in in_any_order(start("alice", "ap1/1", X, at=100, mac=LAPTOP), leased(at=1), released(at=100)):
        assert world.owner(at=100) == "", "though it was heard of in the same moment"


def test_a_late_word_of_an_address_whose_lease_had_run_out_keeps_it_from_nobody() -> None:
    facts = (
        leased(PHONE),
        released(PHONE, at=2000),
        stop("bob", "ap1/2", X, at=2000, mac=PHONE),
        start("bob", "ap1/2", at=2400, mac=PHONE),
        interim("alice", "ap1/1", X, at=2000, mac=LAPTOP),
    )
    assert Reference(facts).owner(X, NOW + 3000)[0] == "alice"
    for world in in_any_order(*facts):
        assert world.owner(at=3000) == "alice"


def test_an_end_that_names_no_mac_address_ends_whatever_lease_the_address_has() -> None:
    # Kea forgets whose it was when an address is declined.
    for world in in_any_order(start(mac=LAPTOP), leased(at=1), released("", at=100)):
        assert (world.owner(at=99), world.owner(at=100)) == ("alice", "")
    for world in in_any_order(start(at=150, mac=LAPTOP), leased(at=1), released("", at=100)):
        assert world.owner(at=150) == "", "it had ended before"
    for world in in_any_order(start(mac=LAPTOP), leased(at=1), released("", at=100), leased(at=200)):
        assert world.owner(at=200) == "alice", "it was given again"
    world = World().play(start(mac=LAPTOP), leased(at=1, term=80000), released("", at=100))
    world.play(stop("bob", "ap2/1", X, at=4000), now=NOW + 4000)
    assert "" not in world.bindings[str(X)].leases
    assert world.owner(at=4000) == "", "nor is it given again when that is forgotten"
    again = replace(released("", at=100), is_told_again=True)
    assert World().play(start(mac=LAPTOP), leased(at=1), again).owner(at=100) == "", "it was missed"
    assert World().play(again).bindings == {}


def test_an_end_that_a_source_tells_at_every_start_leaves_nothing_if_nobody_knew_the_lease() -> None:
    again = replace(released(at=100), is_told_again=True)
    assert World().play(again).bindings == {}
    assert World().play(start(mac=LAPTOP), leased(at=1), again).owner(at=100) == "", "it was missed"


def test_a_renewal_extends_the_binding_and_not_beyond_the_maximum() -> None:
    session = start(mac=LAPTOP, longest=7200)
    assert World().play(session, leased(), leased(at=900)).until() == 2700
    assert World().play(session, leased(), leased(at=900, term=86400)).until() == 7200


def test_a_session_ends_with_its_session_timeout_though_the_lease_is_longer() -> None:
    for world in in_any_order(start(mac=LAPTOP, timeout=600), leased(at=1)):
        assert world.until() == 600


def test_the_default_does_not_count_where_there_is_a_session_timeout() -> None:
    assert World().play(start("alice", "ap1/1", X, timeout=7200)).until() == 7200


def test_a_claim_that_was_over_before_it_was_made_takes_the_address_from_nobody() -> None:
    late = start("bob", "ap2/1", timeout=400), interim("bob", "ap2/1", X, at=500, timeout=400)
    for world in in_any_order(*late, start("alice", "ap1/1", X, at=50)):
        assert world.owner() == "alice"


def test_interim_updates_do_not_stretch_a_session_timeout() -> None:
    world = World().play(start("alice", "ap1/1", X, timeout=600), interim("alice", "ap1/1", X, at=300))
    assert world.until() == 600


def test_a_lease_alone_binds_nobody_and_revives_nobody() -> None:
    assert World().play(leased()).owner() == ""
    for world in in_any_order(start(mac=LAPTOP), stop(at=10), leased(at=20)):
        assert world.owner() == ""


@pytest.mark.parametrize("order", [1, -1])
def test_of_more_leases_than_a_session_may_have_the_newest_count_and_the_others_are_told(order: int) -> None:
    addresses = [parse_prefix(f"10.0.1.{number}") for number in range(1, MAX_ADDRESSES + 3)]
    leases = [leased(address=each, at=number) for number, each in enumerate(addresses, 1)]
    world = World().play(start(mac=LAPTOP), *leases[::order])
    assert [world.owner(each) for each in addresses] == ["", "", *["alice"] * MAX_ADDRESSES]
    assert world.left_out >= 2


def test_a_leased_address_outside_the_clients_networks_is_not_joined() -> None:
    world = World(may_bind=lambda source, address: False)
    assert world.play(start(mac=LAPTOP), leased()).owner() == ""


def test_a_session_that_moves_to_another_address_leaves_the_old_one() -> None:
    for world in in_any_order(start("alice", "ap1/1", X), interim("alice", "ap1/1", Y, at=100)):
        assert (world.owner(X), world.owner(Y)) == ("", "alice")


def test_an_address_of_the_other_ip_version_is_no_move() -> None:
    six = parse_prefix("2001:db8::5")
    for world in in_any_order(start("alice", "ap1/1", X), interim("alice", "ap1/1", six, at=100)):
        assert (world.owner(X), world.owner(six)) == ("alice", "alice")


def test_a_client_cannot_end_or_take_a_session_whose_addresses_are_not_its_own() -> None:
    world = World().play(start("alice", "ap1/1", X))
    elsewhere = {"source": "branch", "within": {Y}}
    assert world.play(stop("alice", "ap1/1", Y, at=10, **elsewhere)).owner() == "alice"
    assert world.play(interim("mallory", "ap1/1", at=20, **elsewhere)).owner() == "alice"
    assert world.play(stop("alice", "ap1/1", at=30, source="branch", within={X})).owner() == "", (
        "its own: a second proxy"
    )


def test_a_stop_of_somebody_long_gone_takes_the_address_from_nobody() -> None:
    assert World().play(start("bob", "ap2/1", X), stop("alice", "ap1/1", X, at=5)).owner() == "bob"


def test_a_users_groups_from_attributes_have_the_address_for_as_long() -> None:
    holding = World().play(start("alice", "ap1/1", X, groups=("radius.staff",))).holding(X)
    assert holding.groups == {"radius.staff": NOW + 3600}
