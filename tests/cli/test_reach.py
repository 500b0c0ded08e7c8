"""How much a member stands for, and when that is so much that one is asked."""

import pytest

from radius_bridge.cli.reach import MUCH, Reach, contains, weight
from radius_bridge.policy.members import parse_prefix


@pytest.mark.parametrize(
    ("network", "addresses"),
    [
        ("192.0.2.1", 1),
        ("192.0.2.0/24", 256),
        ("10.0.0.0/8", 1 << 24),
        ("0.0.0.0/0", 1 << 32),
        ("2001:db8::1", 1),
        ("2001:db8::/64", 1),
        ("2001:db8::/48", 1 << 16),
        ("::/0", 1 << 64),
    ],
)
def test_a_network_counts_by_its_addresses_and_in_ipv6_by_its_lans(network: str, addresses: int) -> None:
    assert weight(parse_prefix(network)) == addresses


def test_an_address_is_in_its_networks_and_in_no_others() -> None:
    address = parse_prefix("192.0.2.1")
    assert contains(parse_prefix("192.0.2.0/24"), address)
    assert contains(parse_prefix("0.0.0.0/0"), address)
    assert not contains(parse_prefix("192.0.3.0/24"), address)
    assert not contains(parse_prefix("::/0"), address)


def test_what_is_hit_is_said_in_a_sentence() -> None:
    assert str(Reach()) == "nobody"
    assert str(Reach(1, {"alice"})) == "1 address and 1 user"
    many = Reach(1 << 24, behind={"alice", "bob"}, hosts=3)
    assert str(many) == "16,777,216 addresses (2 users logged in there now), on 3 hosts"
    assert str(Reach(users={"a", "b"}, more=True)) == "2 users and more in further groups"


def test_only_much_is_asked_about() -> None:
    assert not Reach(MUCH - 1, {str(number) for number in range(MUCH - 1)}).is_much
    assert Reach(MUCH).is_much
    assert Reach(users={str(number) for number in range(MUCH)}).is_much
    assert Reach(more=True).is_much
