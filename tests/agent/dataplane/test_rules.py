"""The rules as text: the order is the policy."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.rules import CHAINS, TEMPLATE, empty, is_chain_of_ours, render
from agent.dataplane.template import RuleTemplate, built_in
from agent.desired import ALLOW, DENY, CustomSet, Desired, Failsafe, Opening, Posture, RefusedLog, Target
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import Ports, Protocol, Service, parse_ports

SSH = Service("ssh_tcp_22", (parse_ports("22"),))
DNS = Service("dns_udp_53", (parse_ports("53/udp"), parse_ports("53")))
FAILSAFE = Failsafe((parse_prefix("10.9.0.0/16"), parse_prefix("fd09::/64")), (parse_ports("22"),))
DESIRED = Desired((DNS, SSH), {}, (FAILSAFE,))


def _chain(rules: list[str], name: str) -> list[str]:
    return [rule.removeprefix(f"-A {name} ") for rule in rules if rule.startswith(f"-A {name} ")]


def test_input_checks_failsafe_allow_deny_and_then_only_what_goes_to_protected_ports() -> None:
    assert _chain(render(DESIRED, 4), "RB-INPUT") == [
        "-i lo -j RETURN",
        "-s 10.9.0.0/16 -p tcp -m tcp --dport 22 -j ACCEPT",
        "-m set --match-set rb4h.rules_allow src -j ACCEPT",
        "-m set --match-set rb4n.rules_allow src -j ACCEPT",
        "-m set --match-set rb4n.rules_deny src -g RB-INPUT-DENY",
        "-p tcp -m tcp --dport 22 -g RB-INPUT-1",
        "-p tcp -m tcp --dport 53 -g RB-INPUT-2",
        "-p udp -m udp --dport 53 -g RB-INPUT-2",
    ]


def test_an_override_without_members_costs_no_packet_a_look() -> None:
    members = {"rules_deny": {parse_prefix("10.0.0.1"): NEVER}}
    desired = Desired((SSH,), members, (), replace(POSTURE, closed=False))
    assert empty(desired) == {"rules_allow", "partners", "others"}, "a first block never waits for rules"
    assert _chain(render(desired, 4, None, empty(desired)), "RB-INPUT") == [
        "-i lo -j RETURN",
        "-m set --match-set rb4n.rules_deny src -g RB-INPUT-DENY",
        "-m set --match-set rb4n.scanners src -g RB-INPUT-DROP",
        "-m set --match-set rb4n.segments src -g RB-INPUT-DENY",
        "-p tcp -m tcp --dport 22 -g RB-INPUT-1",
    ]


def test_members_are_let_in_to_protected_ports_and_everybody_else_is_counted_and_refused() -> None:
    rules = render(DESIRED, 4)
    assert _chain(rules, "RB-INPUT-2") == [
        "-m set --match-set rb4h.dns_udp_53 src -j ACCEPT",
        "-m set --match-set rb4n.dns_udp_53 src -j ACCEPT",
        '-m conntrack --ctstate NEW -m comment --comment "refused:dns_udp_53"',
        "-g RB-INPUT-PORTS",
    ]
    assert _chain(rules, "RB-INPUT-PORTS") == [
        "-p tcp -j REJECT --reject-with tcp-reset",
        "-j REJECT --reject-with icmp-port-unreachable",
    ]


def test_a_port_of_two_services_admits_the_members_of_both() -> None:
    rules = render(Desired((DNS, Service("any_tcp_50", (parse_ports("50-60"),))), {}), 4)
    shared = next(rule.split()[-1] for rule in _chain(rules, "RB-INPUT") if "-p tcp -m tcp --dport 53 " in rule)
    assert [rule.split()[3] for rule in _chain(rules, shared) if "rb4h" in rule] == [
        "rb4h.any_tcp_50",
        "rb4h.dns_udp_53",
    ]


def test_output_checks_the_replies_and_lets_resets_pass() -> None:
    rules = render(DESIRED, 4)
    assert _chain(rules, "RB-OUTPUT")[:3] == [
        "-o lo -j RETURN",
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,URG RST -j RETURN",
        "-d 10.9.0.0/16 -p tcp -m tcp --sport 22 -j RETURN",
    ]
    assert _chain(rules, "RB-OUTPUT")[-3:] == [
        "-p tcp -m tcp --sport 22 -g RB-OUTPUT-1",
        "-p tcp -m tcp --sport 53 -g RB-OUTPUT-2",
        "-p udp -m udp --sport 53 -g RB-OUTPUT-2",
    ]
    assert _chain(rules, "RB-OUTPUT-1") == [
        "-m set --match-set rb4h.ssh_tcp_22 dst -j RETURN",
        "-m set --match-set rb4n.ssh_tcp_22 dst -j RETURN",
        "-g RB-OUTPUT-PORTS",
    ]
    assert _chain(rules, "RB-OUTPUT-PORTS") == ["-p tcp -j REJECT --reject-with tcp-reset", "-j DROP"]


def test_ipv6_lets_neighbour_discovery_in_before_any_check_of_members() -> None:
    rules = _chain(render(DESIRED, 6), "RB-INPUT")
    assert rules[1] == "-s fd09::/64 -p tcp -m tcp --dport 22 -j ACCEPT"
    assert rules[2:7] == [f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j ACCEPT" for kind in range(133, 138)]
    assert rules[7] == "-m set --match-set rb6h.rules_allow src -j ACCEPT"


def test_a_denied_address_keeps_only_what_the_host_opened_itself() -> None:
    assert _chain(render(DESIRED, 4), "RB-INPUT-DENY") == [
        "-m conntrack --ctstate NEW -m comment --comment denied",
        "-p tcp -m multiport --dports 22,53 -j REJECT --reject-with tcp-reset",
        "-p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable",
        "-m conntrack --ctdir REPLY -j RETURN",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "-j REJECT --reject-with icmp-port-unreachable",
    ]


def test_forward_concerns_published_ports_only_and_asks_for_the_original_port() -> None:
    rules = render(DESIRED, 4)
    assert _chain(rules, "RB-FORWARD")[:2] == [
        "-m conntrack ! --ctstate DNAT -j RETURN",
        "-m conntrack --ctdir REPLY -g RB-REPLY",
    ]
    assert _chain(rules, "RB-FORWARD")[-3:] == [
        "-p tcp -m conntrack --ctproto 6 --ctorigdstport 22 -g RB-FORWARD-1",
        "-p tcp -m conntrack --ctproto 6 --ctorigdstport 53 -g RB-FORWARD-2",
        "-p udp -m conntrack --ctproto 17 --ctorigdstport 53 -g RB-FORWARD-2",
    ]
    assert _chain(rules, "RB-REPLY-PORTS")[-2:] == ["-p tcp -j REJECT --reject-with tcp-reset", "-j DROP"]


def test_a_host_without_services_refuses_nobody_but_the_denied() -> None:
    rules = render(Desired((), {}), 4)
    assert not [rule for rule in rules if "-PORTS" in rule.split(" ", 2)[2]]
    assert not [
        rule
        for rule in rules
        if ("REJECT" in rule or "DROP" in rule.split(" -j ")[-1])
        and not rule.split(" ")[1].endswith(("-DENY", "-DROP", "-PORTS"))
    ]


POSTURE = Posture(
    sets=(
        CustomSet("partners", Target.ACCEPT),
        CustomSet("scanners", Target.DROP),
        CustomSet("segments", Target.REJECT),
        CustomSet("others", Target.NONE),
    ),
    closed=True,
    openings=(Opening((parse_prefix("10.0.0.0/8"),), ()), Opening((), (parse_ports("123/udp"),))),
    log=RefusedLog(7, 10),
)


def test_custom_sets_come_after_the_overrides_and_one_without_a_target_has_no_rule() -> None:
    rules = _chain(render(Desired((), {}, (), POSTURE), 4), "RB-INPUT")
    assert [rule.split("rb4n.")[1] for rule in rules if "rb4n." in rule] == [
        "rules_allow src -j ACCEPT",
        "rules_deny src -g RB-INPUT-DENY",
        "partners src -j ACCEPT",
        "scanners src -g RB-INPUT-DROP",
        "segments src -g RB-INPUT-DENY",
    ]


def test_a_closed_host_keeps_its_own_connections_and_its_openings() -> None:
    assert _chain(render(Desired((), {}, (), POSTURE), 4), "RB-INPUT-REST") == [
        "-m conntrack --ctstate RELATED -j RETURN",
        "-m conntrack --ctdir REPLY -j RETURN",
        "-s 10.0.0.0/8 -j RETURN",
        "-p udp -m udp --dport 123 -j RETURN",
        "-m conntrack --ctstate NEW -m comment --comment closed",
        "-m conntrack --ctstate NEW -m limit --limit 10/sec --limit-burst 20"
        ' -j NFLOG --nflog-prefix "rb:closed" --nflog-group 7',
        "-j DROP",
    ]


def test_packets_for_no_service_go_to_the_rest_only_where_it_may_have_rules() -> None:
    rest = "-g RB-INPUT-REST"
    is_open, closed = Desired((SSH,), {}), Desired((SSH,), {}, (), POSTURE)
    assert rest not in _chain(render(is_open, 4), "RB-INPUT")
    assert rest in _chain(render(closed, 4), "RB-INPUT")
    assert not any("-g RB-OUTPUT-REST" in rule for rule in render(closed, 4))
    theirs = RuleTemplate(f"{built_in(TEMPLATE).text}\n-A RB-INPUT-REST -s 10.0.0.0/8 -j ACCEPT\n")
    assert rest in _chain(render(is_open, 4, theirs), "RB-INPUT")


def test_refused_attempts_are_logged_with_the_services_name() -> None:
    rules = _chain(render(Desired((SSH,), {}, (), POSTURE), 4), "RB-INPUT-1")
    assert rules[3] == (
        "-m conntrack --ctstate NEW -m limit --limit 10/sec --limit-burst 20"
        ' -j NFLOG --nflog-prefix "rb:refused:ssh_tcp_22" --nflog-group 7'
    )


@pytest.mark.parametrize("version", [4, 6])
def test_who_only_observes_refuses_nobody_and_accepts_for_no_other_rule(version: int) -> None:
    posture = replace(POSTURE, observe=True)
    rules = render(Desired((DNS, SSH), {}, (FAILSAFE,), posture), version)
    targets = {rule.split(f" -{flag} ")[1].split(" ")[0] for rule in rules for flag in "jg" if f" -{flag} " in rule}
    assert {target for target in targets if not target.startswith("RB-")} == {"RETURN", "NFLOG"}


def test_every_rule_is_in_a_chain_of_ours() -> None:
    posture = replace(POSTURE, sets=())
    chains = {rule.split(" ")[1] for version in (4, 6) for rule in render(replace(DESIRED, posture=posture), version)}
    assert all(map(is_chain_of_ours, chains))
    assert chains >= {chain for chain in CHAINS if not chain.endswith("-REST")}
    assert not any(map(is_chain_of_ours, ("INPUT", "RB-INPUT-OTHER", "RB-INPUT-1a", "RB-1")))


_MATCH = re.compile(r"-p (tcp|udp) -m \S+ --dports? (\S+) -g (\S+)")


def _met(rules: list[str], protocol: Protocol, port: int) -> tuple[list[str], int]:
    """The sets of hosts that a packet to this port is looked up in, and how many rules it meets until then."""
    chains, rest, met = {each.split()[1] for each in rules}, _chain(rules, "RB-INPUT"), 0
    while rest:
        rule, *rest = rest
        met += 1
        if rule.startswith("-m set"):
            return [each.split()[3] for each in (rule, *rest) if "rb4h" in each], met
        match = _MATCH.fullmatch(rule)
        if match:
            spans = (each.split(":") for each in match[2].split(","))
            goes = match[1] == protocol and any(int(span[0]) <= port <= int(span[-1]) for span in spans)
        else:
            goes = rule.startswith(("-g ", f"-p {protocol} -g "))
        if goes:
            target = rule.split()[-1]
            rest = _chain(rules, target) if target in chains else []
    return [], met


_SERVICES = st.lists(
    st.tuples(st.sampled_from(Protocol), st.integers(1, 400), st.integers(0, 12)).map(
        lambda each: Ports(each[0], each[1], each[1] + each[2])
    ),
    max_size=40,
).map(lambda ports: tuple(Service(f"s{number}", (each,)) for number, each in enumerate(ports)))


@given(_SERVICES, st.sampled_from(Protocol), st.integers(1, 420))
def test_a_packet_is_looked_up_in_the_sets_of_its_ports_services(
    services: tuple[Service, ...], protocol: Protocol, port: int
) -> None:
    rules = render(Desired(services, {}), 4, None, (ALLOW, DENY))
    owners = {
        f"rb4h.{each.name}"
        for each in services
        for ports in each.ports
        if ports.protocol is protocol and ports.first <= port <= ports.last
    }
    assert set(_met(rules, protocol, port)[0]) == owners


def test_two_hundred_services_cost_a_packet_few_rules_more_than_one() -> None:
    services = tuple(Service(f"s{port}", (Ports(Protocol.UDP, port, port),)) for port in range(1000, 1400, 2))
    rules = render(Desired(services, {}), 4, None, (ALLOW, DENY))
    assert max(_met(rules, Protocol.UDP, port)[1] for port in range(990, 1410)) < 20
