"""What packets mean: the event they are, or why they are none."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.identity.events import Event, Kind, Restart
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.accounting import LONGEST_ID, NotBound, Outcome, Rules, interpret, plain
from radius_bridge.radius.addresses import Addresses, Source
from radius_bridge.radius.clients import Client, Networks
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import Attribute

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
    assert isinstance(result.event, Event)
    assert result.not_bound is None
    return result.event


def test_a_start_is_an_event() -> None:
    assert event(Calling_Station_Id="02-00-00-00-00-01") == Event(
        kind=Kind.START,
        user="alice",
        session="switch-1/5E2A",
        addresses=(parse_prefix("10.1.2.3"),),
        at=NOW,
        heard=NOW,
        started=NOW,
        source="campus",
        lease=8 * HOUR,
        longest=24 * HOUR,
        mac="02:00:00:00:00:01",
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
        ({"Acct_Status_Type": "Failed"}, NotBound.UNKNOWN_STATUS),
        ({"Acct_Status_Type": "99"}, NotBound.UNKNOWN_STATUS),
        ({"Acct_Status_Type": None}, NotBound.UNKNOWN_STATUS),
        ({"Acct_Session_Id": None}, NotBound.NO_SESSION_ID),
        ({"Acct_Session_Id": ""}, NotBound.NO_SESSION_ID),
    ],
)
@pytest.mark.parametrize("status", ["Start", "Interim-Update"])
def test_what_is_acknowledged_and_not_bound(status: str, changes: dict[str, str | None], reason: NotBound) -> None:
    result = outcome(**{"Acct_Status_Type": status, **changes})
    assert (result.event, result.not_bound) == (None, reason)


@pytest.mark.parametrize("address", [None, "0.0.0.0", "255.255.255.254", "255.255.255.255"])
@pytest.mark.parametrize("status", ["Start", "Interim-Update", "Stop"])
def test_a_packet_that_names_no_address_tells_of_its_session_all_the_same(status: str, address: str | None) -> None:
    assert event(Acct_Status_Type=status, Framed_IP_Address=address).addresses == ()


@pytest.mark.parametrize("address", ["192.0.2.1", "10.66.0.1"])
@pytest.mark.parametrize("status", ["Start", "Interim-Update"])
def test_an_address_that_the_client_may_not_bind_is_left_out_and_told(status: str, address: str) -> None:
    result = outcome(Acct_Status_Type=status, Framed_IP_Address=address)
    assert isinstance(result.event, Event)
    assert (result.event.addresses, result.refused) == ((), (parse_prefix(address),))


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
    assert isinstance(result.event, Event)
    assert result.event.addresses == ()
    assert len(result.refused) == 1


def test_of_several_addresses_the_allowed_ones_are_bound_and_the_others_told() -> None:
    result = outcome(Framed_IPv6_Address=["2001:db8::1", "fe80::1", "2001:db8::2", "2001:db8::1", "2001:db9::1"])
    assert isinstance(result.event, Event)
    assert [str(a) for a in result.event.addresses] == ["10.1.2.3", "2001:db8::1", "2001:db8::2"]
    assert [str(a) for a in result.refused] == ["fe80::1", "2001:db9::1"]


def test_a_v4_mapped_address_is_the_v4_address() -> None:
    assert event(Framed_IPv6_Address="::ffff:10.1.2.3").addresses == (parse_prefix("10.1.2.3"),)


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
    assert interim.timeout == 3600


@pytest.mark.parametrize("none", ["0", "4294967295"])
def test_a_session_timeout_that_means_none_is_none(none: str) -> None:
    assert event(Session_Timeout=none).timeout == 0


def test_the_clients_lease_comes_before_the_default() -> None:
    assert event(replace(CLIENT, lease=60)).lease == 60


def test_terms_count_by_our_clock_however_wrong_that_of_the_nas_is() -> None:
    ahead = event(Event_Timestamp=str(int(NOW) + 250), Acct_Delay_Time="7")
    assert (ahead.at, ahead.heard, ahead.started) == (int(NOW) + 250, NOW - 7, NOW - 7)


def test_a_stop_that_does_not_tell_how_long_its_session_was_does_not_say_when_it_began() -> None:
    assert event(Acct_Status_Type="Stop").started == 0.0
    assert event(Acct_Status_Type="Stop", Acct_Session_Time="60").started == NOW - 60


@pytest.mark.parametrize("status", ["Accounting-On", "Accounting-Off"])
def test_accounting_on_and_off_say_that_the_nas_restarted_rfc_2866_5_1(status: str) -> None:
    told = outcome(Acct_Status_Type=status, Acct_Delay_Time="5", Acct_Session_Id=None, User_Name=None)
    assert told.event == Restart("campus", "switch-1", NOW - 5, NOW - 5)
    told = outcome(Acct_Status_Type=status, NAS_Identifier=None, Event_Timestamp="1700000000")
    assert told.event == Restart("campus", "", 1_700_000_000.0, NOW)


def test_acct_multi_session_id_tells_which_sessions_are_one_stations_rfc_3580_2_2() -> None:
    assert event(Acct_Multi_Session_Id="M/1").multi == "M%2F1"
    assert event().multi == ""


@pytest.mark.parametrize("spelling", ["02-00-00-00-00-01", "0200.0000.0001", "020000000001:ssid"])
def test_the_station_is_known_by_its_mac_address_however_it_is_spelt(spelling: str) -> None:
    assert event(Calling_Station_Id=spelling).mac == "02:00:00:00:00:01"


def test_a_calling_station_id_that_is_no_mac_address_tells_no_station() -> None:
    assert event(Calling_Station_Id="192.0.2.7").mac == ""


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
    assert (stop.user, stop.addresses) == ("", (parse_prefix("10.66.0.1"),))


def test_a_stop_never_names_an_address_outside_the_clients_networks() -> None:
    result = outcome(Acct_Status_Type="Stop", Framed_IP_Address="192.0.2.1")
    assert isinstance(result.event, Event)
    assert result.event.addresses == ()
    assert result.refused == (parse_prefix("192.0.2.1"),)


def test_a_value_of_the_wrong_length_is_ignored_and_counted() -> None:
    pairs = [*packet({}), (168, b"short"), (27, b"\0"), (55, bytes(8))]
    result = interpret(pairs, CLIENT, RULES, NOW)
    assert isinstance(result.event, Event)
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
    assert result.event is not None or result.not_bound is not None


@given(attributes, st.binary(max_size=253))
def test_no_packet_binds_outside_the_clients_networks(pairs: list[Attribute], name: bytes) -> None:
    result = interpret([*packet({}), (1, name), *pairs], CLIENT, RULES, NOW)
    if isinstance(result.event, Event):
        assert all(address in CLIENT.networks for address in result.event.addresses)


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
    assert isinstance(result.event, Event)
    assert bool(result.event.addresses) == bound


def test_a_prefix_around_what_is_never_bound_is_not_bound() -> None:
    rules = replace(PREFIXES, shared=Networks([parse_prefix("2001:db8:1:2::/64")]))
    for prefix, bound in (("2001:db8:1::/48", False), ("2001:db8:1:2::/64", False), ("2001:db8:1:3::/64", True)):
        result = interpret(packet({"Framed-IP-Address": None, "Framed-IPv6-Prefix": prefix}), CLIENT, rules, NOW)
        assert isinstance(result.event, Event)
        assert bool(result.event.addresses) == bound


def test_a_prefix_is_not_bound_unless_configured() -> None:
    assert event(Framed_IP_Address=None, Framed_IPv6_Prefix="2001:db8:1::/64").addresses == ()


def test_attributes_that_do_not_belong_in_a_request_change_nothing_rfc_2866_5_13() -> None:
    foreign = [(2, bytes(16)), (3, bytes(17)), (18, b"hello"), (24, b"state")]
    assert interpret([*foreign, *packet({})], CLIENT, RULES, NOW) == interpret(packet({}), CLIENT, RULES, NOW)


def test_a_request_without_a_name_of_its_nas_is_tolerated_rfc_2866_4_1() -> None:
    assert event(NAS_Identifier=None).session == "campus/5E2A"


def test_neither_class_nor_acct_multi_session_id_names_a_session_rfc_2865_5_25_rfc_3580_2_2() -> None:
    more = event(Class="0x0102", Acct_Multi_Session_Id="M1", Chargeable_User_Identity="0x31")
    assert more.session == event().session


def test_addresses_of_ipv6_may_repeat_rfc_6911_3_1() -> None:
    bound = event(Framed_IP_Address=None, Framed_IPv6_Address=["2001:db8::1", "2001:db8::2"]).addresses
    assert [str(address) for address in bound] == ["2001:db8::1", "2001:db8::2"]


def test_an_interface_id_or_a_delegated_prefix_is_no_address_rfc_3162_2_2_rfc_4818_3() -> None:
    changes = {"Framed_Interface_Id": "0:0:0:1", "Delegated_IPv6_Prefix": "2001:db8::/48"}
    assert event(Framed_IP_Address=None, **changes).addresses == ()


def test_an_attribute_that_may_name_an_address_still_says_what_it_always_does() -> None:
    sources = [Source("Framed-IP-Address"), Source("Calling-Station-Id", re.compile(r"^([0-9.]+)$"))]
    rules = replace(RULES, addresses=Addresses([*sources, Source("NAS-IP-Address")], standard()))
    pairs = packet({"Calling-Station-Id": "02-00-00-00-00-01", "NAS-Identifier": None, "NAS-IP-Address": "10.9.9.9"})
    heard = interpret(pairs, CLIENT, rules, NOW).event
    assert isinstance(heard, Event)
    assert (heard.mac, heard.session) == ("02:00:00:00:00:01", "10.9.9.9/5E2A")
