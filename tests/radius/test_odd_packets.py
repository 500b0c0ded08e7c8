"""What real vendors send that is odd, and legal or nearly so: it is answered, and means what it can mean."""

import asyncio
from typing import Any

import pytest

from radius_bridge.identity.events import Event, Kind, Restart
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius import genuine
from radius_bridge.radius.accounting import Outcome, Rules, interpret
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.clients import Client, Networks
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import HEADER, MAX_LENGTH, Attribute, accounting_request, is_response, parse
from radius_bridge.radius.service import Drop, Service

SECRET = b"a shared secret!"
NOW = 1_700_000_000.0
NETWORKS = Networks([parse_prefix("10.0.0.0/8"), parse_prefix("2001:db8::/32")])
CLIENT = Client("campus", parse_prefix("198.51.100.1"), SECRET, NETWORKS)
RULES = Rules(default_lease=3600, shared=Networks([]))


def written(*texts: str) -> list[Attribute]:
    return [pair for text in texts for pair in assign(text, standard())]


LOGIN = written("Acct-Status-Type=Start", "User-Name=alice", "Acct-Session-Id=5E2A", "NAS-Identifier=switch-1")
ADDRESS = written("Framed-IP-Address=10.1.2.3")


class Line:
    """A service, and what it answers and records."""

    def __init__(self) -> None:
        self.events: list[Event | Restart] = []
        self.responses: list[bytes] = []
        self._service = Service(RULES, self._submit)

    def receive(self, data: bytes, source: int = 1, arrival: float = NOW) -> Drop | None:
        return self._service.receive(data, CLIENT, self, None, source, arrival, arrival)

    def send(self, response: bytes, where: Any) -> None:
        self.responses.append(response)

    def name(self, where: Any) -> str:
        return "here"

    def _submit(self, event: Event | Restart) -> asyncio.Future[None]:
        self.events.append(event)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.fixture
async def line() -> Line:
    return Line()


def vsa(vendor: int, *inner: bytes) -> Attribute:
    return 26, vendor.to_bytes(4) + b"".join(inner)


HARMLESS: dict[str, list[Attribute]] = {
    "nothing odd": [],
    "RFC 2865 5.26: several of a vendor's in one": [vsa(9, b"\x01\x05a=b", b"\x01\x05c=d", b"\x02\x06eth")],
    "RFC 2865 5.26: no types and lengths inside": [vsa(529, b"whatever Ascend wrote here")],
    "RFC 2865 5.26: a length of 0 inside": [vsa(9, b"\x01\x00")],
    "RFC 2865 5.26: a length past the end inside": [vsa(2011, b"\x3c\xff10.9.9.9")],
    "RFC 2865 5.26: a vendor and nothing of it": [vsa(2011)],
    "RFC 2865 5.26: less than a vendor": [(26, b"\x00\x00")],
    "WiMAX: a continuation octet": [vsa(24757, b"\x01\x09\x00\x01\x03\x05\x31\x2e\x30")],
    "WiMAX: a value that goes on, and does not": [vsa(24757, b"\x1a\x05\x80ab"), (25, b"between")],
    "RFC 6929 2.1: an extended type without a value": [(241, b"\x01")],
    "RFC 6929 2.2: the last fragment is missing": [(245, b"\x01\x80" + bytes(251))],
    "RFC 6929 2.3: TLVs that do not fit": [(241, b"\x07\x06\xff\x00\x00\x00\x07")],
    "RFC 2865 5: attributes of length 2": [(kind, b"") for kind in (4, 25, 27, 31, 33, 46, 55, 95, 97, 168, 241)],
    "RFC 2865 5: types that nobody has": [(0, b"?"), (192, b"?"), (240, b"?"), (255, b"?")],
    "RFC 2866 5.13: what does not belong there": [(2, bytes(16)), (3, bytes(17)), (18, b"hi"), (24, b"s"), (79, b"e")],
    "RFC 2865 5.8: the same address again": written("Framed-IP-Address=10.1.2.3"),
    "RFC 2865 5.27: a timeout of none": [(27, bytes(4)), (27, b"\xff" * 4)],
    "RFC 2869 5.3: a time of eight octets": [(55, bytes(8))],
    "RFC 3162: prefix and interface": written("Framed-IPv6-Prefix=2001:db8:1::/64", "Framed-Interface-Id=0:0:0:1"),
    "RFC 4372: a chargeable user identity of one NUL": [(89, b"\x00")],
    "RFC 2866 2.1: a chain of proxies": [(33, bytes((hop,)) * hop) for hop in range(20)],
    "a hundred attributes": [(25, bytes((number,))) for number in range(100)],
}


@pytest.mark.parametrize("signed", [False, True], ids=["", "message-authenticator"])
@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("first", [False, True], ids=["behind", "in front"])
async def test_what_is_odd_spoils_nothing_else(line: Line, kind: str, first: bool, signed: bool) -> None:
    odd = HARMLESS[kind]
    attributes = [*odd, *LOGIN, *ADDRESS] if first else [*LOGIN, *ADDRESS, *odd]
    sent = accounting_request(7, attributes, SECRET, message_authenticator=signed)
    assert line.receive(sent) is None
    (event,) = line.events
    assert isinstance(event, Event)
    assert (event.user, event.addresses) == ("alice", (parse_prefix("10.1.2.3"),))
    assert is_response(line.responses[0], sent, SECRET)
    assert parse(line.responses[0]).attributes == [pair for pair in odd if pair[0] == 33]


@pytest.mark.parametrize("status", [0, 4, 5, 6, *range(9, 16), 255, 1 << 31, (1 << 32) - 1])
async def test_rfc_2867_and_others_have_more_kinds_that_are_acknowledged_and_change_nothing(
    line: Line, status: int
) -> None:
    sent = accounting_request(7, [*LOGIN[1:], *ADDRESS, (40, status.to_bytes(4))], SECRET)
    assert line.receive(sent) is None
    assert not line.events
    assert is_response(line.responses[0], sent, SECRET)


@pytest.mark.parametrize("octets", [b"", b"\1", b"\0\0\1", bytes(7) + b"\1"])
async def test_rfc_2865_5_a_kind_that_is_no_integer_is_no_kind(line: Line, octets: bytes) -> None:
    assert line.receive(accounting_request(7, [*LOGIN[1:], *ADDRESS, (40, octets)], SECRET)) is None
    assert not line.events
    assert len(line.responses) == 1


async def test_rfc_7930_2_the_longest_packet_is_recorded_and_all_its_proxies_hear(line: Line) -> None:
    hops: list[Attribute] = [(33, bytes((number,)) * 253) for number in range(15)]
    spare = MAX_LENGTH - len(accounting_request(7, [*LOGIN, *ADDRESS, *hops], SECRET))
    sent = accounting_request(7, [*LOGIN, *ADDRESS, *hops, (33, bytes(spare - 2))], SECRET)
    assert len(sent) == MAX_LENGTH
    assert line.receive(sent + b"padding") is None
    assert len(parse(line.responses[0]).attributes) == 16
    assert len(line.events) == 1


async def test_rfc_5080_2_2_2_an_identifier_comes_again_after_256_others(line: Line) -> None:
    for number in range(1000):
        sent = accounting_request(number % 256, [*LOGIN, *ADDRESS, (46, number.to_bytes(4))], SECRET)
        assert line.receive(sent, arrival=NOW + number / 1000) is None
        assert is_response(line.responses[-1], sent, SECRET)
    assert len(line.events) == len(line.responses) == 1000


@pytest.mark.parametrize("code", [40, 43], ids=["Disconnect-Request", "CoA-Request"])
@pytest.mark.parametrize("age", [None, -600, 0, 5, 600, 10**9])
async def test_rfc_5176_3_dynamic_authorisation_is_discarded_and_counted_fresh_or_not(
    line: Line, code: int, age: int | None
) -> None:
    body = b"".join(bytes((kind, 2 + len(value))) + value for kind, value in [*LOGIN[1:], *ADDRESS])
    if age is not None:
        body += b"\x37\x06" + (int(NOW) - age).to_bytes(4)
    head = bytes((code, 7)) + (HEADER + len(body)).to_bytes(2)
    sent = head + genuine.request_authenticator(head, body, SECRET) + body
    assert genuine.verdict(parse(sent), SECRET) is genuine.Verdict.RIGHT
    assert line.receive(sent) is Drop.NOT_ACCOUNTING
    assert not line.events
    assert not line.responses


def read(arrival: float, *texts: str) -> Outcome:
    return interpret([*LOGIN, *ADDRESS, *written(*texts)], CLIENT, RULES, arrival)


def test_rfc_2866_5_2_a_retransmission_is_the_event_that_the_first_was() -> None:
    for more in ([], [f"Event-Timestamp={int(NOW)}"]):
        first = read(NOW, "Acct-Delay-Time=0", *more).event
        again = read(NOW + 5, "Acct-Delay-Time=5", *more).event
        assert first is not None
        assert again == first


def test_rfc_2869_5_16_an_address_that_comes_with_an_interim_update_only_is_bound() -> None:
    start = interpret(LOGIN, CLIENT, RULES, NOW).event
    assert isinstance(start, Event)
    assert start.addresses == ()
    later = [*written("Acct-Status-Type=Interim-Update"), *LOGIN[1:], *ADDRESS]
    event = interpret(later, CLIENT, RULES, NOW + 600).event
    assert isinstance(event, Event)
    assert (event.kind, event.addresses) == (Kind.INTERIM, (parse_prefix("10.1.2.3"),))


def test_rfc_6911_3_1_an_ipv6_address_that_comes_twice_is_bound_once() -> None:
    event = read(NOW, *["Framed-IPv6-Address=2001:db8::1"] * 2, "Framed-IPv6-Address=2001:db8::2").event
    assert isinstance(event, Event)
    assert [str(address) for address in event.addresses] == ["10.1.2.3", "2001:db8::1", "2001:db8::2"]


def test_rfc_4372_and_rfc_2865_5_25_class_and_chargeable_user_identity_are_opaque() -> None:
    assert read(NOW, "Class=0x626f62", "Chargeable-User-Identity=0x626f62") == read(NOW)
