"""What happens to the host around our rules, and when things go wrong."""

import time
from pathlib import Path

import pytest

from agent.dataplane.base import CHECK_SECONDS
from agent.dataplane.errors import DataplaneError
from agent.dataplane.nft_rules import TABLE
from agent.dataplane.plan import LONGEST_TIMEOUT
from agent.dataplane.rules import is_chain_of_ours
from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.policy.services import Service, parse_ports
from tests.e2e.dataplane.backends import BACKENDS
from tests.e2e.dataplane.host import ALICE, BOB, SERVER, SERVICE, Host, make, reach
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

OLD_DENY = "rb4h.rules_deny"
HOSTS4 = f"rb4h.{SERVICE.name}"
_FIRST = 0x0A000000  # 10.0.0.0
_END = time.time() + 86_400
"""The same at each call, however long the one before took: another end would be a change."""


def _many(count: int, first: int = _FIRST) -> Desired:
    members = {Prefix(4, first + number, 32): _END for number in range(count)}
    members[parse_prefix(ALICE)] = _END
    return Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: {}})


def _foreign(host: Host) -> tuple[str, ...]:
    """All rules and sets that are not ours."""
    saved = host.server.run(f"iptables-{host.flavour}-save", "-t", "filter").stdout.splitlines()
    rules = [
        line
        for line in saved
        if not any(map(is_chain_of_ours, line.lstrip(":").split(" "))) and not line.startswith("#")
    ]
    sets = host.server.run("ipset", "save").stdout.splitlines()
    table = host.server.run("nft", "list", "table", "inet", "theirs").stdout
    return (*rules, *(line for line in sets if not line.split()[1].startswith("rb")), table)


IPSET_ONLY = pytest.mark.parametrize("host", [backend for backend in BACKENDS if backend != "nftables"], indirect=True)


def test_what_is_not_ours_stays_as_it_was_and_uninstall_removes_the_rest(host: Host) -> None:
    host.iptables("-N", "RB-INPUT-OTHER")
    host.iptables("-A", "INPUT", "-j", "RB-INPUT-OTHER")
    host.iptables("-A", "INPUT", "-p", "tcp", "--dport", "80", "-j", "ACCEPT")
    host.iptables("-P", "FORWARD", "DROP")
    host.server.run("ipset", "create", "blocklist", "hash:ip")
    host.server.run("ipset", "add", "blocklist", "203.0.113.9")
    host.server.run("nft", "add table inet theirs; add set inet theirs rb4h.x { type ipv4_addr; }")
    before, untouched = host.saved(), _foreign(host)
    host.enforce({ALICE: 60, "192.0.2.0/24": 60})
    host.enforce(services=())
    assert _foreign(host) == untouched
    host.uninstall()
    assert _foreign(host) == untouched
    assert [line for line in host.saved().splitlines() if line[:1] == "-"] == [
        line for line in before.splitlines() if line[:1] == "-"
    ]
    assert host.saved().count("RB-") == before.count("RB-")
    assert host.sets() == {}
    host.uninstall()


def test_repeating_changes_nothing(host: Host) -> None:
    assert not host.is_in_place()
    assert host.enforce({ALICE: 60}, now=1000.0)
    rules = host.own_rules()
    assert not host.enforce({ALICE: 60}, now=1000.0)
    host.restart_agent()
    assert host.is_in_place()
    host.enforce({ALICE: 60}, now=1000.0)
    assert host.own_rules() == rules
    assert host.sets()[HOSTS4] == 1


@IPSET_ONLY
def test_a_jump_that_was_displaced_or_deleted_goes_back_to_the_head(host: Host) -> None:
    now = time.time()
    host.enforce(now=now)
    host.iptables("-I", "INPUT", "1", "-j", "ACCEPT")
    host.iptables("-D", "OUTPUT", "-j", "RB-OUTPUT")
    host.iptables("-F", "RB-FORWARD")
    assert not host.enforce(now=now + 1)  # not looked at again so soon
    later = host.dataplane.next_refresh(now + 1)
    assert later <= now + CHECK_SECONDS
    assert host.enforce(now=later).rules == [4]
    lines = [line for line in host.saved().splitlines() if line.startswith("-A")]
    assert [line for line in lines if line.startswith("-A INPUT")] == ["-A INPUT -j RB-INPUT", "-A INPUT -j ACCEPT"]
    assert "-A OUTPUT -j RB-OUTPUT" in lines
    assert [line for line in lines if line.startswith("-A RB-FORWARD ")]


def test_rules_that_were_changed_by_hand_are_put_back(host: Host) -> None:
    now = time.time()
    host.enforce({ALICE: NEVER}, now=now)
    host.flush("INPUT")
    host.flush("OUTPUT")
    assert not host.is_in_place()
    assert host.differences()[0].startswith("rules: missing")
    later = host.dataplane.next_refresh(now + 1)
    assert host.enforce({ALICE: NEVER}, now=later).rules
    assert host.differences() == []


@IPSET_ONLY
def test_an_upgrade_from_two_sets_for_what_shuts_out_opens_nothing(host: Host) -> None:
    """Earlier versions held denied addresses in a set of their own, which their rules looked up as well."""
    host.listen()
    host.enforce({BOB: NEVER}, deny={BOB: 3600})
    host.server.run("ipset", "create", OLD_DENY, "hash:ip", "timeout", "0")
    host.server.run("ipset", "add", OLD_DENY, BOB)
    host.iptables("-I", "RB-INPUT", "2", "-m", "set", "--match-set", OLD_DENY, "src", "-g", "RB-INPUT-DENY")
    host.server.run("ipset", "del", "rb4n.rules_deny", BOB)
    host.restart_agent()
    assert host.is_in_place()
    assert reach(host.client, BOB, SERVER) == "refused"
    host.enforce({BOB: NEVER}, deny={BOB: 3600})
    assert reach(host.client, BOB, SERVER) == "refused"
    assert OLD_DENY not in host.sets()
    assert host.differences() == []


@IPSET_ONLY
def test_a_set_that_somebody_elses_rule_keeps_is_told_and_keeps_nothing_up(host: Host) -> None:
    host.server.run("ipset", "create", OLD_DENY, "hash:ip", "timeout", "0")
    rule = ("INPUT", "-m", "set", "--match-set", OLD_DENY, "src", "-j", "DROP")
    host.iptables("-A", *rule)
    assert host.enforce({ALICE: NEVER}).rules
    assert [OLD_DENY in each for each in host.dataplane.alarms()] == [True]
    assert host.differences() == []
    host.iptables("-D", *rule)
    host.enforce({ALICE: NEVER})
    assert (list(host.dataplane.alarms()), OLD_DENY in host.sets()) == ([], False)


@pytest.mark.parametrize("host", ["nftables"], indirect=True)
def test_sets_that_are_made_anew_are_filled_though_nobody_came_or_went(host: Host) -> None:
    now = time.time()
    host.enforce({ALICE: NEVER}, deny={BOB: NEVER}, now=now)
    host.server.run("nft", "delete", "table", "inet", TABLE)
    later = host.dataplane.next_refresh(now + 1)
    assert host.apply(host.desired, later, {}).rules  # before anything was heard
    assert host.differences(later) == []
    host.listen()
    assert reach(host.client, ALICE, SERVER) == "open"


@pytest.mark.parametrize("host", ["nftables"], indirect=True)
def test_members_that_could_not_be_written_are_due_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise DataplaneError("out of order")

    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("agent.dataplane.nft_netlink.ElementSocket.commit", refuse)
        with pytest.raises(DataplaneError, match="out of order"):
            host.enforce({ALICE: NEVER}, now=now)
    assert host.dataplane.next_refresh(now + 0.5) == now + 0.5
    host.enforce({ALICE: NEVER}, now=now + 0.5)
    assert host.differences() == []


@IPSET_ONLY
def test_a_set_grows_beyond_what_it_was_made_for(host: Host) -> None:
    host.enforce({ALICE: 60})
    host.listen()
    assert host.apply(_many(60_000)).rebuilt == [SERVICE.name]  # many at once; room for 131,072
    assert host.apply(_many(118_000)).rebuilt == []
    assert host.apply(_many(132_000)).rebuilt == [SERVICE.name]  # few, but more than there is room for
    assert host.sets()[HOSTS4] == 132_001
    assert reach(host.client, ALICE, SERVER) == "open"


def test_the_first_block_and_the_last_one_count_at_once(host: Host) -> None:
    host.listen()
    deny: dict[Prefix, float] = {}
    desired = Desired((SERVICE,), {SERVICE.name: {parse_prefix(ALICE): NEVER}, ALLOW: {}, DENY: deny})
    host.apply(desired)
    nobody_blocked = host.own_rules()
    deny[parse_prefix(ALICE)] = NEVER
    host.apply(desired, None, {DENY: {parse_prefix(ALICE)}})
    assert reach(host.client, ALICE, SERVER) == "refused"
    assert host.differences() == []
    del deny[parse_prefix(ALICE)]
    host.apply(desired, None, {DENY: {parse_prefix(ALICE)}})
    assert reach(host.client, ALICE, SERVER) == "open"
    assert host.own_rules() == nobody_blocked
    assert host.differences() == []


def test_only_what_changed_is_looked_at_if_that_is_known(host: Host) -> None:
    host.listen()
    now = time.time()
    members = dict(_many(1_000).members[SERVICE.name])
    desired = Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: {}})
    host.apply(desired, now)
    new, gone = parse_prefix(BOB), parse_prefix(ALICE)
    del members[gone]
    members[new] = now + 600
    change = host.apply(desired, now, {SERVICE.name: {new, gone}, DENY: set()})
    assert (change.added, change.deleted, change.rebuilt) == (1, 1, [])
    assert reach(host.client, BOB, SERVER) == "open"
    assert reach(host.client, ALICE, SERVER) == "refused"
    # What the kernel cannot hold to its end is renewed, and the rules are looked at, though nothing changed.
    members[new] = now + 3 * LONGEST_TIMEOUT
    assert host.apply(desired, now, {SERVICE.name: {new}}).added == 1
    host.flush("INPUT")
    later = host.apply(desired, now + LONGEST_TIMEOUT, {})
    assert (later.added, later.rules) == ((0, [4, 6]) if host.backend == "nftables" else (1, [4]))


@pytest.mark.parametrize("denied", [BOB, "192.0.2.16/28"])
def test_a_first_block_takes_no_rule_to_be_written_and_neither_does_its_end(host: Host, denied: str) -> None:
    host.listen()
    now = time.time()
    deny: dict[Prefix, float] = {}
    members = {parse_prefix(ALICE): NEVER, parse_prefix(BOB): NEVER}
    desired = Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: deny})
    host.apply(desired, now)
    assert reach(host.client, BOB, SERVER) == "open"
    block = parse_prefix(denied)
    deny[block] = NEVER
    assert host.apply(desired, now, {DENY: {block}}).rules == []
    assert reach(host.client, BOB, SERVER) == "refused"
    assert reach(host.client, ALICE, SERVER) == "open"
    del deny[block]
    assert host.apply(desired, now, {DENY: {block}}).rules == []
    assert reach(host.client, BOB, SERVER) == "open"
    assert host.differences() == []


def test_members_stay_connected_while_sets_are_swapped(host: Host) -> None:
    listener = host.listen()
    host.apply(_many(3_000))
    client, server = host.connected(listener, every=(0.001, 0.001))
    with client, server:
        for number in range(1, 20):
            assert host.apply(_many(3_000, _FIRST + number * 10_000)).rebuilt == [SERVICE.name]
        received = client.received
        wait_until(lambda: client.received > received or bool(client.ended), "more traffic")
        assert not client.ended
        assert not server.ended


@IPSET_ONLY
def test_what_an_interrupted_build_left_behind_is_swept(host: Host) -> None:
    host.enforce({ALICE: 60})
    host.server.run("ipset", "create", f"{HOSTS4}~", "hash:ip", "timeout", "0")
    host.server.run("ipset", "create", "rb4h.forgotten", "hash:ip", "timeout", "0")
    host.restart_agent()
    host.enforce({ALICE: 60})
    assert not [name for name in host.sets() if name.endswith("~") or "forgotten" in name]


def test_a_service_that_is_gone_takes_its_rules_and_sets_with_it(host: Host) -> None:
    other = Service("web_tcp_80", (parse_ports("80"),))
    host.enforce({ALICE: 60}, services=(SERVICE, other))
    assert [rule for rule in host.own_rules() if "rb4h.web_tcp_80" in rule]
    host.enforce({ALICE: 60})
    assert not [rule for rule in host.own_rules() if "web_tcp_80" in rule]
    assert not [name for name in host.sets() if "web_tcp_80" in name]
    # That the sets went after the rules were read is no change by somebody else.
    assert not host.enforce({ALICE: 60}, now=host.dataplane.next_refresh(time.time())).rules


@IPSET_ONLY
def test_an_address_that_no_set_can_hold_does_not_keep_others_out(host: Host) -> None:
    change = host.enforce({"0.0.0.0": 60, ALICE: 60, BOB: 60})
    assert change.refused == [f"{SERVICE.name} 0.0.0.0: a hash set cannot hold this address"]
    assert host.sets()[HOSTS4] == 2


@IPSET_ONLY
def test_after_an_error_the_set_is_built_anew(host: Host) -> None:
    now = time.time()
    host.enforce({ALICE: 60}, now=now)
    for chain in {line.split(" ")[1] for line in host.saved().splitlines() if line.startswith("-A RB-")}:
        host.iptables("-F", chain)
    wait_until(
        lambda: host.server.run("ipset", "destroy", HOSTS4, check=False).returncode == 0, "the set to be destroyed"
    )
    with pytest.raises(DataplaneError, match=rf"ipset add {HOSTS4}.*ENOENT"):
        host.enforce({ALICE: 60, BOB: 60}, now=now)
    assert host.enforce({ALICE: 60, BOB: 60}, now=now).rebuilt == [SERVICE.name]
    assert host.sets()[HOSTS4] == 2
    assert host.enforce({ALICE: 60, BOB: 60}, now=now + CHECK_SECONDS).rules == [4]


@IPSET_ONLY
def test_long_grants_are_renewed_and_long_denies_are_permanent(host: Host) -> None:
    now = time.time()
    far = 3.0 * LONGEST_TIMEOUT
    desired = Desired((), {ALLOW: {parse_prefix(BOB): now + far}, DENY: {parse_prefix(ALICE): now + far}})
    host.apply(desired, now)
    members = host.server.run("ipset", "save").stdout
    assert f"add rb4n.rules_deny {ALICE} timeout 0" in members
    assert f"add rb4h.rules_allow {BOB} timeout 21474" in members
    renewal = now + LONGEST_TIMEOUT // 2
    assert host.apply(desired, renewal + 1).added == 1
    assert host.apply(desired, now + far - 1000).added == 2
    assert f"add rb4n.rules_deny {ALICE} timeout 99" in host.server.run("ipset", "save").stdout
    assert host.apply(desired, now + far).deleted == 2


def test_there_is_one_writer_at_a_time(host: Host, tmp_path: Path) -> None:
    for backend in BACKENDS:
        with pytest.raises(DataplaneError, match="another agent is at work"):
            make(tmp_path / "lock", backend).__enter__()


def test_a_service_cannot_be_called_like_an_override(host: Host) -> None:
    with pytest.raises(DataplaneError, match="has this name"):
        host.enforce(services=(Service(ALLOW, (parse_ports("22"),)),))
