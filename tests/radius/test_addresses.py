"""Which attributes name the user's addresses."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.radius.addresses import DEFAULT, Addresses, Source
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import Attribute


def read(sources: tuple[Source, ...], *texts: str) -> tuple[list[str], int]:
    """What the sources find in attributes written as NAME=VALUE; the rest of a packet is left out."""
    made = Addresses(sources, standard())
    attributes = [pair for text in texts for pair in assign(text, standard())]
    found, ignored = made.read(attributes)
    return [str(address) for address in found], ignored


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["Framed-IP-Address=10.1.2.3"], ["10.1.2.3"]),
        (["Framed-IPv6-Address=2001:db8::1", "Framed-IP-Address=10.1.2.3"], ["10.1.2.3", "2001:db8::1"]),
        # RFC 6911 §3.1: the attribute may repeat.
        (["Framed-IPv6-Address=2001:db8::1", "Framed-IPv6-Address=2001:db8::2"], ["2001:db8::1", "2001:db8::2"]),
        (["Framed-IP-Address=10.1.2.3", "Framed-IP-Address=10.1.2.3"], ["10.1.2.3"]),
        (["Framed-IPv6-Address=::ffff:10.1.2.3"], ["10.1.2.3"]),
        # RFC 2865 §5.8: the user or the NAS shall choose.
        (["Framed-IP-Address=255.255.255.255"], []),
        (["Framed-IP-Address=255.255.255.254"], []),
        (["Framed-IP-Address=0.0.0.0"], []),
        (["Framed-IPv6-Prefix=2001:db8::/64", "Delegated-IPv6-Prefix=2001:db8::/56"], []),
        (["Huawei-IPHost-Addr=10.1.2.3 02:00:00:00:00:01"], ["10.1.2.3"]),
        (["H3C-Ip-Host-Addr=10.1.2.3 02:00:00:00:00:01"], ["10.1.2.3"]),
        (["Aruba-Framed-IPv6-Address=2001:db8::1"], ["2001:db8::1"]),
        (["Huawei-Framed-IPv6-Address=2001:db8::1", "User-Name=alice"], ["2001:db8::1"]),
        (["Cisco-AVPair=addr=10.1.2.3", "Mikrotik-Host-IP=10.1.2.4"], []),
    ],
)
def test_where_addresses_are_if_nothing_is_configured(texts: list[str], found: list[str]) -> None:
    assert read(DEFAULT, *texts) == (found, 0)


def test_where_huawei_puts_the_address_counts_only_if_the_standard_place_has_none() -> None:
    vendors = "Huawei-IPHost-Addr=10.1.2.3 02:00:00:00:00:01"
    assert read(DEFAULT, "Framed-IP-Address=255.255.255.255", vendors) == (["10.1.2.3"], 0)
    assert read(DEFAULT, vendors, "Framed-IP-Address=10.9.9.9") == (["10.9.9.9"], 0)
    assert read(DEFAULT, vendors, "Framed-IPv6-Address=2001:db8::1") == (["2001:db8::1", "10.1.2.3"], 0)


def test_the_order_of_the_sources_counts_not_that_of_the_packet() -> None:
    sources = Source("Mikrotik-Host-IP"), Source("Framed-IP-Address")
    texts = ["Framed-IP-Address=10.0.0.1", "Mikrotik-Host-IP=10.0.0.2"]
    assert read(sources, *texts) == (["10.0.0.2"], 0)
    assert read(sources[::-1], *texts) == (["10.0.0.1"], 0)


def test_a_pattern_finds_the_address_in_text() -> None:
    source = Source("Cisco-AVPair", re.compile("^addr=(.+)$"))
    texts = ["Cisco-AVPair=audit-session-id=1", "Cisco-AVPair=addr=10.0.0.1", "Cisco-AVPair=addr=2001:db8::1"]
    assert read((source,), *texts) == (["10.0.0.1", "2001:db8::1"], 0)
    assert read((source,), "Cisco-AVPair=addr=nowhere", "Cisco-AVPair=addr=10.0.0.0/8") == ([], 2)


def test_a_prefix_is_bound_if_it_is_configured() -> None:
    texts = ["Framed-IPv6-Prefix=2001:db8:1::/64", "Framed-IPv6-Prefix=2001:db8:2::/64"]
    assert read((Source("Framed-IPv6-Prefix"),), *texts) == (["2001:db8:1::/64", "2001:db8:2::/64"], 0)


def test_tlvs_may_name_addresses() -> None:
    assert read((Source("IP-Port-Map-Int-IPv4-Addr"),), "IP-Port-Map-Int-IPv4-Addr=10.0.0.1") == (["10.0.0.1"], 0)


@pytest.mark.parametrize(
    "attribute",
    [
        (8, b"\x0a\0\0"),
        (26, b"\0\0\x07\xdb\x3c"),
        (26, b"\0\0\x07\xdb\x3c\x0b10.1.2.3x"),
        (26, b"\0\0\x39\xe7\x0b\x05abc"),
    ],
)
def test_a_value_that_is_no_address_is_left_out_and_counted(attribute: Attribute) -> None:
    found, ignored = Addresses(DEFAULT, standard()).read([attribute])
    assert found == []
    # Text that does not have the pattern's form is about something else; the others ought to be addresses.
    assert ignored == (0 if b"10.1.2.3x" in attribute[1] else 1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("Nobody"), "know no attribute of this name"),
        (Source("Session-Timeout"), "has type integer"),
        (Source("Framed-IP-Address", re.compile("(x)")), "a pattern needs text"),
        (Source("Cisco-AVPair", re.compile("x")), "a group for the address"),
    ],
)
def test_a_source_without_addresses_is_refused(source: Source, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Addresses([source], standard())


@given(st.lists(st.tuples(st.sampled_from([8, 26, 168]), st.binary(max_size=40)), max_size=8))
def test_whatever_comes_addresses_are_single_ones_and_come_once(attributes: list[Attribute]) -> None:
    found, _ = Addresses(DEFAULT, standard()).read(attributes)
    assert len(found) == len(set(found))
    assert all(address.is_host for address in found)
