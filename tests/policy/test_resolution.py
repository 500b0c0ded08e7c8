"""Access that is kept up to date: after any changes, at any time, what resolving everything gives."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from radius_bridge.policy.expiry import NEVER, is_over
from radius_bridge.policy.members import GroupRef, Member, Prefix, parse_member, user_group
from radius_bridge.policy.resolution import Changes, Resolution
from radius_bridge.policy.resolve import resolve

NOW = 1000.0
A, B = Prefix(4, 1, 32), Prefix(4, 2, 32)
STAFF, DEVS, ALICE = GroupRef("staff"), GroupRef("devs"), user_group("alice")


@pytest.fixture
def resolution() -> Resolution:
    """A service `ssh` granted to the group staff."""
    resolution = Resolution(NOW)
    resolution.protect(["ssh"])
    resolution.set_grant("ssh", STAFF, NEVER)
    return resolution


def test_a_change_tells_the_new_end_and_who_is_out(resolution: Resolution) -> None:
    resolution.set_member(STAFF, A, 1500)
    resolution.set_member(STAFF, B, NEVER)
    assert resolution.take().members == {"ssh": {A: 1500, B: NEVER}}
    resolution.set_member(STAFF, A, None)
    resolution.set_member(STAFF, B, 1200)
    assert resolution.take().members == {"ssh": {A: None, B: 1200}}
    assert resolution.take().members == {}
    assert resolution.members("ssh") == {B: 1200}


def test_nothing_is_kept_of_a_group_that_has_lost_what_it_never_had(resolution: Resolution) -> None:
    resolution.set_member(ALICE, A, None)
    assert resolution.links().groups == {}


def test_what_ends_leaves_by_itself(resolution: Resolution) -> None:
    resolution.set_member(STAFF, DEVS, 1100)
    resolution.set_member(DEVS, A, NEVER)
    resolution.take()
    assert resolution.soonest("ssh") == 1100
    assert set(resolution.reached("ssh")) == {STAFF, DEVS}
    resolution.advance(1100)
    assert resolution.take() == Changes({"ssh": {A: None}}, frozenset({DEVS}))
    assert not resolution.needs(DEVS)


def test_a_clock_that_is_set_back_gives_back_what_is_not_over(resolution: Resolution) -> None:
    resolution.set_member(STAFF, DEVS, 1100)
    resolution.set_member(DEVS, A, NEVER)
    resolution.advance(5000)
    assert resolution.members("ssh") == {}
    resolution.take()
    resolution.advance(NOW)
    assert resolution.take() == Changes({"ssh": {A: 1100}}, frozenset({STAFF, DEVS}))
    assert resolution.needs(DEVS)


def test_groups_become_needed_and_not_needed_any_more(resolution: Resolution) -> None:
    assert resolution.take().groups == {STAFF}
    resolution.set_member(STAFF, ALICE, NEVER)
    assert resolution.take().groups == {ALICE}
    assert resolution.needs(ALICE)
    assert not resolution.needs(DEVS)
    resolution.forget(STAFF)
    assert resolution.take().groups == {ALICE}
    assert not resolution.needs(ALICE)
    resolution.protect([])
    assert resolution.take().groups == {STAFF}
    assert not resolution.needs(STAFF)


def test_groups_in_a_circle_do_not_hold_each_other(resolution: Resolution) -> None:
    resolution.set_member(STAFF, DEVS, NEVER)
    resolution.set_member(DEVS, ALICE, NEVER)
    resolution.set_member(ALICE, DEVS, NEVER)
    resolution.set_member(ALICE, A, NEVER)
    assert resolution.members("ssh") == {A: NEVER}
    resolution.set_member(STAFF, DEVS, None)
    assert resolution.members("ssh") == {}


def test_a_grant_of_a_service_that_is_not_here_is_an_error(resolution: Resolution) -> None:
    with pytest.raises(KeyError):
        resolution.set_grant("web", A, NEVER)


names = st.sampled_from(["ssh", "web", "rules_deny"])
groups = st.sampled_from([GroupRef(name) for name in "abcdef"])
members: st.SearchStrategy[Member] = st.one_of(
    groups, st.sampled_from([parse_member(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.0.0/24", "::1")])
)
ends = st.one_of(st.none(), st.just(NEVER), st.integers(int(NOW) - 5, int(NOW) + 40))


class AnyChanges(RuleBasedStateMachine):
    """Changes in any order, time that passes or jumps; `resolve` on the same data is the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.groups: dict[GroupRef, dict[Member, float]] = {}
        self.grants: dict[str, dict[Member, float]] = {}
        self.told: dict[str, dict[Prefix, float]] = {}
        self.resolution = Resolution(NOW)

    @initialize(protected=st.sets(names, min_size=1))
    def begin(self, protected: set[str]) -> None:
        self.protect(protected)

    @rule(protected=st.sets(names))
    def protect(self, protected: set[str]) -> None:
        self.resolution.protect(protected)
        self.grants = {name: self.grants.get(name, {}) for name in protected}
        self.told = {name: self.told.get(name, {}) for name in protected}

    @rule(group=groups, member=members, end=ends)
    def member(self, group: GroupRef, member: Member, end: float | None) -> None:
        self.resolution.set_member(group, member, end)
        _set(self.groups.setdefault(group, {}), member, end)

    @rule(name=names, member=members, end=ends)
    def grant(self, name: str, member: Member, end: float | None) -> None:
        if name in self.grants:
            self.resolution.set_grant(name, member, end)
            _set(self.grants[name], member, end)

    @rule(group=groups)
    def forget(self, group: GroupRef) -> None:
        self.resolution.forget(group)
        self.groups.pop(group, None)

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.resolution.advance(self.now)

    @precondition(lambda self: self.now > NOW + 1)
    @rule()
    def the_clock_is_set_back(self) -> None:
        self.now = NOW
        self.resolution.advance(self.now)

    @invariant()
    def access_is_that_of_resolving_everything(self) -> None:
        for name, granted in self.grants.items():
            assert self.resolution.members(name) == resolve(granted, self.groups, self.now)

    @invariant()
    def the_soonest_end_is_known(self) -> None:
        for name in self.grants:
            soonest = min((end for end in self.resolution.members(name).values() if end >= 0), default=None)
            assert self.resolution.soonest(name) == soonest

    @invariant()
    def needed_is_what_a_live_path_leads_to(self) -> None:
        needed: set[GroupRef] = set()
        reached = [link for granted in self.grants.values() for link in granted.items()]
        while reached:
            member, end = reached.pop()
            if isinstance(member, GroupRef) and not is_over(end, self.now) and member not in needed:
                needed.add(member)
                reached += self.groups.get(member, {}).items()
        assert {group for group in map(GroupRef, "abcdef") if self.resolution.needs(group)} == needed

    @rule()
    def what_was_told_adds_up(self) -> None:
        for name, changed in self.resolution.take().members.items():
            for address, end in changed.items():
                _set(self.told[name], address, end)
        assert self.told == {name: self.resolution.members(name) for name in self.grants}

    def teardown(self) -> None:
        self.what_was_told_adds_up()


def _set(kept: dict[Member, float] | dict[Prefix, float], member: Member, end: float | None) -> None:
    if end is None:
        kept.pop(member, None)  # type: ignore[arg-type]
    else:
        kept[member] = end  # type: ignore[index]


TestAnyChanges = AnyChanges.TestCase
TestAnyChanges.settings = settings(max_examples=200, stateful_step_count=40)
