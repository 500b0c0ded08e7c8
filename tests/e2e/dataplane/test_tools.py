"""nft and iptables that hang, and an xtables lock that somebody else holds."""

import fcntl
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.dataplane import base, iptables, nft
from agent.dataplane.base import CHECK_SECONDS
from agent.dataplane.errors import DataplaneError
from agent.desired import ALLOW, DENY, Desired, Failsafe, Posture
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix, parse_prefix
from tests.e2e.dataplane.backends import BACKENDS
from tests.e2e.dataplane.host import ALICE, BOB, SERVER, SERVICE, Host, reach

pytestmark = pytest.mark.e2e

IPTABLES_NFT = pytest.mark.parametrize("host", ["nft"], indirect=True)
LEGACY = pytest.mark.parametrize("host", [each for each in BACKENDS if each == "legacy"], indirect=True)


def _tools_that_hang(folder: Path) -> str:
    """What PATH must be so that the kernel's tools start something that does not end."""
    for family in ("iptables", "ip6tables"):
        for name in (family, f"{family}-nft", f"{family}-legacy"):
            for each in (name, f"{name}-save", f"{name}-restore"):
                (folder / each).write_text("#!/bin/sh\nsleep 60\n")
    (folder / "nft").write_text("#!/bin/sh\nsleep 60\n")
    for tool in folder.iterdir():
        tool.chmod(0o755)
    return f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"


def test_members_come_and_go_while_the_kernels_tools_hang(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def impatient(argv: Sequence[str], text: str, _: float, package: str) -> str:
        return await base.call(argv, text, 0.3, package)

    host.listen()
    host.enforce({ALICE: 600})
    now, alice, bob = time.time(), parse_prefix(ALICE), parse_prefix(BOB)
    failsafe = Failsafe((parse_prefix("203.0.113.0/24"),), SERVICE.ports)
    folder = tmp_path / "tools"
    folder.mkdir()

    def desired(member: Prefix) -> Desired:
        return Desired((SERVICE,), {SERVICE.name: {member: NEVER}, ALLOW: {}, DENY: {}}, (failsafe,))

    with monkeypatch.context() as patch:
        patch.setenv("PATH", _tools_that_hang(folder))
        for module in (iptables, nft):
            patch.setattr(module, "call", impatient)
        # The rules must be written anew, and then are due to be looked at, too.
        for member, other, at in ((bob, ALICE, now), (alice, BOB, now + 1), (bob, ALICE, now + CHECK_SECONDS + 2)):
            with pytest.raises(DataplaneError, match=r"did not end within 0\.3 s"):
                host.apply(desired(member), at)
            assert reach(host.client, str(member), SERVER) == "open"
            assert reach(host.client, other, SERVER) == "refused"
    host.apply(desired(bob), now + CHECK_SECONDS + 3)
    assert host.differences() == []


@LEGACY
def test_a_held_xtables_lock_keeps_no_member_waiting_and_is_told(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(lock))  # the machine's own is everybody's
    host.listen()
    host.enforce({ALICE: 600})
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataplaneError, match="lock"):
            host.enforce({BOB: 600}, failsafe=("203.0.113.0/24",))
        assert reach(host.client, BOB, SERVER) == "open"
        assert reach(host.client, ALICE, SERVER) == "refused"
    assert host.enforce({BOB: 600}, failsafe=("203.0.113.0/24",)).rules
    assert host.differences() == []


@IPTABLES_NFT
def test_rules_that_iptables_cannot_list_are_not_taken_for_gone(host: Host) -> None:
    host.listen()
    host.enforce({ALICE: 600})
    # Somebody else's rule, of a kind that iptables does not know: then it does not list the table at all.
    host.server.run("nft", "add rule ip filter INPUT numgen inc mod 2 0 accept")
    assert "incompatible" in host.saved()

    def jumps() -> int:
        return host.server.run("nft", "list chain ip filter INPUT").stdout.count("jump RB-INPUT")

    now = time.time()
    for later in (1, 2):
        assert not host.enforce({ALICE: 600}, now=now + later * (CHECK_SECONDS + 1)).rules
    assert host.enforce({BOB: 600}, posture=Posture(observe=True), now=now).rules
    assert host.enforce({BOB: 600}, now=now).rules
    host.dataplane.distrust([f"rb4h.{SERVICE.name}"])
    host.enforce({BOB: 600}, now=now)
    assert jumps() == 1
    assert reach(host.client, ALICE, SERVER) == "refused"
    assert reach(host.client, BOB, SERVER) == "open"
    assert [each for each in host.dataplane.alarms() if "nft list ruleset" in each]
    host.restart_agent()
    host.enforce({ALICE: 600})
    assert reach(host.client, BOB, SERVER) == "refused", "what is there is not known: it is programmed"
    listed = host.server.run("nft", "-a", "list chain ip filter INPUT").stdout
    (handle,) = re.findall(r"numgen .* # handle (\d+)", listed)
    host.server.run("nft", f"delete rule ip filter INPUT handle {handle}")
    host.enforce({ALICE: NEVER}, now=time.time() + CHECK_SECONDS + 1)
    assert (jumps(), host.differences(), list(host.dataplane.alarms())) == (1, [], [])
