"""What packets a rule is about, in the words of iptables-save."""

import pytest

from agent.dataplane.kinds import KINDS
from agent.dataplane.matches import address, by_original_port, by_port, in_sets, quoted
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import parse_ports


def test_one_port_many_ports_and_ranges_are_matched_by_protocol() -> None:
    ports = [parse_ports(each) for each in ("22", "53/udp", "8080:8090", "443")]
    assert by_port("dport")(ports) == [
        "-p tcp -m multiport --dports 22,8080:8090,443",
        "-p udp -m udp --dport 53",
    ]
    assert by_port("sport")(ports[:1]) == ["-p tcp -m tcp --sport 22"]
    assert by_port("dport")([]) == []


def test_multiport_takes_fifteen_and_a_range_counts_twice() -> None:
    ports = [parse_ports(f"{100 * number}:{100 * number + 9}") for number in range(1, 9)]
    found = by_port("dport")([*ports, parse_ports("22")])
    assert [match.count(",") + 1 for match in found] == [7, 2]
    assert [match.count(":") for match in found] == [7, 1]


def test_the_port_that_the_client_asked_for_is_what_conntrack_remembers() -> None:
    assert by_original_port([parse_ports("22"), parse_ports("8080:8090/udp")]) == [
        "-p tcp -m conntrack --ctproto 6 --ctorigdstport 22",
        "-p udp -m conntrack --ctproto 17 --ctorigdstport 8080:8090",
    ]


@pytest.mark.parametrize(
    ("network", "expected"),
    [("192.0.2.1", "-s 192.0.2.1/32 "), ("2001:db8::/32", "-s 2001:db8::/32 "), ("0.0.0.0/0", ""), ("::/0", "")],
)
def test_a_network_is_matched_at_its_end_and_all_of_them_need_no_match(network: str, expected: str) -> None:
    assert address(parse_prefix(network), "src") == expected
    assert address(parse_prefix(network), "dst") == expected.replace("-s", "-d")


def test_members_are_looked_up_in_each_kind_of_set() -> None:
    assert in_sets("ssh_tcp_22", KINDS[:2], "src") == [
        "-m set --match-set rb4h.ssh_tcp_22 src",
        "-m set --match-set rb4n.ssh_tcp_22 src",
    ]


def test_what_is_no_plain_word_is_quoted() -> None:
    assert [quoted(each) for each in ("denied", "refused:ssh_tcp_22", "a b")] == [
        "denied",
        '"refused:ssh_tcp_22"',
        '"a b"',
    ]
