"""Groups and grants out of Consul's entries; what cannot be understood grants nothing and is named."""

from typing import NamedTuple

from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import GroupRef, parse_member
from radius_bridge.registry.keys import GrantKey, Keys, Scope
from radius_bridge.registry.reading import for_host, read_grants, read_groups

KEYS = Keys()


class Entry(NamedTuple):
    key: str
    value: bytes


ONE = parse_member("10.0.0.1")


def test_groups_with_their_members() -> None:
    entries = [
        Entry("befw/$alias$/", b""),
        Entry("befw/$alias$/$user.alice$/10.0.0.1", b"1800000000"),
        Entry("befw/$alias$/$staff$/$user.alice$", b"-1"),
    ]
    reading = read_groups(KEYS, entries)
    assert reading.data == {
        GroupRef("user.alice"): {ONE: 1_800_000_000},
        GroupRef("staff"): {GroupRef("user.alice"): NEVER},
    }
    assert not reading.problems


def test_garbage_grants_nothing_and_is_named() -> None:
    entries = [
        Entry("befw/$alias$/$a$/10.0.0.1", b"tomorrow"),
        Entry("befw/$alias$/$a$/10.0.0.999", b"-1"),
        Entry("befw/$alias$/nonsense", b"-1"),
        Entry("befw/$alias$/$a$/10.0.0.2", b"-1"),
    ]
    reading = read_groups(KEYS, entries)
    assert reading.data == {GroupRef("a"): {parse_member("10.0.0.2"): NEVER}}
    assert [problem.split(": ")[0] for problem in reading.problems] == [entry.key for entry in entries[:3]]


def test_a_denial_with_a_garbled_end_holds() -> None:
    entries = [
        Entry("befw/$ipset$/rules_deny/10.0.0.1", b"??"),
        Entry("befw/$ipset$/rules_allow/10.0.0.1", b"??"),
    ]
    reading = read_grants(KEYS, entries, deny="rules_deny")
    assert reading.data == {GrantKey(Scope(), "rules_deny", ONE): NEVER}
    assert len(reading.problems) == 2


def test_the_three_scopes_of_a_host_add_up_and_others_do_not_count() -> None:
    grants = {
        GrantKey(Scope(), "ssh", ONE): 10.0,
        GrantKey(Scope("dc1"), "ssh", ONE): 30.0,
        GrantKey(Scope("dc1", "web1"), "ssh", parse_member("10.0.0.2")): 20.0,
        GrantKey(Scope("dc1", "web2"), "ssh", parse_member("10.0.0.3")): NEVER,
        GrantKey(Scope("dc2"), "ssh", ONE): NEVER,
    }
    assert for_host(grants, Scope("dc1", "web1")) == {"ssh": {ONE: 30.0, parse_member("10.0.0.2"): 20.0}}
