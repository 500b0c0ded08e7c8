"""What packets mean: whose they are, and which groups they put him into."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.identity.events import NOBODY, Event
from radius_bridge.identity.names import Naming
from radius_bridge.identity.sessions import MAX_ADDRESSES
from radius_bridge.policy.members import parse_prefix, user_group
from radius_bridge.radius.accounting import NotBound, Outcome, Rules, interpret
from radius_bridge.radius.addresses import Addresses, Source
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.clients import Client, Networks
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.users import USER_NAME, GroupRule, Users
from radius_bridge.registry.keys import Keys
from tests.radius.test_accounting import CLIENT, NOW, RULES, event, outcome, packet


def taken(result: Outcome) -> Event:
    assert isinstance(result.event, Event)
    return result.event


@pytest.mark.parametrize(
    ("changes", "reason", "user"),
    [
        ({"User_Name": None}, NotBound.NO_NAME, ""),
        ({"User_Name": ""}, NotBound.NO_NAME, ""),
        ({"User_Name": "a\nb"}, NotBound.BAD_NAME, ""),
        ({"User_Name": "\udcff\udcfe"}, NotBound.BAD_NAME, ""),
        ({"User_Name": "anonymous@example.org"}, NotBound.NEVER_BOUND, ""),
        ({"User_Name": "host/pc.corp.example"}, NotBound.MACHINE, NOBODY),
        ({"User_Name": "CORP\\pc$"}, NotBound.MACHINE, NOBODY),
        ({"User_Name": "02-00-00-00-00-01"}, NotBound.MAC, NOBODY),
        ({"User_Name": "020000000001", "Calling_Station_Id": "0200.0000.0001"}, NotBound.MAC, NOBODY),
    ],
)
@pytest.mark.parametrize("status", ["Start", "Interim-Update"])
def test_rows_8_to_10_a_packet_of_no_user_takes_the_address_and_says_whether_it_is_open_who_is_there(
    status: str, changes: dict[str, str | None], reason: NotBound, user: str
) -> None:
    result = outcome(**{"Acct_Status_Type": status, **changes})
    assert (taken(result).user, taken(result).addresses) == (user, (parse_prefix("10.1.2.3"),))
    assert result.not_bound is reason


def test_row_9_who_logs_in_on_a_machine_is_told_by_the_same_session() -> None:
    machine = event_of("host/pc.corp.example", "Start")
    person = event_of("CORP\\Alice", "Interim-Update")
    assert (machine.session, machine.user) == (person.session, NOBODY)
    assert person.user == "alice@corp"


def event_of(name: str, status: str) -> Event:
    return taken(outcome(User_Name=name, Acct_Status_Type=status))


@pytest.mark.parametrize(
    ("realms", "name", "bound"),
    [
        (None, "alice@elsewhere.example", True),
        ({"example.org"}, "alice@example.org", True),
        ({"example.org"}, "alice@EXAMPLE.ORG", True),
        ({"example.org"}, "alice", False),
        ({"example.org", ""}, "alice", True),
        ({"example.org"}, "CORP\\alice", False),
        ({"corp"}, "CORP\\alice", True),
        ({""}, "CORP\\alice", False),
    ],
)
def test_a_client_binds_only_users_of_its_realms(realms: set[str] | None, name: str, bound: bool) -> None:
    client = replace(CLIENT, realms=None if realms is None else frozenset(realms))
    result = outcome(client, User_Name=name)
    assert (taken(result).user != NOBODY) == bound
    assert result.not_bound is (None if bound else NotBound.REALM)


def test_a_realm_that_is_taken_off_is_still_the_one_that_a_client_needs() -> None:
    rules = replace(RULES, users=Users(Naming.check({"example.org": ""}, ()), (USER_NAME,), (), standard()))
    client = replace(CLIENT, realms=frozenset({"example.org"}))
    for name, user in (("alice@example.org", "alice"), ("alice", NOBODY)):
        assert taken(interpret(packet({"User-Name": name}), client, rules, NOW)).user == user


def test_a_stop_is_judged_by_neither_name_nor_realm() -> None:
    client = replace(CLIENT, realms=frozenset({"example.org"}))
    for name in ("alice", "host/pc", "a\nb", None):
        result = outcome(client, Acct_Status_Type="Stop", User_Name=name)
        assert (taken(result).user, result.not_bound) == ("alice" if name == "alice" else "", None)


@pytest.mark.parametrize("status", ["Start", "Interim-Update"])
def test_a_shared_network_is_never_bound(status: str) -> None:
    """NAT and terminal servers: many people are behind one address."""
    result = outcome(Acct_Status_Type=status, Framed_IP_Address="10.66.0.1", Framed_IPv6_Address="2001:db8::1")
    assert [str(address) for address in taken(result).addresses] == ["2001:db8::1"]
    assert [str(address) for address in result.refused] == ["10.66.0.1"]


def test_addresses_beyond_those_that_a_session_may_have_are_counted() -> None:
    several = [f"2001:db8::{number}" for number in range(1, MAX_ADDRESSES + 2)]
    result = outcome(Framed_IP_Address="10.1.2.3", Framed_IPv6_Address=several)
    assert (len(taken(result).addresses), result.addresses_left_out) == (MAX_ADDRESSES + 2, 2)


def grouped(*rules: GroupRule) -> Rules:
    return replace(RULES, users=Users(Naming(), (USER_NAME,), rules, standard()))


def test_groups_of_attributes_are_told_and_those_left_out_counted() -> None:
    rules = grouped(*(GroupRule("Class", f"radius.{name}", value="all") for name in "abcd"))
    pairs = packet({"Class": f"0x{b'all'.hex()}"})
    result = interpret(pairs, CLIENT, rules, NOW)
    assert (taken(result).groups, result.groups_left_out) == (("radius.a", "radius.b", "radius.c"), 1)
    limited = interpret(pairs, replace(CLIENT, groups=frozenset({"radius.d"})), rules, NOW)
    assert taken(limited).groups == ("radius.d",)


def test_a_realm_that_a_client_may_not_bind_gets_into_no_group() -> None:
    client: Client = replace(CLIENT, realms=frozenset({"example.org"}))
    rules = grouped(GroupRule("NAS-Identifier", "radius.a", value="switch-1"))
    assert taken(interpret(packet({"User-Name": "alice"}), client, rules, NOW)).groups == ()
    assert taken(interpret(packet({"User-Name": "alice@example.org"}), client, rules, NOW)).groups == ("radius.a",)


def test_one_attribute_may_name_addresses_and_the_user() -> None:
    rules = Rules(
        default_lease=3600,
        shared=Networks([]),
        addresses=Addresses([Source("Cisco-AVPair", re.compile("^addr=(.+)$"))], standard()),
        users=Users(Naming(), (Source("Cisco-AVPair", re.compile("^user=(.+)$")),), (), standard()),
    )
    pairs = packet({"User-Name": None, "Framed-IP-Address": None})
    pairs += [pair for text in ("addr=10.1.2.3", "user=Bob") for pair in assign(f"Cisco-AVPair={text}", standard())]
    told = taken(interpret(pairs, CLIENT, rules, NOW))
    assert (told.user, told.addresses) == ("bob", (parse_prefix("10.1.2.3"),))


def test_the_station_of_mac_authentication_is_in_the_event() -> None:
    assert event(Calling_Station_Id="0200.0000.0001").mac == "02:00:00:00:00:01"


@given(
    st.binary(max_size=253)
    | st.text("$/%. \\@\0\n\u202eab" + "ü", max_size=60).map(lambda text: text.encode())
    | st.sampled_from([b"..", b"$", b"$$", b"$dba$", b"a/../../$service$/x", b"%2F", b"x" * 253, b"\xff" * 253])
)
def test_no_user_name_leaves_its_group(name: bytes) -> None:
    result = interpret([(1, name), *packet({"User-Name": None})], CLIENT, RULES, NOW)
    user = taken(result).user
    if user in ("", NOBODY):
        assert result.not_bound is not None
        return
    key = Keys().group_member(user_group(user), taken(result).addresses[0])
    assert re.fullmatch(r"befw/\$alias\$/\$user\.[A-Za-z0-9._@+%-]+\$/10\.1\.2\.3", key)
