"""Entries, timeouts and differences of the kernel's sets."""

import math
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.kinds import KINDS, Kind, kind_of
from agent.dataplane.plan import (
    LONGEST_TIMEOUT,
    Wanted,
    by_kind,
    delta,
    delta_of,
    last_address,
    live,
    ranges,
    size,
    timeout,
    timeouts,
)
from radius_bridge.policy.expiry import NEVER, latest
from radius_bridge.policy.members import Prefix, parse_prefix

NOW = 1_800_000_000.0
ALICE = parse_prefix("192.0.2.1")
BOB = parse_prefix("2001:db8::b")

prefixes = st.builds(Prefix, st.just(4), st.integers(1, 40), st.just(32))
ends = st.one_of(st.just(NEVER), st.floats(NOW - 100, NOW + 100))
entries = st.dictionaries(prefixes, ends)


def test_everything_is_stored_as_two_halves_which_keep_the_later_end() -> None:
    wanted = Wanted({parse_prefix("0.0.0.0/0"): 5.0, parse_prefix("0.0.0.0/1"): 9.0, ALICE: 1.0})
    assert wanted.entries() == {parse_prefix("0.0.0.0/1"): 9.0, parse_prefix("128.0.0.0/1"): 5.0, ALICE: 1.0}
    assert set(Wanted({parse_prefix("::/0"): NEVER}).entries()) == {parse_prefix("::/1"), parse_prefix("8000::/1")}


def test_a_kernel_without_ipv6_is_asked_for_no_ipv6() -> None:
    wanted = Wanted({ALICE: NEVER, BOB: NEVER, parse_prefix("::/0"): NEVER}, versions=[4])
    assert wanted.entries() == {ALICE: NEVER}
    assert wanted.end(BOB) is None


def test_a_timeout_is_what_is_left_in_whole_seconds_and_at_least_one() -> None:
    assert timeout(NOW + 9.9, NOW, shuts_out=False) == (9, None)
    assert timeout(NOW + 0.2, NOW, shuts_out=False) == (1, None)
    assert timeout(NEVER, NOW, shuts_out=False) == (0, None)


def test_a_grant_longer_than_the_kernel_can_hold_is_cut_and_renewed_in_time() -> None:
    seconds, again = timeout(NOW + 10 * LONGEST_TIMEOUT, NOW, shuts_out=False)
    assert seconds == LONGEST_TIMEOUT
    assert again is not None
    assert NOW < again < NOW + LONGEST_TIMEOUT
    # As soon as the kernel can hold its end, it has it: nobody takes it for another one.
    end = NOW + LONGEST_TIMEOUT + 500
    assert timeout(end, NOW, shuts_out=False) == (LONGEST_TIMEOUT, NOW + 500)
    assert timeout(end, NOW + 500, shuts_out=False) == (LONGEST_TIMEOUT, None)


def test_a_long_deny_is_permanent_until_the_kernel_can_hold_its_end() -> None:
    end = NOW + LONGEST_TIMEOUT + 500
    assert timeout(end, NOW, shuts_out=True) == (0, NOW + 500)
    assert timeout(end, NOW + 500, shuts_out=True) == (LONGEST_TIMEOUT, None)


@given(st.lists(st.integers(-1, 3 * LONGEST_TIMEOUT), max_size=8), st.floats(0, LONGEST_TIMEOUT), st.booleans())
def test_many_timeouts_are_the_timeouts_of_each(ends: list[int], now: float, shuts_out: bool) -> None:
    each = [timeout(end, now, shuts_out=shuts_out)[0] for end in ends]
    assert timeouts(ends, now, shuts_out=shuts_out) == each


def test_small_differences_are_not_written_again() -> None:
    assert not delta({ALICE: NOW + 50}, {ALICE: NOW + 50.9}, NOW)
    assert delta({ALICE: NOW + 50}, {ALICE: NOW + 51}, NOW).add == {ALICE: NOW + 51}
    assert delta({ALICE: NOW + 50}, {ALICE: NEVER}, NOW).add == {ALICE: NEVER}


def test_what_is_over_is_deleted_and_never_added() -> None:
    change = delta({ALICE: NOW - 1}, {ALICE: NOW - 1, BOB: NOW - 1}, NOW)
    assert change.add == {}
    assert change.delete == {ALICE}


@given(entries, entries)
def test_held_and_difference_make_what_is_wanted(held: dict[Prefix, float], wanted: dict[Prefix, float]) -> None:
    change = delta(held, wanted, NOW)
    after = {prefix: end for prefix, end in {**held, **change.add}.items() if prefix not in change.delete}
    expected = live(wanted, NOW)
    assert after.keys() == expected.keys()
    assert all(abs(after[prefix] - expected[prefix]) < 1 for prefix in after)
    assert not change.add.keys() & change.delete
    assert not delta(after, wanted, NOW)


networks = st.sampled_from([parse_prefix(text) for text in ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "::/1")])
members = st.dictionaries(st.one_of(networks, prefixes), ends)


@given(st.dictionaries(st.one_of(networks, prefixes, st.just(BOB)), ends), st.booleans())
def test_each_entry_is_of_one_kind(entries: dict[Prefix, float], joined: bool) -> None:
    parts = by_kind(entries, joined=joined)
    assert not joined or not any(kind.hosts for kind in parts)
    assert all(kind_of(prefix, joined=joined) is kind for kind, part in parts.items() for prefix in part.prefixes)
    assert all(part.prefixes for part in parts.values())
    again = {prefix: end for part in parts.values() for prefix, end in zip(*part, strict=True)}
    assert again == entries


def test_what_shuts_out_is_held_together_and_always_has_a_host_of_each_version() -> None:
    wanted = Wanted({ALICE: 5.0, parse_prefix("10.0.0.0/8"): NEVER}, shuts_out=True)
    assert wanted.kinds == (Kind(4, False), Kind(6, False))
    nobody = [prefix for prefix in wanted.entries() if wanted.end(prefix) == NEVER and prefix.is_host]
    assert [str(prefix) for prefix in nobody] == ["127.255.255.255", "100::"]
    assert wanted.entries().keys() == {ALICE, parse_prefix("10.0.0.0/8"), *nobody}
    only4 = Wanted({nobody[0]: 5.0}, (4,), shuts_out=True)
    assert (only4.kinds, only4.entries()) == ((Kind(4, False),), {nobody[0]: NEVER})
    assert Wanted({}).kinds == KINDS


@given(members, members, st.sampled_from([(4,), (4, 6)]))
def test_comparing_only_what_changed_is_as_good_as_comparing_everything(
    before: dict[Prefix, float], after: dict[Prefix, float], versions: tuple[int, ...]
) -> None:
    held = live(Wanted(before, versions).entries(), NOW)
    wanted = Wanted(after, versions)
    changed = {prefix for prefix in before.keys() | after.keys() if before.get(prefix) != after.get(prefix)}
    assert delta_of(held, wanted, changed, NOW) == delta(held, wanted.entries(), NOW)
    assert all(wanted.end(prefix) == end for prefix, end in wanted.entries().items())


@given(st.integers(0, 3_000_000))
def test_a_set_may_double_before_it_is_built_anew(need: int) -> None:
    made = size(need)
    assert made.maxelem >= max(65_536, 2 * need)
    assert math.log2(made.hashsize).is_integer()
    assert made.hashsize >= max(1024, need)


small_networks = st.builds(
    lambda number, length: Prefix(4, number >> 32 - length << 32 - length, length),
    st.integers(0, 63).map(lambda number: number | 0xFFFFFFC0),
    st.integers(24, 32),
)


@given(st.dictionaries(small_networks, ends))
def test_each_address_of_a_range_has_the_latest_end_of_the_networks_around_it(networks: dict[Prefix, float]) -> None:
    found = ranges(networks)
    for address in range(0xFFFFFF00, 1 << 32):
        around = [end for network, end in networks.items() if network.number <= address <= last_address(network)]
        holding = [end for (first, last), end in found.items() if first <= address <= last]
        assert holding == ([reduce(latest, around)] if around else [])
