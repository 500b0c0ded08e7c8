"""What somebody does to our part of the kernel by hand is seen, and undone."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.dataplane.errors import DataplaneError
from agent.desired import ALLOW, DENY, CustomSet, Desired, Opening, Posture, RefusedLog, Target
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import Service, parse_ports
from tests.e2e.dataplane.backends import BACKENDS
from tests.e2e.dataplane.host import ALICE, BOB, SERVER, SERVICE, Host, reach

pytestmark = pytest.mark.e2e

TABLE = "inet radius_bridge"
SET = f"rb4h.{SERVICE.name}"
IPTABLES = pytest.mark.parametrize("host", [each for each in BACKENDS if each != "nftables"], indirect=True)
NFTABLES = pytest.mark.parametrize("host", ["nftables"], indirect=True)


def _nft(*commands: str) -> Callable[[Host], None]:
    def tamper(host: Host) -> None:
        for command in commands:
            host.server.run("nft", command)

    return tamper


def _check(host: Host) -> None:
    """The agent's next look at its rules."""
    host.apply(host.desired, host.dataplane.next_refresh(time.time() + 1))


@NFTABLES
@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(_nft("flush ruleset"), id="everything flushed"),
        pytest.param(_nft(f"delete table {TABLE}"), id="table deleted"),
        pytest.param(_nft(f"add table {TABLE} {{ flags dormant; }}"), id="table dormant"),
        pytest.param(_nft(f"flush chain {TABLE} from.{SERVICE.name}"), id="chain flushed"),
        pytest.param(_nft(f"insert rule {TABLE} input accept"), id="rule inserted"),
        pytest.param(_nft(f"add rule {TABLE} from_refuse accept"), id="rule added"),
        pytest.param(_nft(f"add chain {TABLE} mine", f"insert rule {TABLE} input jump mine"), id="chain added"),
        pytest.param(_nft(f"add map {TABLE} mine {{ type ipv4_addr : verdict; }}"), id="map added"),
        pytest.param(_nft(f"add set {TABLE} rb4h.mine {{ type ipv4_addr; }}"), id="set added"),
        pytest.param(_nft(f"chain {TABLE} forward {{ policy drop; }}"), id="policy changed"),
        pytest.param(
            _nft(
                f"flush chain {TABLE} input; delete chain {TABLE} input; "
                f"add chain {TABLE} input {{ type filter hook input priority 100; }}; add rule {TABLE} input accept"
            ),
            id="chain moved",
        ),
        pytest.param(
            _nft(
                f"flush chain {TABLE} from.{SERVICE.name}; flush chain {TABLE} to.{SERVICE.name}; "
                f"delete set {TABLE} {SET}; add set {TABLE} {SET} {{ type ipv4_addr; flags interval; }}"
            ),
            id="set replaced",
        ),
        pytest.param(
            _nft(
                f"flush table {TABLE}; delete set {TABLE} {SET}; delete set {TABLE} rb4h.rules_deny; "
                f"add set {TABLE} {SET} {{ type ipv6_addr; }}"
            ),
            id="one set replaced and another deleted",
        ),
    ],
)
def test_a_table_that_was_changed_by_hand_is_put_back(host: Host, tamper: Callable[[Host], None]) -> None:
    host.listen()
    host.enforce({ALICE: NEVER}, deny={BOB: NEVER})
    tamper(host)
    assert host.differences()
    _check(host)
    assert host.differences() == []
    assert reach(host.client, ALICE, SERVER) == "open"
    assert reach(host.client, BOB, SERVER) == "refused"


def test_members_that_were_changed_by_hand_are_named_and_put_back(host: Host) -> None:
    host.enforce({ALICE: 600, "10.0.0.0/8": 600}, deny={BOB: NEVER})
    assert host.differences() == []
    denied = "rb4h.rules_deny" if host.backend == "nftables" else "rb4n.rules_deny"
    if host.backend == "nftables":
        _nft(
            f"delete element {TABLE} {SET} {{ {ALICE} }}",
            f"add element {TABLE} {SET} {{ 192.0.2.66 timeout 1h }}",
            f"delete element {TABLE} {denied} {{ {BOB} }}",
            f"add element {TABLE} {denied} {{ {BOB} timeout 1h }}",
            f"flush set {TABLE} rb4n.{SERVICE.name}",
        )(host)
    else:
        for command in (
            f"del {SET} {ALICE}",
            f"add {SET} 192.0.2.66 timeout 3600",
            f"-exist add {denied} {BOB} timeout 3600",
            f"flush rb4n.{SERVICE.name}",
        ):
            host.server.run("ipset", *command.split())
    assert sorted(host.differences()) == sorted(
        [
            f"{denied}: with another end: {BOB}",
            f"{SET}: missing: {ALICE}; not ours: 192.0.2.66",
            f"rb4n.{SERVICE.name}: missing: 10.0.0.0-10.255.255.255",
        ]
    )
    host.dataplane.distrust([SET, denied])
    host.apply(host.desired)
    assert host.differences() == []


def test_a_new_agent_knows_without_programming_whether_the_kernel_is_as_desired(host: Host) -> None:
    host.enforce({ALICE: 600}, deny={BOB: NEVER}, failsafe=("192.0.2.128/25", "203.0.113.1", "2001:db8:1::/48"))
    host.restart_agent()
    assert host.differences() == []
    other = Desired((SERVICE,), {SERVICE.name: {}, ALLOW: {}, DENY: {parse_prefix(BOB): NEVER}})
    host.desired = other
    assert [each.partition(":")[0] for each in host.differences()] == ["rules", SET]


def _meddled(host: Host, folder: Path, command: str, times: int) -> str:
    """What PATH must be so that somebody runs `command` so many times right after our rules were written."""
    folder.mkdir()
    restore = f"iptables-{host.flavour}-restore"
    script = f"""#!/bin/sh
{shutil.which(restore)} "$@" || exit 1
left=$(cat {folder}/left)
[ "$left" -gt 0 ] || exit 0
echo $((left - 1)) >{folder}/left
{command}
"""
    (folder / restore).write_text(script)
    (folder / restore).chmod(0o755)
    (folder / "left").write_text(f"{times}\n")
    return f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"


@IPTABLES
@pytest.mark.parametrize("command", ["-F RB-INPUT", "-D INPUT -j RB-INPUT", "-I RB-INPUT 1 -p tcp -j ACCEPT"])
def test_what_somebody_changes_while_rules_are_written_is_not_taken_for_ours(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    host.listen()
    tamper = f"iptables-{host.flavour} {command}"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", _meddled(host, tmp_path / "once", tamper, 1))
        host.enforce({ALICE: NEVER}, deny={BOB: NEVER})
        assert host.differences() == []
        assert reach(host.client, BOB, SERVER) == "refused"
        # Who does it over and over is not believed either.
        patch.setenv("PATH", _meddled(host, tmp_path / "always", tamper, 99))
        with pytest.raises(DataplaneError, match="somebody else changes our rules"):
            host.enforce({ALICE: NEVER}, deny={BOB: NEVER}, failsafe=("203.0.113.1",))
    host.enforce({ALICE: NEVER}, deny={BOB: NEVER}, failsafe=("203.0.113.1",))
    assert host.differences() == []
    assert reach(host.client, BOB, SERVER) == "refused"
    assert reach(host.client, ALICE, SERVER) == "open"


@IPTABLES
def test_rules_that_nobody_disturbs_are_written_once(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openings = (Opening((parse_prefix("192.0.2.0/28"),), (parse_ports("9100"), parse_ports("53/udp"))),)
    sets = (CustomSet("scanners", Target.DROP), CustomSet("partners", Target.ACCEPT))
    posture = Posture(sets, closed=True, openings=openings, log=RefusedLog(2086, 10))
    many = tuple(Service(f"s{port}_tcp_{port}", (parse_ports(str(port)),)) for port in range(5000, 5040))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", _meddled(host, tmp_path / "counted", "true", 99))
        host.enforce(
            {ALICE: 600},
            allow={"10.0.0.0/8": 600},
            deny={BOB: 600},
            failsafe=("203.0.113.1", "203.0.113.128/25"),
            services=(SERVICE, *many),
            posture=posture,
            sets={"scanners": {"192.0.2.66": 60}, "partners": {"192.0.2.67": 60}},
        )
    assert (tmp_path / "counted" / "left").read_text() == "98\n"
