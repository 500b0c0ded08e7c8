"""Who may reach what: groups in groups, every link's expiry, cycles."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.policy.expiry import NEVER, earliest, is_over, latest
from radius_bridge.policy.members import GroupRef, Member, Prefix, parse_member
from radius_bridge.policy.resolve import Members, resolve

NOW = 1000.0


def members(**links: float) -> dict[Member, float]:
    """`members(G_staff=NEVER, a10_0_0_1=5)`: G_ for groups, a for addresses."""
    return {
        GroupRef(name[2:]) if name.startswith("G_") else parse_member(name[1:].replace("_", ".")): expires
        for name, expires in links.items()
    }


A = parse_member("10.0.0.1")
B = parse_member("10.0.0.2")


def test_an_address_has_the_end_of_its_grant() -> None:
    assert resolve({A: 2000, B: NEVER}, {}, NOW) == {A: 2000, B: NEVER}


def test_what_is_over_is_left_out() -> None:
    assert resolve({A: NOW, B: NOW + 1}, {}, NOW) == {B: NOW + 1}


def test_the_earliest_end_along_a_path_counts() -> None:
    groups: Mapping[GroupRef, Members] = {GroupRef("staff"): members(G_devs=1500), GroupRef("devs"): {A: 3000, B: 1200}}
    assert resolve(members(G_staff=NEVER), groups, NOW) == {A: 1500, B: 1200}


def test_the_latest_of_several_paths_counts() -> None:
    groups = {GroupRef("x"): {A: 1100}, GroupRef("y"): {A: 1900}}
    assert resolve(members(G_x=NEVER, G_y=NEVER), groups, NOW) == {A: 1900}


def test_an_expired_link_in_the_middle_leads_nowhere() -> None:
    groups: Mapping[GroupRef, Members] = {GroupRef("staff"): members(G_devs=NOW - 1), GroupRef("devs"): {A: NEVER}}
    assert resolve(members(G_staff=NEVER), groups, NOW) == {}


def test_cycles_end() -> None:
    groups = {GroupRef("a"): members(G_b=NEVER), GroupRef("b"): {**members(G_a=NEVER), A: 1500}}
    assert resolve(members(G_a=NEVER), groups, NOW) == {A: 1500}


def test_a_group_that_does_not_exist_has_no_members() -> None:
    assert resolve(members(G_nobody=NEVER), {}, NOW) == {}


NAMES = ["a", "b", "c", "d", "e"]
HOSTS = [Prefix(4, number, 32) for number in range(4)]
ends = st.one_of(st.just(float(NEVER)), st.integers(990, 1020).map(float))
some_members = st.dictionaries(
    st.one_of(st.sampled_from(NAMES).map(GroupRef), st.sampled_from(HOSTS)), ends, max_size=4
)


def walk(
    links: Mapping[Member, float],
    groups: Mapping[GroupRef, Mapping[Member, float]],
    end: float,
    path: frozenset[GroupRef],
    found: dict[Prefix, float],
) -> None:
    """The definition, word by word: every simple path, one after the other."""
    for member, link_end in links.items():
        if is_over(link_end, NOW):
            continue
        here = earliest(end, link_end)
        if isinstance(member, Prefix):
            found[member] = latest(found[member], here) if member in found else here
        elif member not in path:
            walk(groups.get(member, {}), groups, here, path | {member}, found)


@given(some_members, st.dictionaries(st.sampled_from(NAMES).map(GroupRef), some_members))
def test_the_result_is_that_of_walking_every_path(
    links: dict[Member, float], groups: dict[GroupRef, dict[Member, float]]
) -> None:
    found: dict[Prefix, float] = {}
    walk(links, groups, NEVER, frozenset(), found)
    assert resolve(links, groups, NOW) == found
