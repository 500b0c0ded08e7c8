"""The guard: what a re-read says of many at once waits; it never opens, and what is meant passes at once."""

from collections.abc import Mapping

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.desired import ALLOW, DENY
from agent.guard import LEAST, WINDOW, WORD_LEAST, Guard, Held, Kind
from radius_bridge.policy.expiry import NEVER, is_over
from radius_bridge.policy.members import Prefix, parse_prefix

NOW = 1000.0
SSH = "ssh_tcp_22"

Members = dict[Prefix, float]


def people(count: int, first: int = 0, end: float = NOW + 3600) -> Members:
    return {Prefix(4, 0x0A000000 + number, 32): end for number in range(first, first + count)}


def reread(guard: Guard, before: Members, wanted: Members, *, name: str = SSH, now: float = NOW) -> Members:
    """A re-read made `wanted` of `before`; gives what is enforced."""
    guard.review(name, before, wanted, before.keys() | wanted.keys(), now)
    return dict(guard.enforce(name, wanted, now))


def now_enforced(guard: Guard, wanted: Members, now: float = NOW) -> Members:
    return dict(guard.enforce(SSH, wanted, now))


def only(guard: Guard) -> Held:
    (held,) = guard.held
    return held


def test_what_changes_little_passes_and_costs_no_copy() -> None:
    guard, before = Guard(), people(100)
    wanted = people(60) | people(5, 1000)
    guard.review(SSH, before, wanted, before.keys() | wanted.keys(), NOW)
    assert guard.enforce(SSH, wanted, NOW) is wanted
    assert not guard.held


def test_a_mass_removal_is_held_until_a_second_read_says_the_same() -> None:
    guard, before = Guard(), people(60)
    assert reread(guard, before, people(20)) == before
    assert not only(guard).needs_word
    guard.agree("another digest")
    assert now_enforced(guard, people(20)) == before
    guard.agree(only(guard).digest)
    assert now_enforced(guard, people(20)) == people(20)
    assert guard.take()[SSH] == before.keys() - people(20).keys()


def test_that_the_last_one_goes_is_always_held() -> None:
    assert reread(Guard(), people(1), {}) == people(1)


def test_a_removal_in_pieces_is_one() -> None:
    guard = Guard()
    reread(guard, people(60), people(45))
    assert reread(guard, people(45), people(30)) == people(30)
    assert reread(guard, people(30), people(20)) == people(30)


def test_pieces_that_are_far_apart_are_not() -> None:
    guard = Guard()
    reread(guard, people(60), people(31))
    assert reread(guard, people(31), people(20), now=NOW + WINDOW + 1) == people(20)


def test_almost_all_of_many_needs_a_persons_word() -> None:
    guard, before = Guard(), people(5 * WORD_LEAST)
    reread(guard, before, people(3))
    held = only(guard)
    assert held.needs_word
    guard.confirm({held.digest: NEVER}, NOW)
    assert now_enforced(guard, people(3)) == before, "not before the second read"
    guard.agree(held.digest)
    assert now_enforced(guard, people(3)) == before
    guard.confirm({held.digest: NOW}, NOW)
    assert now_enforced(guard, people(3)) == before, "the word is over"
    guard.confirm({held.digest: NOW + 60}, NOW)
    assert now_enforced(guard, people(3)) == people(3)


def test_the_digest_names_the_change_on_every_host() -> None:
    here, there, elsewhere = Guard(), Guard(), Guard()
    reread(here, people(200), {})
    reread(there, people(200), {}, now=NOW + 7)
    reread(elsewhere, people(201), {})
    assert only(here).digest == only(there).digest != only(elsewhere).digest


def test_members_that_come_back_are_held_no_more() -> None:
    guard, before = Guard(), people(60)
    reread(guard, before, {})
    assert reread(guard, {}, before) == before
    assert not guard.held


def test_their_own_time_goes_on_running() -> None:
    guard = Guard()
    before = people(30, end=NOW + 10) | people(30, 100, end=NOW + 20)
    reread(guard, before, {})
    assert now_enforced(guard, {}, NOW + 10) == people(30, 100, end=NOW + 20)
    assert guard.take()[SSH] == before.keys()
    assert now_enforced(guard, {}, NOW + 20) == {}
    assert not guard.held


def test_expiry_is_no_removal() -> None:
    before = people(60, end=NOW)
    assert reread(Guard(), before, {}) == {}


def test_what_is_announced_about_somebody_held_counts_at_once() -> None:
    guard, before = Guard(), people(60)
    alice, bob, *_ = before
    reread(guard, before, {})
    guard.announce(SSH, [alice])
    assert now_enforced(guard, {alice: NOW + 1})[alice] == NOW + 1
    guard.take_away([SSH], bob)
    assert bob not in guard.enforce(SSH, {}, NOW)
    guard.take_away([SSH], None)
    assert now_enforced(guard, {}) == {}


def test_a_very_wide_opening_waits_for_a_second_read_and_the_widest_for_a_word() -> None:
    wide, widest, usual = map(parse_prefix, ("10.0.0.0/15", "0.0.0.0/0", "10.1.0.0/16"))
    guard = Guard()
    assert reread(guard, {}, {wide: NEVER, usual: NEVER}) == {usual: NEVER}
    assert not only(guard).needs_word
    guard.agree(only(guard).digest)
    assert now_enforced(guard, {wide: NEVER}) == {wide: NEVER}
    assert reread(guard, {}, {widest: NEVER}, name=ALLOW) == {}
    assert only(guard).needs_word


def test_an_opening_that_is_taken_back_is_held_no_more() -> None:
    guard, widest = Guard(), parse_prefix("::/0")
    reread(guard, {}, {widest: NEVER})
    assert reread(guard, {widest: NEVER}, {}) == {}
    assert not guard.held


def test_what_was_open_already_is_no_opening() -> None:
    widest = parse_prefix("0.0.0.0/0")
    assert reread(Guard(), {widest: 2000}, {widest: NEVER}) == {widest: NEVER}


def test_denies_pass_at_once_and_their_going_is_guarded() -> None:
    guard, wide, widest = Guard(), parse_prefix("10.0.0.0/8"), parse_prefix("0.0.0.0/0")
    assert reread(guard, {}, {widest: NEVER, **people(5000)}, name=DENY) == {widest: NEVER, **people(5000)}
    assert reread(guard, {wide: NEVER, **people(50)}, people(50), name=DENY) == {wide: NEVER, **people(50)}
    assert only(guard).needs_word


def test_a_service_that_is_enforced_no_more_holds_nothing() -> None:
    guard = Guard()
    reread(guard, people(60), {})
    guard.protect([ALLOW, DENY])
    assert not guard.held


addresses = st.sampled_from(
    [*people(LEAST * 2), *map(parse_prefix, ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "::/0", "2001:db8::1"))]
)
memberships = st.dictionaries(addresses, st.one_of(st.just(float(NEVER)), st.floats(NOW, NOW + 50)))


class AnyLearning(RuleBasedStateMachine):
    """Announcements, re-reads, second reads, words and time in any order."""

    @initialize(name=st.sampled_from([SSH, ALLOW, DENY]), members=memberships)
    def begin(self, name: str, members: Members) -> None:
        self.name, self.now, self.guard = name, NOW, Guard()
        self.wanted = members
        self.legitimate: Members = {}
        self.look()

    @rule(members=memberships)
    def a_reread_says(self, members: Members) -> None:
        before, self.wanted = self.live(self.wanted), members
        self.guard.review(self.name, before, self.live(members), before.keys() | members.keys(), self.now)

    @rule(member=addresses, end=st.one_of(st.none(), st.just(float(NEVER)), st.floats(0, 50)))
    def somebody_announces(self, member: Prefix, end: float | None) -> None:
        if end is None:
            self.wanted = {each: until for each, until in self.wanted.items() if each != member}
            self.guard.take_away([self.name], member)
        else:
            self.wanted = self.wanted | {member: end if end < 0 else self.now + end}
        self.guard.announce(self.name, [member])
        assert (member in self.enforced()) == (member in self.live(self.wanted))

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.guard.held)
    @rule()
    def a_second_read_agrees_and_people_say_yes(self) -> None:
        digests = {held.digest for held in self.guard.held}
        for digest in digests:
            self.guard.agree(digest)
        self.guard.confirm(dict.fromkeys(digests, float(NEVER)), self.now)
        assert self.enforced() == self.live(self.wanted)

    @invariant()
    def look(self) -> None:
        enforced, wanted = self.enforced(), self.live(self.wanted)
        assert len(enforced) == len(self.guard.enforce(self.name, wanted, self.now))
        for member, end in enforced.items():
            assert not is_over(end, self.now)
            assert wanted.get(member) == end or self.legitimate.get(member) == end, "nobody is let in but by right"
        if self.name == DENY:
            assert wanted.items() <= enforced.items(), "denies pass at once"
        if not self.guard.held:
            assert enforced == wanted
        for held in self.guard.held:
            assert held.members, "nothing is held about nobody"
            assert held.kind is Kind.REMOVAL or not held.members.keys() & enforced.keys()
        self.legitimate = enforced

    def enforced(self) -> Members:
        return dict(self.guard.enforce(self.name, self.live(self.wanted), self.now))

    def live(self, members: Mapping[Prefix, float]) -> Members:
        return {member: end for member, end in members.items() if not is_over(end, self.now)}


TestAnyLearning = AnyLearning.TestCase
TestAnyLearning.settings = settings(max_examples=200, stateful_step_count=30)
