"""Members: how they stand in keys, and how people type them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.policy.members import (
    GroupRef,
    Prefix,
    describe,
    parse_member,
    parse_prefix,
    parse_who,
    user_group,
    user_of,
)

names = st.one_of(st.text(max_size=80), st.binary(max_size=253).map(lambda raw: raw.decode("utf-8", "surrogateescape")))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_an_address_is_read_as_ipaddress_reads_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    prefix = parse_prefix(str(address))
    assert prefix.is_host
    mapped = getattr(address, "ipv4_mapped", None)
    assert str(prefix) == str(mapped or address)


@pytest.mark.parametrize(
    ("mapped", "plain"),
    [
        ("::ffff:192.0.2.1/128", "192.0.2.1"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::fffe:0:0/95", "::fffe:0:0/95"),
    ],
)
def test_a_v4_mapped_network_is_the_v4_network(mapped: str, plain: str) -> None:
    assert str(parse_prefix(mapped)) == plain, "whoever is blocked so must be blocked"


@pytest.mark.parametrize("text", ["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "192.0.2.7"])
def test_networks_keep_their_spelling(text: str) -> None:
    assert str(parse_prefix(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/8",
        "10.0.0/8",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0",
        "fe80::1%eth0",
        "",
        "1",
        "010.0.0.1",
        "x/24",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_prefix(text)


@given(names)
def test_no_user_name_leaves_its_group(name: str) -> None:
    group = user_group(name)
    assert "/" not in str(group)
    assert str(group).startswith("$user.")
    assert str(group).count("$") == 2
    assert str(group).isascii()
    assert str(group).isprintable()
    assert user_of(group) == name


@given(names, names)
def test_two_names_never_share_a_group(a: str, b: str) -> None:
    assert (user_group(a) == user_group(b)) == (a == b)


@given(names.filter(bool))
def test_a_users_group_is_a_member_that_reads_back(name: str) -> None:
    group = user_group(name)
    assert len(group.name) > 800 or parse_member(str(group)) == group


@pytest.mark.parametrize(
    ("typed", "member"),
    [
        ("alice", GroupRef("user.alice")),
        ("alice@corp.example", GroupRef("user.alice@corp.example")),
        ("group:staff", GroupRef("staff")),
        ("192.0.2.1", Prefix(4, 0xC0000201, 32)),
        ("10.0.0.0/8", Prefix(4, 10 << 24, 8)),
        ("user:10.0.0.1", GroupRef("user.10.0.0.1")),
        ("user:a/b", GroupRef("user.a%2Fb")),
    ],
)
def test_what_engineers_type(typed: str, member: GroupRef | Prefix) -> None:
    assert parse_who(typed) == member
    assert describe(member) == typed


@pytest.mark.parametrize(
    "typed", ["", "$staff$", "group:", "group:a/b", "10.0.0.1/8", "a/b", "user:", "a\tb", "10.0.0.300"]
)
def test_what_cannot_be_meant_is_refused_with_a_way_out(typed: str) -> None:
    with pytest.raises(ValueError, match=r"group|user|address"):
        parse_who(typed)


@given(st.from_regex(r"(user\.)?[A-Za-z0-9._@+%-]{1,12}", fullmatch=True))
def test_every_group_is_shown_in_a_way_that_can_be_typed(name: str) -> None:
    assert parse_who(describe(GroupRef(name))) == GroupRef(name), "or who takes back what was listed misses it"


@pytest.mark.parametrize("name", ["user.%61lice", "user.", "user.%zz", "user.%c3%a4", "user.%0A"])
def test_a_group_that_no_user_name_means_is_shown_as_a_group(name: str) -> None:
    assert describe(GroupRef(name)) == f"group:{name}"
