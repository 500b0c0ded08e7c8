"""What sets hold after many changes, and when it ends."""

import random
import time
from functools import partial

import pytest

from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix, parse_prefix
from tests.e2e.dataplane.host import ALICE, BOB, SERVER, SERVICE, Host, reach
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

_NETWORKS = ("0.0.0.0/0", "0.0.0.0/1", "::/0", "ffff::/16", "255.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9")


def _member(chance: random.Random) -> Prefix:
    if chance.random() < 0.15:
        return parse_prefix(chance.choice(_NETWORKS))
    version, bits, base = chance.choice(((4, 32, 0x0A000000), (6, 128, 0x20010DB8 << 96)))
    length = chance.choice((bits, bits, bits - 1, bits - 2, bits - 3, bits - 4))
    number = base + chance.randrange(1, 64)
    return Prefix(version, number >> bits - length << bits - length, length)


def _is_past(moment: float) -> bool:
    return time.time() >= moment


@pytest.mark.parametrize("seed", range(2))
def test_the_kernel_holds_what_is_wanted_after_any_changes(host: Host, seed: int) -> None:
    chance, now = random.Random(seed), time.time()
    members: dict[str, dict[Prefix, float]] = {name: {} for name in (SERVICE.name, ALLOW, DENY)}
    desired = Desired((SERVICE,), members)
    host.apply(desired)
    for _ in range(25):
        changed: dict[str, set[Prefix]] = {name: set() for name in members}
        for _ in range(chance.randrange(1, 12)):
            name, member = chance.choice(list(members)), _member(chance)
            changed[name].add(member)
            if member in members[name] and chance.random() < 0.5:
                del members[name][member]
            else:
                members[name][member] = chance.choice((NEVER, now + chance.randrange(1000, 100_000)))
        assert not host.apply(desired, None, changed).rebuilt
        assert host.differences() == []


def test_a_network_inside_another_keeps_its_own_longer_time_and_gains_no_shorter_one(host: Host) -> None:
    host.listen()
    host.enforce({"192.0.2.0/24": 2.5, "192.0.2.16/28": 60})
    assert reach(host.client, ALICE, SERVER) == reach(host.client, BOB, SERVER) == "open"
    wait_until(lambda: reach(host.client, ALICE, SERVER) == "refused", "the outer network's end", timeout=5, every=0.2)
    assert reach(host.client, BOB, SERVER) == "open"
    host.enforce({"192.0.2.0/24": 60, "192.0.2.16/28": 1.5})
    until = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > until, "the inner network's end")
    assert reach(host.client, BOB, SERVER) == "open"


@pytest.mark.parametrize("far", [1e9, 1.8e12, float(1 << 53)], ids=["decades", "milliseconds", "most"])
def test_an_end_that_is_too_far_away_for_the_kernel_holds_up_nothing_else(host: Host, far: float) -> None:
    host.listen()
    host.enforce({ALICE: 600})
    host.enforce({BOB: far, "198.51.100.0/24": far})
    assert reach(host.client, ALICE, SERVER) == "refused"
    assert reach(host.client, BOB, SERVER) == "open"
    assert host.differences() == []


def test_an_address_that_ipset_cannot_hold_is_not_put_back_again_and_again(host: Host) -> None:
    change = host.enforce({ALICE: 600, "0.0.0.0": 600, "::": 600, "0.0.0.0/31": 600})
    assert len(change.refused) == (0 if host.backend == "nftables" else 2)
    assert host.differences() == []


def test_networks_side_by_side_are_not_made_one_and_each_ends_by_itself(host: Host) -> None:
    host.listen()
    host.enforce({"192.0.2.0/28": 3, "192.0.2.16/28": 600})  # alice's and bob's
    host.stop_agent()
    wait_until(lambda: reach(host.client, ALICE, SERVER) == "refused", "the end of alice's network", every=0.5)
    assert reach(host.client, BOB, SERVER) == "open"


def test_what_has_run_out_can_be_renewed_and_removed(host: Host) -> None:
    host.listen()
    now = time.time()
    soon, networks = now + 1.5, [parse_prefix("198.51.100.0/24"), parse_prefix("203.0.113.0/24")]
    members: dict[Prefix, float] = dict.fromkeys([parse_prefix(ALICE), parse_prefix(BOB), *networks], soon)
    desired = Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: {}})
    host.apply(desired)
    wait_until(lambda: reach(host.client, ALICE, SERVER) == "refused", "the end", every=0.2)
    changed = set(members)
    # As if nobody had noticed yet that they are over.
    del members[parse_prefix(BOB)], members[networks[1]]
    members |= {parse_prefix(ALICE): now + 600, networks[0]: now + 600}
    host.apply(desired, None, {SERVICE.name: changed})
    assert reach(host.client, ALICE, SERVER) == "open"
    assert host.differences() == []


def test_renewals_that_land_in_the_moment_of_the_end_are_all_there_afterwards(host: Host) -> None:
    now = time.time()
    end = now + 2.5
    every = [parse_prefix(f"10.0.0.{number}") for number in range(1, 61)]
    members: dict[Prefix, float] = dict.fromkeys(every, end)
    desired = Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: {}})
    host.apply(desired)
    # The kernel ends them up to a second early: the renewals are spread over all of that.
    for number, member in enumerate(every):
        due = end - 1.2 + number * 0.022
        wait_until(partial(_is_past, due), "its turn", every=0.001)
        members[member] = now + 600
        host.apply(desired, None, {SERVICE.name: {member}})
    assert host.differences() == []
    wait_until(lambda: time.time() > end + 1.5, "what the old ends could still do")
    assert host.differences() == []
    assert len(host.members(f"rb4h.{SERVICE.name}")) == len(every)


def test_many_new_members_of_all_kinds_are_all_there(host: Host) -> None:
    end = time.time() + 600
    hosts: dict[Prefix, float] = {Prefix(4, 0x0A000000 + number, 32): end for number in range(5_000)}
    others = ("192.0.2.0/24", "192.0.2.0/28", "2001:db8::1", "2001:db8:1::/64", ALICE)
    more = {**hosts, **{Prefix(6, (0xFD << 120) + number, 128): NEVER for number in range(5_000)}}
    for members in (hosts, {**more, **{parse_prefix(each): end for each in others}}):
        host.apply(Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: {}}))
        assert host.differences() == []


def test_fifty_thousand_that_end_in_the_same_second_do_so_with_nobody_alive(host: Host) -> None:
    host.listen()
    end = time.time() + 6
    members: dict[Prefix, float] = {Prefix(4, 0x0A000000 + number, 32): end for number in range(1, 50_001)}
    members |= {parse_prefix(ALICE): end, parse_prefix(BOB): end + 600}
    host.apply(Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: {}}))
    assert reach(host.client, ALICE, SERVER) == "open", "this machine takes more than 6 s to program 50,000"
    host.stop_agent()
    wait_until(lambda: time.time() > end + 0.1, "the end", timeout=7)
    assert reach(host.client, ALICE, SERVER) == "refused"
    assert reach(host.client, BOB, SERVER) == "open"
    host.restart_agent()
    assert list(host.members(f"rb4h.{SERVICE.name}")) == [BOB]
