"""The key space: what is written is read back, BEFW's three scopes and networks included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.policy.members import GroupRef, Member, parse_member, user_group
from radius_bridge.registry.keys import GrantKey, Keys, Scope

KEYS = Keys("befw")
part = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
scopes = st.one_of(st.just(Scope()), st.builds(Scope, part), st.builds(Scope, part, part))
members = st.one_of(
    st.sampled_from(["10.0.0.1", "10.0.0.0/8", "2001:db8::/32", "::1", "0.0.0.0/0"]).map(parse_member),
    st.text(min_size=1, max_size=20).map(user_group),
    part.map(GroupRef),
)


@given(scopes, part.map(lambda name: f"{name}_tcp_22"), members)
def test_a_grants_key_reads_back(scope: Scope, service: str, member: Member) -> None:
    expected = GrantKey(scope, service, member)
    assert KEYS.read_grant(KEYS.grant(scope, service, member)) == expected
    assert KEYS.read_grant(KEYS.set_member(scope, service, member)) == expected


@given(members, st.text(max_size=60))
def test_a_group_members_key_reads_back_and_stays_in_its_group(member: Member, name: str) -> None:
    key = KEYS.group_member(user_group(name), member)
    assert key.startswith("befw/$alias$/$user.")
    if len(user_group(name).name) <= 800:
        assert KEYS.read_group_member(key) == (user_group(name), member)


def test_the_keys_are_those_of_befw() -> None:
    ten = parse_member("10.0.0.0/8")
    assert KEYS.grant(Scope("dc1", "web1"), "ssh_tcp_22", ten) == "befw/$service$/dc1/web1/ssh_tcp_22/10.0.0.0/8"
    assert KEYS.set_member(Scope(), "rules_deny", ten) == "befw/$ipset$/rules_deny/10.0.0.0/8"
    assert KEYS.group_member(GroupRef("staff"), user_group("al/ice")) == "befw/$alias$/$staff$/$user.al%2Fice$"


@pytest.mark.parametrize(
    "tail", ["ssh_tcp_22", "ssh_tcp_22/", "a/b/c/d/10.0.0.1", "ssh_tcp_22/alice", "/10.0.0.1", "x//y/1.1.1.1"]
)
def test_a_key_that_is_no_grant_is_refused(tail: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        KEYS.read_grant(f"befw/$service$/{tail}")


def test_a_node_needs_its_datacenter() -> None:
    with pytest.raises(ValueError, match="datacenter"):
        Scope("", "web1")
