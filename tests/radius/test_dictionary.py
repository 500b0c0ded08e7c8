"""Names, numbers and types of attributes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.radius.dictionary import Definition, Dictionary, standard


@pytest.mark.parametrize(
    ("name", "number", "kind"),
    [
        ("User-Name", 1, "string"),
        ("Framed-IP-Address", 8, "ipaddr"),
        ("Acct-Status-Type", 40, "integer"),
        ("Event-Timestamp", 55, "date"),
        ("Message-Authenticator", 80, "octets"),
        ("NAS-IPv6-Address", 95, "ipv6addr"),
        ("Framed-Interface-Id", 96, "ifid"),
        ("Delegated-IPv6-Prefix", 123, "ipv6prefix"),
        ("Framed-IPv6-Address", 168, "ipv6addr"),
    ],
)
def test_attributes_are_found_by_name_and_number(name: str, number: int, kind: str) -> None:
    assert standard()[name] == standard()[number]
    assert (standard()[name].number, standard()[name].type) == (number, kind)


def test_no_number_is_given_twice() -> None:
    numbers = [attribute.number for attribute in standard()]
    assert len(numbers) == len(set(numbers)) > 100


def test_values_have_names() -> None:
    assert standard()["Acct-Status-Type"].values["Interim-Update"] == 3
    assert standard()["Acct-Status-Type"].encode("Accounting-Off") == bytes((0, 0, 0, 8))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("User-Name", "Jürgen", "Jürgen"),
        ("Class", "0x00ff", b"\x00\xff"),
        ("Acct-Session-Time", "4294967295", 4294967295),
        ("Event-Timestamp", "1700000000", 1700000000),
        ("Framed-IP-Address", "192.0.2.1", parse_prefix("192.0.2.1")),
        ("Framed-IPv6-Address", "2001:db8::1", parse_prefix("2001:db8::1")),
        ("Framed-IPv6-Prefix", "2001:db8::/32", parse_prefix("2001:db8::/32")),
    ],
)
def test_what_people_write_is_read_back(name: str, text: str, value: object) -> None:
    assert standard()[name].decode(standard()[name].encode(text)) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Acct-Status-Type", "Begin"),
        ("Acct-Session-Time", "-1"),
        ("Acct-Session-Time", "4294967296"),
        ("Framed-IP-Address", "2001:db8::1"),
        ("Framed-IPv6-Prefix", "2001:db8::1/32"),
        ("Class", "xyz"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - messages are for people
        standard()[name].encode(text)


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("Acct-Session-Time", b"\0\0\0"),
        ("Event-Timestamp", bytes(8)),
        ("Framed-IP-Address", bytes(16)),
        ("Framed-IPv6-Address", bytes(4)),
        ("Framed-IPv6-Prefix", b"\0"),
        ("Framed-IPv6-Prefix", b"\0\x81" + bytes(16)),
        ("Framed-IPv6-Prefix", b"\0\x40" + bytes(7)),
        ("Framed-IPv6-Prefix", b"\0\x08\x20\x01"),
    ],
)
def test_a_value_of_the_wrong_length_is_refused(name: str, octets: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - messages are for people
        standard()[name].decode(octets)


def test_a_prefix_needs_only_the_octets_it_has() -> None:
    octets = b"\0\x20\x20\x01\x0d\xb8"
    assert standard()["Framed-IPv6-Prefix"].decode(octets) == Prefix(6, 0x20010DB8 << 96, 32)


@given(st.sampled_from(list(standard())), st.binary(max_size=253))
def test_any_octets_are_a_value_or_a_value_error(attribute: Definition, octets: bytes) -> None:
    try:
        value = attribute.decode(octets)
    except ValueError:
        return
    if isinstance(value, str):
        assert value.encode("utf-8", "surrogateescape") == octets


def test_a_type_that_is_not_known_is_an_error_at_start(tmp_path: Path) -> None:
    file = tmp_path / "dictionary"
    file.write_text("ATTRIBUTE\tFoo\t200\tether\n")
    with pytest.raises(ValueError, match="Foo has type ether"):
        Dictionary(file)
