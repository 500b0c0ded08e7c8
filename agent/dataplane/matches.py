"""What packets a rule of iptables is about, as iptables-save writes it. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from agent.dataplane.kinds import Kind, set_name
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Ports, Protocol

NEW: Final = "-m conntrack --ctstate NEW"
"""Attempts to connect."""

ICMP_ERRORS: Final[Mapping[int, Sequence[str]]] = {
    4: [f"-p icmp -m icmp --icmp-type {number}" for number in (3, 11, 12)],
    6: [f"-p ipv6-icmp -m icmp6 --icmpv6-type {number}" for number in (1, 2, 3, 4)],
}
"""By IP version, as the others."""

DISCOVERY: Final[Mapping[int, Sequence[str]]] = {
    4: [],
    6: [f"-p ipv6-icmp -m icmp6 --icmpv6-type {number}" for number in range(133, 138)],
}
"""Of neighbours (RFC 4861, section 4)."""

LISTENERS: Final[Mapping[int, Sequence[str]]] = {
    4: [],
    6: [f"-p ipv6-icmp -m icmp6 --icmpv6-type {number}" for number in (130, 131, 132, 143)],
}
"""Of multicast (RFC 2710, section 3, and RFC 3810, section 5): a switch that listens in needs them for discovery."""

LEASES: Final[Mapping[int, Sequence[str]]] = {
    4: [],
    6: ["-s fe80::/10 -p udp -m udp --sport 547 --dport 546"],
}
"""RFC 8415, section 7.2: asked by multicast, so that no connection of ours is known to be answered."""

_MULTIPORT_MAX: Final = 15
_NUMBERS: Final = {Protocol.TCP: 6, Protocol.UDP: 17}


def address(network: Prefix, end: str) -> str:
    """The match for a network at one end of the packet, `src` or `dst`, with a space behind it; empty for all."""
    option = "-s" if end == "src" else "-d"
    return f"{option} {network}{f'/{network.length}' if network.is_host else ''} " if network.length else ""


def in_sets(name: str, kinds: Iterable[Kind], end: str) -> list[str]:
    """The matches for the members of a service, an override or a custom set, at one end of the packet."""
    return [f"-m set --match-set {set_name(kind, name)} {end}" for kind in kinds]


def by_port(end: str) -> Callable[[Iterable[Ports]], list[str]]:
    """Gives the matches for ports: the packet's `dport` or `sport`."""

    def matches(ports: Iterable[Ports]) -> list[str]:
        found, listed = [], list(ports)
        for protocol in Protocol:
            for group in _groups([each for each in listed if each.protocol is protocol]):
                several = f"-m multiport --{end}s" if len(group) > 1 else f"-m {protocol} --{end}"
                found.append(f"-p {protocol} {several} {','.join(map(_numbers, group))}")
        return found

    return matches


def by_original_port(ports: Iterable[Ports]) -> list[str]:
    """The matches for the ports that the client asked for, whatever became of them on the way."""
    return [
        f"-p {each.protocol} -m conntrack --ctproto {_NUMBERS[each.protocol]} --ctorigdstport {_numbers(each)}"
        for each in ports
    ]


def quoted(text: str) -> str:
    """A word, as iptables-save writes it."""
    return f'"{text}"' if any(not (each.isalnum() or each == "_") for each in text) else text


def _groups(ports: Sequence[Ports]) -> list[list[Ports]]:
    """Splits ports as `-m multiport` takes them: 15 at most, where a range counts for two."""
    groups: list[list[Ports]] = []
    room = 0
    for each in ports:
        weight = 1 if each.first == each.last else 2
        if weight > room:
            groups.append([])
            room = _MULTIPORT_MAX
        groups[-1].append(each)
        room -= weight
    return groups


def _numbers(ports: Ports) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}:{ports.last}"
