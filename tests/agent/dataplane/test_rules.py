"""The rules as text: the order is the policy."""

from agent.dataplane.rules import CHAINS, render, union
from agent.desired import Desired, Failsafe
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import Ports, Protocol, Service, parse_ports

SSH = Service("ssh_tcp_22", (parse_ports("22"),))
DNS = Service("dns_udp_53", (parse_ports("53/udp"), parse_ports("53")))
FAILSAFE = Failsafe((parse_prefix("10.9.0.0/16"), parse_prefix("fd09::/64")), (parse_ports("22"),))
DESIRED = Desired((DNS, SSH), {}, (FAILSAFE,))


def _chain(rules: list[str], name: str) -> list[str]:
    return [rule.removeprefix(f"-A {name} ") for rule in rules if rule.startswith(f"-A {name} ")]


def test_input_checks_failsafe_allow_deny_members_and_refuses_the_rest_of_protected_ports() -> None:
    assert _chain(render(DESIRED, 4), "RB-INPUT") == [
        "-i lo -j RETURN",
        "-s 10.9.0.0/16 -p tcp -m tcp --dport 22 -j ACCEPT",
        "-m set --match-set rb4h.rules_allow src -j ACCEPT",
        "-m set --match-set rb4n.rules_allow src -j ACCEPT",
        "-m set --match-set rb4h.rules_deny src -g RB-INPUT-DENY",
        "-m set --match-set rb4n.rules_deny src -g RB-INPUT-DENY",
        "-p tcp -m tcp --dport 53 -m set --match-set rb4h.dns_udp_53 src -j ACCEPT",
        "-p tcp -m tcp --dport 53 -m set --match-set rb4n.dns_udp_53 src -j ACCEPT",
        "-p udp -m udp --dport 53 -m set --match-set rb4h.dns_udp_53 src -j ACCEPT",
        "-p udp -m udp --dport 53 -m set --match-set rb4n.dns_udp_53 src -j ACCEPT",
        "-p tcp -m tcp --dport 22 -m set --match-set rb4h.ssh_tcp_22 src -j ACCEPT",
        "-p tcp -m tcp --dport 22 -m set --match-set rb4n.ssh_tcp_22 src -j ACCEPT",
        "-p tcp -m multiport --dports 22,53 -j REJECT --reject-with tcp-reset",
        "-p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable",
    ]


def test_output_checks_the_replies_and_lets_resets_pass() -> None:
    assert _chain(render(DESIRED, 4), "RB-OUTPUT")[:3] == [
        "-o lo -j RETURN",
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,URG RST -j RETURN",
        "-d 10.9.0.0/16 -p tcp -m tcp --sport 22 -j RETURN",
    ]
    assert _chain(render(DESIRED, 4), "RB-OUTPUT")[-4:] == [
        "-p tcp -m tcp --sport 22 -m set --match-set rb4h.ssh_tcp_22 dst -j RETURN",
        "-p tcp -m tcp --sport 22 -m set --match-set rb4n.ssh_tcp_22 dst -j RETURN",
        "-p tcp -m multiport --sports 22,53 -j REJECT --reject-with tcp-reset",
        "-p udp -m udp --sport 53 -j DROP",
    ]


def test_ipv6_lets_neighbour_discovery_in_before_any_check_of_members() -> None:
    rules = _chain(render(DESIRED, 6), "RB-INPUT")
    assert rules[1] == "-s fd09::/64 -p tcp -m tcp --dport 22 -j ACCEPT"
    assert rules[2:7] == [f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j ACCEPT" for kind in range(133, 138)]
    assert rules[7] == "-m set --match-set rb6h.rules_allow src -j ACCEPT"


def test_a_denied_address_keeps_only_what_the_host_opened_itself() -> None:
    assert _chain(render(DESIRED, 4), "RB-INPUT-DENY") == [
        "-p tcp -m multiport --dports 22,53 -j REJECT --reject-with tcp-reset",
        "-p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable",
        "-m conntrack --ctdir REPLY -j RETURN",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "-j REJECT --reject-with icmp-port-unreachable",
    ]


def test_forward_concerns_published_ports_only_and_asks_for_the_original_port() -> None:
    rules = _chain(render(DESIRED, 4), "RB-FORWARD")
    assert rules[:2] == ["-m conntrack ! --ctstate DNAT -j RETURN", "-m conntrack --ctdir REPLY -g RB-REPLY"]
    assert rules[-3:] == [
        "-p tcp -m conntrack --ctproto tcp --ctorigdstport 22 -j REJECT --reject-with tcp-reset",
        "-p tcp -m conntrack --ctproto tcp --ctorigdstport 53 -j REJECT --reject-with tcp-reset",
        "-p udp -m conntrack --ctproto udp --ctorigdstport 53 -j REJECT --reject-with icmp-port-unreachable",
    ]
    assert _chain(render(DESIRED, 4), "RB-REPLY")[-1] == (
        "-p udp -m conntrack --ctproto udp --ctorigdstport 53 -j DROP"
    )


def test_a_host_without_services_refuses_nobody_but_the_denied() -> None:
    rules = render(Desired((), {}), 4)
    assert not [rule for rule in rules if ("REJECT" in rule or "DROP" in rule) and "-DENY" not in rule]


def test_every_rule_is_in_a_chain_of_ours() -> None:
    assert {rule.split(" ")[1] for version in (4, 6) for rule in render(DESIRED, version)} == set(CHAINS)


def test_multiport_takes_fifteen_and_a_range_counts_twice() -> None:
    ports = tuple(Ports(Protocol.TCP, first, first + 1) for first in range(100, 200, 10))
    rules = _chain(render(Desired((Service("many_tcp_100", ports),), {}), 4), "RB-INPUT")
    lists = [rule.split("--dports ")[1].split(" ")[0].split(",") for rule in rules if "REJECT" in rule]
    assert [len(each) for each in lists] == [7, 3]
    assert [port for each in lists for port in each] == [f"{each.first}:{each.last}" for each in ports]


def test_the_union_of_ports_has_no_overlaps() -> None:
    texts = ("80", "8000:8100", "8050:8200", "81", "53/udp", "80")
    assert [str(ports) for ports in union(map(parse_ports, texts))] == ["80:81/tcp", "8000:8200/tcp", "53/udp"]
