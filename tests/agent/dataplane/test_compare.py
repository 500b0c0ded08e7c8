"""What the kernel has beside what it should have."""

from math import inf

import pytest

from agent.dataplane.compare import Difference, Listing, differences, wanted_members
from agent.dataplane.kinds import kind_of_set
from agent.dataplane.listed import are_as_wanted
from agent.dataplane.plan import LONGEST_TIMEOUT, Part
from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix, parse_prefix

NOW = 1_800_000_000.0
SET = "rb4h.rules_allow"
ONE, TWO = (1, 1), (2, 2)


def _compare(wanted: dict[tuple[int, int], float], found: dict[tuple[int, int], float]) -> list[Difference]:
    return differences((), {SET: wanted}, Listing((), {SET: found}), NOW, LONGEST_TIMEOUT)


def test_members_are_missing_or_extra() -> None:
    assert _compare({ONE: NEVER}, {ONE: inf}) == []
    assert _compare({ONE: NEVER}, {TWO: inf}) == [Difference(SET, missing=("0.0.0.1",), extra=("0.0.0.2",))]


@pytest.mark.parametrize(
    ("end", "left", "is_wrong"),
    [
        (NOW + 100, 99, False),
        (NOW + 100, 90, True),
        (NOW + 100, inf, True),
        (NEVER, 100, True),
        (NOW + 2 * LONGEST_TIMEOUT, LONGEST_TIMEOUT / 2, False),  # cut short, and renewed in time
        (NOW + 2 * LONGEST_TIMEOUT, inf, True),
        (NOW + LONGEST_TIMEOUT + 1, LONGEST_TIMEOUT / 2, False),  # renewed just now
        (NOW + LONGEST_TIMEOUT - 1, LONGEST_TIMEOUT / 2, False),
        (NOW + LONGEST_TIMEOUT - 9, LONGEST_TIMEOUT / 2, True),
    ],
)
def test_ends_are_compared_as_well_as_the_kernel_can_hold_them(end: float, left: float, is_wrong: bool) -> None:
    assert bool(_compare({ONE: end}, {ONE: left})) is is_wrong


@pytest.mark.parametrize(
    ("end", "left", "is_wrong"),
    [
        (NOW + 2 * LONGEST_TIMEOUT, inf, False),  # it would open too early
        (NOW + 2 * LONGEST_TIMEOUT, LONGEST_TIMEOUT / 2, True),
        (NOW + LONGEST_TIMEOUT - 1, inf, False),
        (NOW + LONGEST_TIMEOUT - 9, inf, True),
        (NEVER, inf, False),
    ],
)
def test_what_shuts_out_is_permanent_until_the_kernel_can_hold_its_end(end: float, left: float, is_wrong: bool) -> None:
    found = differences((), {SET: {ONE: end}}, Listing((), {SET: {ONE: left}}), NOW, LONGEST_TIMEOUT, [SET])
    assert bool(found) is is_wrong
    listed = {ONE[0]: 0 if left == inf else int(left)}
    part = Part([Prefix(4, ONE[0], 32)], [end])
    if are_as_wanted(kind_of_set(SET), listed, part, NOW, LONGEST_TIMEOUT, is_permanent=True):
        assert not found


def test_what_is_about_to_end_is_neither_missing_nor_extra() -> None:
    assert _compare({ONE: NOW + 1}, {}) == []
    assert _compare({}, {ONE: 1}) == []


def test_rules_differ_by_what_they_say_and_by_their_order() -> None:
    assert differences(("a", "b"), {}, Listing(("a", "b"), {}), NOW) == []
    assert differences(("a", "b"), {}, Listing(("a", "c"), {}), NOW) == [Difference("rules", ("b",), ("c",))]
    (order,) = differences(("a", "b"), {}, Listing(("b", "a"), {}), NOW)
    assert str(order) == "rules: order"


def test_sets_that_are_not_there_or_not_wanted_are_named() -> None:
    found = differences((), {SET: {}}, Listing((), {"rb4h.x": {}}), NOW)
    assert list(map(str, found)) == [f"{SET}: missing: the set itself", "rb4h.x: not ours: the set itself"]


def test_networks_are_cut_where_sets_take_no_overlaps() -> None:
    desired = Desired((), {ALLOW: {parse_prefix("10.0.0.0/8"): NOW + 5, parse_prefix("10.0.0.0/9"): NEVER}, DENY: {}})
    first, half, last = 10 << 24, 10 << 24 | 1 << 23, (11 << 24) - 1
    whole, cut = (wanted_members(desired, (4, 6), NOW, cut=cut)["rb4n.rules_allow"] for cut in (False, True))
    assert whole == {(first, last): NOW + 5, (first, half - 1): NEVER}
    assert cut == {(half, last): NOW + 5, (first, half - 1): NEVER}
