"""What is read from iptables-save, and what is given to iptables-restore."""

from dataclasses import replace

import pytest

from agent.dataplane.iptables import expected, install_text, read_save, uninstall_text
from agent.dataplane.rules import JUMPS, render
from agent.desired import Desired, Posture
from radius_bridge.policy.services import Service, parse_ports

SSH = Service("ssh_tcp_22", (parse_ports("22"),))

FOREIGN = """\
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
:RB-INPUT-OTHER - [0:0]
-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT
-A INPUT -j RB-INPUT-OTHER
COMMIT
"""
OURS = """\
*filter
:INPUT DROP [1:2]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:RB-INPUT - [7:9]
:RB-OUTPUT - [0:0]
:RB-FORWARD - [0:0]
-A INPUT -j RB-INPUT
-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT
-A FORWARD -j RB-FORWARD
-A OUTPUT -j RB-OUTPUT
-A RB-INPUT -i lo -j RETURN
COMMIT
"""


def test_foreign_chains_and_rules_are_not_ours() -> None:
    found = read_save(FOREIGN)
    assert (found.chains, found.rules, found.jumps, found.at_head) == ((), (), (), False)


def test_jumps_are_at_the_head_if_each_is_the_first_rule_and_the_only_one() -> None:
    assert read_save(OURS).at_head
    assert not read_save(OURS.replace("-A INPUT -j RB-INPUT\n", "")).at_head
    assert not read_save(OURS.replace("-A OUTPUT", "-A OUTPUT -j LOG\n-A OUTPUT")).at_head
    assert not read_save(OURS.replace("COMMIT", "-A INPUT -j RB-INPUT\nCOMMIT")).at_head


def test_rules_are_not_in_place_if_a_chain_that_is_led_to_was_emptied() -> None:
    whole = read_save(expected([f"-A {chain} -j RETURN" for chain in JUMPS.values()]))
    assert whole.is_in_place
    assert not replace(whole, at_head=False).is_in_place
    for chain in JUMPS.values():
        assert not replace(whole, rules=tuple(rule for rule in whole.rules if f" {chain} " not in rule)).is_in_place
    branch = ["-A RB-INPUT -p tcp -m tcp --dport 22 -g RB-INPUT-1", "-A RB-INPUT-1 -j DROP"]
    more = read_save(expected([*whole.rules, *branch]))
    assert more.is_in_place
    assert not replace(more, rules=more.rules[:-1]).is_in_place
    assert read_save(expected([*whole.rules, "-A RB-INPUT -g RB-INPUT-REST"])).is_in_place  # of an earlier version


@pytest.mark.parametrize("services", [(), (SSH,)])
@pytest.mark.parametrize("posture", [Posture(), Posture(closed=True), Posture(observe=True)])
@pytest.mark.parametrize("version", [4, 6])
def test_what_we_write_ourselves_is_in_place(services: tuple[Service, ...], posture: Posture, version: int) -> None:
    assert read_save(expected(render(Desired(services, {}, (), posture), version))).is_in_place


def test_nothing_is_inserted_while_the_jumps_are_at_the_head() -> None:
    text = install_text(["-A RB-INPUT -i lo -j RETURN"], read_save(OURS))
    assert "-I " not in text
    assert "-D " not in text


def test_a_displaced_jump_moves_in_one_transaction() -> None:
    displaced = read_save(OURS.replace("-A OUTPUT", "-A OUTPUT -j LOG\n-A OUTPUT"))
    text = install_text([], displaced)
    assert text.count("COMMIT") == 1
    assert text.index("-D OUTPUT -j RB-OUTPUT") < text.index("-I OUTPUT 1 -j RB-OUTPUT")


def test_a_numbered_chain_that_is_not_wanted_any_more_goes_in_the_same_transaction() -> None:
    before = read_save(OURS.replace("-A INPUT", ":RB-INPUT-7 - [0:0]\n:RB-INPUT-8 - [0:0]\n-A INPUT", 1))
    text = install_text(["-A RB-INPUT-7 -j RETURN"], before)
    assert text.count("COMMIT") == 1
    assert "-X RB-INPUT-7" not in text
    assert text.index(":RB-INPUT-8 - [0:0]") < text.index("-A RB-INPUT-7 -j RETURN") < text.index("-X RB-INPUT-8")


def test_uninstall_names_only_what_is_ours_and_there() -> None:
    assert uninstall_text(read_save(OURS)).splitlines() == [
        "*filter",
        ":RB-INPUT - [0:0]",
        ":RB-OUTPUT - [0:0]",
        ":RB-FORWARD - [0:0]",
        "-D INPUT -j RB-INPUT",
        "-D FORWARD -j RB-FORWARD",
        "-D OUTPUT -j RB-OUTPUT",
        "-X RB-INPUT",
        "-X RB-OUTPUT",
        "-X RB-FORWARD",
        "COMMIT",
    ]
