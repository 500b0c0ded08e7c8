"""What ipset lists, read column by column."""

import struct
from collections.abc import Mapping
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.compare import Listing, differences, wanted_members
from agent.dataplane.kinds import KINDS, Kind, kind_of, set_name
from agent.dataplane.listed import Listed, are_as_wanted
from agent.dataplane.plan import LONGEST_TIMEOUT, Part, by_kind, last_address
from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix

NOW = 1_900_000_000.0


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def listed(kind: Kind, entries: Mapping[Prefix, int], *, more: bytes = b"") -> bytes:
    """Entries with their seconds left as the kernel lists them (ip_set_hash_gen.h, mtype_list)."""
    found = b""
    for prefix, left in entries.items():
        address = prefix.number.to_bytes(4 if kind.version == 4 else 16)
        entry = _attribute(1 | 0x8000, _attribute((1 if kind.version == 4 else 2) | 0x4000, address))
        entry += b"" if kind.hosts else _attribute(3, bytes([prefix.length]))
        found += _attribute(7 | 0x8000, entry + more + _attribute(6 | 0x4000, left.to_bytes(4)))
    return found


def prefixes() -> st.SearchStrategy[Prefix]:
    """Few, so that two drawings have some in common."""
    v4 = st.builds(lambda number, length: Prefix(4, number << 32 - length, length), st.integers(1, 4), st.just(32))
    net = st.builds(lambda number: Prefix(4, number << 8, 24), st.integers(1, 4))
    v6 = st.builds(lambda number: Prefix(6, number << 96 | 7, 128), st.integers(1, 4))
    return st.one_of(v4, net, v6, st.builds(lambda number: Prefix(6, number << 64, 64), st.integers(1, 4)))


lefts = st.one_of(st.just(0), st.integers(1, 20), st.integers(990, 1010), st.just(LONGEST_TIMEOUT))
ends = st.one_of(
    st.just(NEVER), st.integers(-2, 20).map(NOW.__add__), st.integers(990, 1010).map(NOW.__add__), st.just(NOW + 1e8)
)


@given(st.dictionaries(prefixes(), ends), st.dictionaries(prefixes(), lefts), st.booleans())
def test_what_is_told_to_be_as_wanted_has_no_differences(
    members: dict[Prefix, float], strangers: dict[Prefix, int], mostly_right: bool
) -> None:
    kernel = strangers
    if mostly_right:
        kernel = {p: 0 if end < 0 else min(int(end - NOW), LONGEST_TIMEOUT) for p, end in members.items() if end != NOW}
        kernel = {p: left for p, left in kernel.items() if left >= 0} | dict(list(strangers.items())[:1])
    desired = Desired((), {ALLOW: members, DENY: {}})
    wanted = by_kind(members)
    sets = {set_name(kind, ALLOW): kind for kind in KINDS}
    found = {
        name: {(p.number, last_address(p)): left or inf for p, left in kernel.items() if kind_of(p) is kind}
        for name, kind in sets.items()
    }
    wrong = {
        each.what
        for each in differences(
            (), wanted_members(desired, (4, 6), NOW, cut=False, only=sets), Listing((), found), NOW, LONGEST_TIMEOUT
        )
    }
    for name, kind in sets.items():
        left = Listed(kind, [listed(kind, {p: left for p, left in kernel.items() if kind_of(p) is kind})]).left()
        if are_as_wanted(kind, left, wanted.get(kind, Part((), ())), NOW, LONGEST_TIMEOUT):
            assert name not in wrong
        elif all(end < 0 or end > NOW + 5 for end in members.values()) and min(kernel.values(), default=9) > 5:
            assert name in wrong


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_in_a_set_does_not_depend_on_when_they_end(kind: Kind) -> None:
    length = (32 if kind.version == 4 else 128) - (0 if kind.hosts else 8)
    one, other, third = (Prefix(kind.version, number << 8, length) for number in (1, 2, 3))
    before = Listed(kind, [listed(kind, {one: 100, other: 0})])
    assert before.who() == Listed(kind, [listed(kind, {one: 97}), listed(kind, {other: 5})]).who()
    assert before.who() != Listed(kind, [listed(kind, {one: 100, third: 0})]).who()
    assert before.who() != Listed(kind, [listed(kind, {one: 100})]).who()
    assert before.who() != Listed(kind, []).who()


def test_networks_of_different_lengths_are_not_the_same() -> None:
    kind = Kind(4, False)
    wide, narrow = Prefix(4, 1 << 16, 16), Prefix(4, 1 << 16, 24)
    assert Listed(kind, [listed(kind, {wide: 1})]).who() != Listed(kind, [listed(kind, {narrow: 1})]).who()


def test_entries_with_comments_are_not_taken_for_ours() -> None:
    kind = Kind(4, True)
    with pytest.raises(ValueError, match="another form"):
        Listed(kind, [listed(kind, {Prefix(4, 1, 32): 1}, more=_attribute(26, b"mine\0"))])
