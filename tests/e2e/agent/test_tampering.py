"""Somebody changes our part of a host's kernel while the agent, as it is installed, is at work."""

import time
from collections.abc import Callable

import pytest

from agent.dataplane.nft_rules import TABLE
from tests.e2e.dataplane.host import ALICE
from tests.e2e.machine import MALLORY, OPERATOR, SERVICE, Machine, grant
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

SET = f"rb4h.{SERVICE}"
OURS = f"inet {TABLE}"


def _other_body(machine: Machine) -> None:
    """The rule that refuses lets in, and is called as before."""
    saved = machine.server.run("iptables-save", "-t", "filter").stdout.splitlines()
    rules = [line for line in saved if line.startswith("-A RB-INPUT-1 ")]
    number, rule = next((n, line) for n, line in enumerate(rules, 1) if "--comment" in line)
    body = rule.removeprefix("-A RB-INPUT-1 ").replace('"', "").split()
    machine.server.run("iptables", "-R", "RB-INPUT-1", str(number), *body, "-j", "ACCEPT")


def _run(command: str) -> Callable[[Machine], None]:
    def tamper(machine: Machine) -> None:
        machine.server.run(*command.split())

    return tamper


# Fewer than five of one thing within a minute: more would be a fight with another writer, who is put back later.
TAMPERS: dict[str, dict[str, tuple[str, Callable[[Machine], None]]]] = {
    "ipset": {
        "the jump deleted": ("jump", _run("iptables -D INPUT -j RB-INPUT")),
        "another rule before the jump": ("jump", _run("iptables -I INPUT 1 -p tcp -j ACCEPT")),
        "a rule's body, its comment kept": ("rules", _other_body),
        "iptables -F": ("rules", _run("iptables -F")),
        "a member added": ("members", _run(f"ipset add {SET} {MALLORY} timeout 3600")),
        "a set flushed": ("members", _run(f"ipset flush {SET}")),
    },
    "nftables": {
        "a rule before all others": ("rules", _run(f"nft insert rule {OURS} input accept")),
        "the table deleted": ("rules", _run(f"nft delete table {OURS}")),
        "everything flushed": ("rules", _run("nft flush ruleset")),
        "a member added": ("members", _run(f"nft add element {OURS} {SET} {{ {MALLORY} timeout 1h }}")),
        "a set flushed": ("members", _run(f"nft flush set {OURS} {SET}")),
    },
}


def test_whatever_is_changed_by_hand_is_put_back_and_told_by_a_running_agent(machine: Machine) -> None:
    consul = machine.consul()
    grant(consul, {ALICE: time.time() + 600})
    machine.enforcing()
    for name, (kind, tamper) in TAMPERS[machine.backend].items():
        before = machine.ask("status")["repairs"].get(kind, 0)
        tamper(machine)

        def is_told(kind: str = kind, before: int = before) -> bool:
            return bool(machine.ask("status")["repairs"].get(kind, 0) > before)

        wait_until(is_told, f"the repair of: {name}", every=0.05)
        wait_until(lambda: machine.ask("verify") == {"differences": []}, f"the end of: {name}", every=0.05)
        assert machine.lets_in() == {ALICE, OPERATOR}, name
        assert machine.reaches(MALLORY) == "refused", name
    assert machine.ask("status")["alarms"] == []
