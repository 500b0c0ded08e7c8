"""What packets mean: the event they are, or why they are none."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.identity.events import Event, Kind
from radius_bridge.identity.names import Naming
from radius_bridge.policy.members import parse_prefix, user_group
from radius_bridge.radius.accounting import LONGEST_ID, NotBound, Outcome, Rules, interpret, plain
from radius_bridge.radius.addresses import Addresses, Source
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.clients import Client, Networks
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import Attribute
from radius_bridge.radius.users import USER_NAME, GroupRule, Users
from radius_bridge.registry.keys import Keys

NOW = 1_700_000_000.5
HOUR = 3600
RULES = Rules(default_lease=8 * HOUR, shared=Networks([parse_prefix("10.66.0.0/16")]))
CLIENT = Client(
    name="campus",
    address=parse_prefix("198.51.100.1"),
    secret=b"a shared secret!",
    networks=Networks(map(parse_prefix, ("10.0.0.0/8", "2001:db8::/32"))),
)
EVERYWHERE = replace(CLIENT, networks=Networks(map(parse_prefix, ("0.0.0.0/0", "::/0"))))

START: dict[str, str | list[str]] = {
    "Acct-Status-Type": "Start",
    "User-Name": "alice",
    "Acct-Session-Id": "5E2A",
    "NAS-Identifier": "switch-1",
    "Framed-IP-Address": "10.1.2.3",
}


def packet(changes: dict[str, str | list[str] | None]) -> list[Attribute]:
    """The attributes of START with changes; None leaves one out."""
    pairs: list[Attribute] = []
    for name, value in {**START, **changes}.items():
        attribute = standard()[name]
        for text in [value] if isinstance(value, str) else value or []:
            pairs.append((attribute.number, attribute.encode(text)))
    return pairs


def outcome(client: Client = CLIENT, /, **changes: str | list[str] | None) -> Outcome:
    return interpret(packet({name.replace("_", "-"): value for name, value in changes.items()}), client, RULES, NOW)


def event(client: Client = CLIENT, /, **changes: str | list[str] | None) -> Event:
    result = outcome(client, **changes)
    assert result.event is not None
    assert result.not_bound is None
    return result.event


def test_a_start_is_an_event() -> None:
    assert event(Calling_Station_Id="02-00-00-00-00-01") == Event(
        kind=Kind.START,
        user="alice",
        session="switch-1/5E2A",
        addresses=(parse_prefix("10.1.2.3"),),
        at=NOW,
        started=NOW,
        expires=NOW + 8 * HOUR,
        source="campus",
        nas="switch-1",
        mac="02-00-00-00-00-01",
        within=CLIENT.networks,
    )


@pytest.mark.parametrize(
    ("status", "kind"), [("Start", Kind.START), ("Stop", Kind.STOP), ("Interim-Update", Kind.INTERIM)]
)
def test_the_three_kinds_that_concern_one_session(status: str, kind: Kind) -> None:
    assert event(Acct_Status_Type=status).kind is kind


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Acct_Status_Type": "Accounting-On"}, NotBound.ON_OFF),
        ({"Acct_Status_Type": "Accounting-Off"}, NotBound.ON_OFF),
        ({"Acct_Status_Type": "Failed"}, NotBound.UNKNOWN_STATUS),
        ({"Acct_Status_Type": "99"}, NotBound.UNKNOWN_STATUS),
        ({"Acct_Status_Type": None}, NotBound.UNKNOWN_STATUS),
        ({"Acct_Session_Id": None}, NotBound.NO_SESSION_ID),
        ({"Acct_Session_Id": ""}, NotBound.NO_SESSION_ID),
        ({"Framed_IP_Address": None}, NotBound.NO_ADDRESS),
        ({"Framed_IP_Address": "0.0.0.0"}, NotBound.NO_ADDRESS),
        ({"Framed_IP_Address": "255.255.255.254"}, NotBound.NO_ADDRESS),
        ({"Framed_IP_Address": "255.255.255.255"}, NotBound.NO_ADDRESS),
        ({"Framed_IP_Address": None, "Framed_IPv6_Address": "::"}, NotBound.NO_ADDRESS),
        ({"Framed_IP_Address": "192.0.2.1"}, NotBound.ADDRESS_NOT_ALLOWED),
        ({"Framed_IP_Address": "10.66.0.1"}, NotBound.ADDRESS_NOT_ALLOWED),
        ({"Framed_IP_Address": None, "Framed_IPv6_Address": "2001:db9::1"}, NotBound.ADDRESS_NOT_ALLOWED),
    ],
)
@pytest.mark.parametrize("status", ["Start", "Interim-Update"])
def test_what_is_acknowledged_and_not_bound(status: str, changes: dict[str, str | None], reason: NotBound) -> None:
    assert outcome(**{"Acct_Status_Type": status, **changes})[:2] == (None, reason)


NOBODY = [
    ({"User_Name": None}, NotBound.NO_NAME, True),
    ({"User_Name": ""}, NotBound.NO_NAME, True),
    ({"User_Name": "a\nb"}, NotBound.BAD_NAME, True),
    ({"User_Name": "\udcff\udcfe"}, NotBound.BAD_NAME, True),
    ({"User_Name": "anonymous@example.org"}, NotBound.NEVER_BOUND, True),
    ({"User_Name": "host/pc.corp.example"}, NotBound.MACHINE, False),
    ({"User_Name": "CORP\\pc$"}, NotBound.MACHINE, False),
    ({"User_Name": "02-00-00-00-00-01"}, NotBound.MAC, False),
    ({"User_Name": "020000000001", "Calling_Station_Id": "0200.0000.0001"}, NotBound.MAC, False),
]


@pytest.mark.parametrize(("changes", "reason", "open_"), NOBODY)
@pytest.mark.parametrize("status", ["Start", "Interim-Update"])
def test_rows_8_to_10_a_packet_of_nobody_takes_the_address_from_whoever_had_it(
    status: str, changes: dict[str, str | None], reason: NotBound, open_: bool
) -> None:
    result = outcome(**{"Acct_Status_Type": status, **changes})
    assert result.event is not None
    assert (result.event.user, result.event.addresses) == ("", (parse_prefix("10.1.2.3"),))
    assert result.not_bound is reason
    # Who is not said to be a machine or a device may be the user that the session has: a resumed EAP session, say.
    assert result.event.keeps_user == open_


def test_a_packet_of_nobody_without_an_address_is_nothing() -> None:
    assert outcome(User_Name="anonymous", Framed_IP_Address=None)[:2] == (None, NotBound.NEVER_BOUND)


def test_groups_of_attributes_are_told_and_those_left_out_counted() -> None:
    rules = [GroupRule("Class", f"radius.{name}", value="all") for name in "abcd"]
    told = replace(RULES, users=Users(Naming(), (USER_NAME,), rules, standard()))
    pairs = packet({"Class": f"0x{b'all'.hex()}"})
    result = interpret(pairs, CLIENT, told, NOW)
    assert result.event is not None
    assert (result.event.groups, result.groups_left_out) == (("radius.a", "radius.b", "radius.c"), 1)
    limited = interpret(pairs, replace(CLIENT, groups=frozenset({"radius.d"})), told, NOW)
    assert limited.event is not None
    assert limited.event.groups == ("radius.d",)


def test_an_attribute_may_name_addresses_and_the_user() -> None:
    source = Source("Cisco-AVPair", re.compile("^addr=(.+)$"))
    rules = Rules(
        default_lease=HOUR,
        shared=Networks([]),
        addresses=Addresses([source], standard()),
        users=Users(Naming(), (Source("Cisco-AVPair", re.compile("^user=(.+)$")),), (), standard()),
    )
    pairs = packet({"User-Name": None, "Framed-IP-Address": None})
    pairs += [pair for text in ("addr=10.1.2.3", "user=Bob") for pair in assign(f"Cisco-AVPair={text}", standard())]
    result = interpret(pairs, CLIENT, rules, NOW)
    assert result.event is not None
    assert (result.event.user, result.event.addresses) == ("bob", (parse_prefix("10.1.2.3"),))


@pytest.mark.parametrize("status", ["Start", "Interim-Update"])
def test_a_shared_network_is_never_bound(status: str) -> None:
    """NAT and terminal servers: many people are behind one address."""
    result = outcome(Acct_Status_Type=status, Framed_IP_Address="10.66.0.1", Framed_IPv6_Address="2001:db8::1")
    assert result.event is not None
    assert [str(address) for address in result.event.addresses] == ["2001:db8::1"]
    assert [str(address) for address in result.refused] == ["10.66.0.1"]
    assert outcome(Acct_Status_Type=status, Framed_IP_Address="10.66.255.255").event is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.1.2.3",
        "169.254.1.1",
        "224.0.0.1",
        "239.255.255.250",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.66.0.1",
    ],
)
def test_what_is_nobodys_is_not_bound_though_the_clients_networks_have_it(address: str) -> None:
    name = "Framed_IPv6_Address" if ":" in address else "Framed_IP_Address"
    result = outcome(EVERYWHERE, **{"Framed_IP_Address": None, name: address})
    assert result.not_bound is NotBound.ADDRESS_NOT_ALLOWED
    assert len(result.refused) == 1


def test_of_several_addresses_the_allowed_ones_are_bound_and_the_others_told() -> None:
    result = outcome(Framed_IPv6_Address=["2001:db8::1", "fe80::1", "2001:db8::2", "2001:db8::1", "2001:db9::1"])
    assert result.event is not None
    assert [str(a) for a in result.event.addresses] == ["10.1.2.3", "2001:db8::1", "2001:db8::2"]
    assert [str(a) for a in result.refused] == ["fe80::1", "2001:db9::1"]


def test_a_v4_mapped_address_is_the_v4_address() -> None:
    assert event(Framed_IPv6_Address="::ffff:10.1.2.3").addresses == (parse_prefix("10.1.2.3"),)


@pytest.mark.parametrize(
    ("realms", "name", "bound"),
    [
        (None, "alice@elsewhere.example", True),
        ({"example.org"}, "alice@example.org", True),
        ({"example.org"}, "alice@EXAMPLE.ORG", True),
        ({"example.org"}, "alice", False),
        ({"example.org", ""}, "alice", True),
        ({"example.org"}, "CORP\\alice", False),
        ({"Corp", ""}, "CORP\\alice", True),
        ({""}, "CORP\\alice", False),
    ],
)
def test_a_client_binds_only_users_of_its_realms(realms: set[str] | None, name: str, bound: bool) -> None:
    client = replace(CLIENT, realms=None if realms is None else frozenset(map(str.lower, realms)))
    result = outcome(client, User_Name=name)
    assert result.event is not None
    assert bool(result.event.user) == bound
    assert result.not_bound is (None if bound else NotBound.REALM)
    assert not result.event.keeps_user


def test_a_realm_that_is_taken_off_is_still_the_one_that_a_client_needs() -> None:
    rules = replace(RULES, users=Users(Naming.check({"example.org": ""}, ()), (USER_NAME,), (), standard()))
    client = replace(CLIENT, realms=frozenset({"example.org"}))
    for name, user in (("alice@example.org", "alice"), ("alice", "")):
        result = interpret(packet({"User-Name": name}), client, rules, NOW)
        assert result.event is not None
        assert result.event.user == user


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({}, NOW),
        ({"Acct_Delay_Time": "30"}, NOW - 30),
        ({"Acct_Delay_Time": "4294967295"}, NOW),
        ({"Event_Timestamp": "1699999990"}, 1699999990.0),
        ({"Event_Timestamp": "1699999990", "Acct_Delay_Time": "5"}, 1699999990.0),
        ({"Event_Timestamp": "1700000300"}, 1700000300.0),
        ({"Event_Timestamp": "1700000301"}, NOW),
        ({"Event_Timestamp": "1700000301", "Acct_Delay_Time": "5"}, NOW - 5),
        ({"Event_Timestamp": str(1_700_000_000 - 7 * 86400 + 1)}, 1_700_000_001.0 - 7 * 86400),
        ({"Event_Timestamp": str(1_700_000_000 - 7 * 86400)}, NOW),
        ({"Event_Timestamp": "0"}, NOW),
    ],
)
def test_when_it_happened_rfc_2869_5_3(changes: dict[str, str], at: float) -> None:
    assert event(**changes).at == at


def test_a_session_timeout_counts_from_the_start_so_that_interim_updates_do_not_stretch_it() -> None:
    interim = event(Acct_Status_Type="Interim-Update", Acct_Session_Time="600", Session_Timeout="3600")
    assert interim.started == NOW - 600
    assert interim.expires == NOW + 3000


def test_a_session_timeout_that_is_over_is_told_as_it_is() -> None:
    assert event(Acct_Session_Time="600", Session_Timeout="60").expires == NOW - 540


@pytest.mark.parametrize("none", ["0", "4294967295"])
def test_a_session_timeout_that_means_none_is_none(none: str) -> None:
    assert event(Session_Timeout=none).expires == NOW + 8 * HOUR


def test_the_clients_lease_comes_before_the_default_and_counts_from_the_event() -> None:
    client = replace(CLIENT, lease=60)
    assert event(client, Event_Timestamp="1699999990", Acct_Session_Time="600").expires == 1699999990 + 60


def test_a_session_time_that_no_session_has_is_ignored() -> None:
    assert event(Acct_Session_Time="4294967295").started == NOW


@pytest.mark.parametrize(
    ("changes", "session"),
    [
        ({}, "switch-1/5E2A"),
        ({"NAS_IP_Address": "198.51.100.7"}, "switch-1/5E2A"),
        ({"NAS_Identifier": None, "NAS_IP_Address": "198.51.100.7"}, "198.51.100.7/5E2A"),
        ({"NAS_Identifier": None, "NAS_IPv6_Address": "2001:db8::7"}, "2001:db8::7/5E2A"),
        ({"NAS_Identifier": None}, "campus/5E2A"),
        ({"NAS_Identifier": "a/b", "Acct_Session_Id": "%/\udcff\0"}, "a%2Fb/%25%2F%FF%00"),
    ],
)
def test_a_session_is_named_after_its_nas_and_its_id_rfc_2866_5_5(changes: dict[str, str | None], session: str) -> None:
    assert event(**changes).session == session


def test_a_stop_without_an_address_is_an_event_without_addresses() -> None:
    stop = event(Acct_Status_Type="Stop", Framed_IP_Address=None)
    assert (stop.kind, stop.addresses, stop.session) == (Kind.STOP, (), "switch-1/5E2A")


def test_a_stop_ends_what_could_not_be_bound_any_more() -> None:
    client = replace(CLIENT, realms=frozenset({"example.org"}))
    stop = event(client, Acct_Status_Type="Stop", User_Name=None, Framed_IP_Address="10.66.0.1")
    assert (stop.user, stop.addresses, stop.groups) == ("", (parse_prefix("10.66.0.1"),), ())


def test_a_stop_never_names_an_address_outside_the_clients_networks() -> None:
    result = outcome(Acct_Status_Type="Stop", Framed_IP_Address="192.0.2.1")
    assert result.event is not None
    assert result.event.addresses == ()
    assert result.refused == (parse_prefix("192.0.2.1"),)


def test_a_value_of_the_wrong_length_is_ignored_and_counted() -> None:
    pairs = [*packet({}), (168, b"short"), (27, b"\0"), (55, bytes(8))]
    result = interpret(pairs, CLIENT, RULES, NOW)
    assert result.event is not None
    assert result.event.at == NOW
    assert result.ignored == 3


def test_the_first_of_a_repeated_attribute_counts() -> None:
    assert event(User_Name=["alice", "bob"]).user == "alice"


attributes = st.lists(
    st.tuples(
        st.sampled_from([1, 4, 8, 27, 31, 32, 40, 41, 44, 46, 55, 95, 168]) | st.integers(0, 255),
        st.binary(max_size=20) | st.sampled_from([bytes((0, 0, 0, n)) for n in range(10)]),
    ),
    max_size=15,
)


@given(attributes)
def test_any_attributes_are_an_event_or_a_reason(pairs: list[Attribute]) -> None:
    result = interpret(pairs, EVERYWHERE, RULES, NOW)
    if result.event is None or not result.event.user:
        stops = result.event is not None and result.event.kind is Kind.STOP
        assert (result.not_bound is None) == stops
    else:
        assert result.not_bound is None


@given(attributes, st.binary(max_size=253))
def test_no_packet_binds_outside_the_clients_networks(pairs: list[Attribute], name: bytes) -> None:
    result = interpret([*packet({}), (1, name), *pairs], CLIENT, RULES, NOW)
    if result.event is not None:
        assert all(address in CLIENT.networks for address in result.event.addresses)


@given(
    st.binary(max_size=253)
    | st.text("$/%. \\@\0\n\u202eab" + "ü", max_size=60).map(lambda text: text.encode())
    | st.sampled_from([b"..", b"$", b"$$", b"$dba$", b"a/../../$service$/x", b"%2F", b"x" * 253, b"\xff" * 253])
)
def test_no_user_name_leaves_its_group(name: bytes) -> None:
    result = interpret([(1, name), *packet({"User-Name": None})], CLIENT, RULES, NOW)
    assert result.event is not None
    if not result.event.user:
        assert result.not_bound is not None
        return
    key = Keys().group_member(user_group(result.event.user), result.event.addresses[0])
    assert re.fullmatch(r"befw/\$alias\$/\$user\.[A-Za-z0-9._@+%-]+\$/10\.1\.2\.3", key)


@given(st.binary(max_size=253), st.binary(max_size=253))
def test_different_octets_are_different_text_without_slashes_and_of_bounded_length(a: bytes, b: bytes) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._:@+~% -]*", plain(a))
    assert len(plain(a)) <= LONGEST_ID + 1
    assert (plain(a) == plain(b)) == (a == b)


PREFIXES = replace(RULES, addresses=Addresses([Source("Framed-IPv6-Prefix")], standard()))


@pytest.mark.parametrize(
    ("prefix", "bound"),
    [
        ("2001:db8:1::/64", True),
        ("2001:db8::/32", True),
        ("2001:db8::/31", False),
        ("2001::/16", False),
        ("::/0", False),
        ("fe80::/64", False),
    ],
)
def test_a_prefix_is_bound_only_as_a_whole_rfc_3162_2_3(prefix: str, bound: bool) -> None:
    result = interpret(packet({"Framed-IP-Address": None, "Framed-IPv6-Prefix": prefix}), CLIENT, PREFIXES, NOW)
    assert (result.event is not None) == bound


def test_a_prefix_around_what_is_never_bound_is_not_bound() -> None:
    rules = replace(PREFIXES, shared=Networks([parse_prefix("2001:db8:1:2::/64")]))
    for prefix, bound in (("2001:db8:1::/48", False), ("2001:db8:1:2::/64", False), ("2001:db8:1:3::/64", True)):
        result = interpret(packet({"Framed-IP-Address": None, "Framed-IPv6-Prefix": prefix}), CLIENT, rules, NOW)
        assert (result.event is not None) == bound


def test_a_prefix_is_not_bound_unless_configured() -> None:
    result = outcome(Framed_IP_Address=None, Framed_IPv6_Prefix="2001:db8:1::/64")
    assert result.not_bound is NotBound.NO_ADDRESS


def test_attributes_that_do_not_belong_in_a_request_change_nothing_rfc_2866_5_13() -> None:
    foreign = [(2, bytes(16)), (3, bytes(17)), (18, b"hello"), (24, b"state")]
    assert interpret([*foreign, *packet({})], CLIENT, RULES, NOW) == interpret(packet({}), CLIENT, RULES, NOW)


def test_a_request_without_a_name_of_its_nas_is_tolerated_rfc_2866_4_1() -> None:
    assert event(NAS_Identifier=None).nas == CLIENT.name


def test_neither_class_nor_acct_multi_session_id_names_a_session_rfc_2865_5_25_rfc_3580_2_2() -> None:
    assert event(Class="0x0102", Acct_Multi_Session_Id="M1", Chargeable_User_Identity="0x31") == event()


def test_addresses_of_ipv6_may_repeat_rfc_6911_3_1() -> None:
    bound = event(Framed_IP_Address=None, Framed_IPv6_Address=["2001:db8::1", "2001:db8::2"]).addresses
    assert [str(address) for address in bound] == ["2001:db8::1", "2001:db8::2"]


def test_an_interface_id_or_a_delegated_prefix_is_no_address_rfc_3162_2_2_rfc_4818_3() -> None:
    changes = {"Framed_Interface_Id": "0:0:0:1", "Delegated_IPv6_Prefix": "2001:db8::/48"}
    assert outcome(Framed_IP_Address=None, **changes).not_bound is NotBound.NO_ADDRESS
