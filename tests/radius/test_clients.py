"""Whose packets are taken: the longest prefix wins."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.radius.clients import Client, Clients, Networks, PrefixTable


def client(name: str, address: str) -> Client:
    return Client(name, parse_prefix(address), b"a shared secret!", Networks([]))


CLIENTS = Clients(
    [
        client("everybody", "0.0.0.0/0"),
        client("campus", "10.0.0.0/8"),
        client("building", "10.1.0.0/16"),
        client("switch", "10.1.2.3"),
        client("v6", "2001:db8::/32"),
        client("v6 switch", "2001:db8::1"),
    ]
)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.1", "everybody"),
        ("10.255.0.1", "campus"),
        ("10.1.255.255", "building"),
        ("10.1.2.3", "switch"),
        ("2001:db8::1", "v6 switch"),
        ("2001:db8::2", "v6"),
        ("2001:db9::1", None),
    ],
)
def test_the_longest_prefix_wins(host: str, name: str | None) -> None:
    address = parse_prefix(host)
    found = CLIENTS.at(address.version, address.number)
    assert (found.name if found else None) == name


def test_a_secret_is_not_shown() -> None:
    assert "shared" not in repr(client("campus", "10.0.0.0/8"))


addresses = st.ip_addresses().map(lambda a: Prefix(a.version, int(a), a.max_prefixlen))


@st.composite
def networks(draw: st.DrawFn) -> Prefix:
    address = draw(addresses)
    length = draw(st.integers(0, address.length))
    shift = address.length - length
    return Prefix(address.version, address.number >> shift << shift, length)


@given(st.lists(networks(), max_size=8), st.data())
def test_a_table_finds_what_a_search_through_all_finds(prefixes: list[Prefix], data: st.DataObject) -> None:
    address = data.draw(addresses)
    if prefixes and address.number % 2:
        inside = data.draw(st.sampled_from(prefixes))
        address = Prefix(inside.version, inside.number, 32 if inside.version == 4 else 128)
    around = [prefix for prefix in prefixes if ipaddress.ip_address(str(address)) in ipaddress.ip_network(str(prefix))]
    table = PrefixTable((prefix, prefix) for prefix in prefixes)
    assert table.find(address.version, address.number) == max(around, key=lambda prefix: prefix.length, default=None)
    assert (address in Networks(prefixes)) == Networks(prefixes).touch(address) == bool(around)


near = st.tuples(st.integers(0, 31), st.integers(0, 5)).map(
    lambda pair: Prefix(4, pair[0] >> 5 - pair[1] << 32 - pair[1], pair[1])
)
"""Networks that are likely to be one in another."""


@given(st.lists(near | networks(), max_size=6), st.lists(near | networks(), max_size=6), near | networks())
def test_a_network_is_in_a_set_as_a_whole_and_left_if_it_touches_nothing_that_was_cut_out(
    prefixes: list[Prefix], others: list[Prefix], candidate: Prefix
) -> None:
    def plain(*those: Prefix) -> list[Any]:  # the library compares networks of one version only
        return [ipaddress.ip_network(str(each)) for each in those if each.version == candidate.version]

    kept, cut = Networks(prefixes), Networks(others)
    (own,) = plain(candidate)
    is_in = any(own.subnet_of(each) for each in plain(*prefixes))
    touches = any(own.overlaps(each) for each in plain(*others))
    assert (candidate in kept, cut.touch(candidate)) == (is_in, touches)
    assert (candidate in kept.without(cut)) == (is_in and not touches)
