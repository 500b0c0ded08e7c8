"""What is read from iptables-save, and what is given to iptables-restore."""

from agent.dataplane.iptables import install_text, read_save, uninstall_text

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
