"""The rules of this host as iptables-restore reads them. Pure.

Protected ports are closed to all but members; everything else on the host stays as it was. Membership is
looked up for every packet, in both directions, without asking whether the connection is established: so a
live connection ends when its member does, and no conntrack entry can keep it open.

A denied address is cut off from all that the host offers. Connections that the host itself opened to it go
on: a deny of a whole network must not cut the agent off from Consul.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.dataplane.plan import Kind, set_name
from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.services import Ports, Protocol

JUMPS = {"INPUT": "RB-INPUT", "OUTPUT": "RB-OUTPUT", "FORWARD": "RB-FORWARD"}
"""The chain that the first rule of each built-in chain jumps to."""

CHAINS = (
    *("RB-INPUT", "RB-INPUT-DENY"),
    *("RB-OUTPUT", "RB-OUTPUT-DENY"),
    *("RB-FORWARD", "RB-FORWARD-DENY"),
    *("RB-REPLY", "RB-REPLY-DENY"),
)
"""Our chains in the table `filter`; no other is ever touched."""

_TEMPLATE = """
-A RB-INPUT -i lo -j RETURN
{input_checks}
{input_refuse}

{input_refuse_denied}
-A RB-INPUT-DENY -m conntrack --ctdir REPLY -j RETURN
{input_refuse_rest}

-A RB-OUTPUT -o lo -j RETURN
-A RB-OUTPUT {bare_reset} -j RETURN
{output_checks}
{output_refuse}

{output_refuse_denied}
{icmp_errors_and_discovery}
-A RB-OUTPUT-DENY -m conntrack --ctdir ORIGINAL -j RETURN
{output_refuse_rest}

-A RB-FORWARD -m conntrack ! --ctstate DNAT -j RETURN
-A RB-FORWARD -m conntrack --ctdir REPLY -g RB-REPLY
{forward_checks}
{forward_refuse}

{forward_refuse_rest}

-A RB-REPLY {bare_reset} -j RETURN
{reply_checks}
{reply_refuse}

{reply_refuse_rest}
"""
# Resets pass on the way out: they are how a refusal is felt at once. A published (DNATed) connection is known
# by the port that its client asked for, since its packets already show the container's.

_BARE_RESET = "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,URG RST"
_RESET = "REJECT --reject-with tcp-reset"
_UNREACHABLE = {
    4: "REJECT --reject-with icmp-port-unreachable",
    6: "REJECT --reject-with icmp6-port-unreachable",
}
_ICMP_ERRORS = {
    4: [f"-p icmp -m icmp --icmp-type {number}" for number in (3, 11, 12)],
    6: [f"-p ipv6-icmp -m icmp6 --icmpv6-type {number}" for number in (1, 2, 3, 4)],
}
_DISCOVERY = {  # RFC 4861, section 4
    4: [],
    6: [f"-p ipv6-icmp -m icmp6 --icmpv6-type {number}" for number in range(133, 138)],
}
_MULTIPORT_MAX = 15


@dataclass(frozen=True, slots=True)
class _Path:
    """A way of packets through the host, and how it is checked."""

    chain: str
    client: str
    """Which address of the packet is the client's: `src` or `dst`."""
    ports: Callable[[Sequence[Ports]], list[str]]
    """The matches for packets of a service with these ports."""
    admit: str
    """The verdict for members; where the host's own rules are to go on, RETURN."""
    other: str
    """The verdict for others, if it is not TCP: nobody hears of a reply that was cut."""


def render(desired: Desired, version: int) -> list[str]:
    """The rules of all our chains for IP version 4 or 6, in order."""
    unreachable = _UNREACHABLE[version]
    paths = {
        "input": _Path("RB-INPUT", "src", _by_port("dport"), "ACCEPT", unreachable),
        "output": _Path("RB-OUTPUT", "dst", _by_port("sport"), "RETURN", "DROP"),
        "forward": _Path("RB-FORWARD", "src", _by_original_port, "RETURN", unreachable),
        "reply": _Path("RB-REPLY", "dst", _by_original_port, "RETURN", "DROP"),
    }
    protected = union(ports for service in desired.services for ports in service.ports)
    blocks = {
        "bare_reset": [_BARE_RESET],
        "icmp_errors_and_discovery": [
            f"-A RB-OUTPUT-DENY {match} -j RETURN" for match in _ICMP_ERRORS[version] + _DISCOVERY[version]
        ],
    }
    for name, path in paths.items():
        blocks[f"{name}_checks"] = _checks(path, desired, version)
        blocks[f"{name}_refuse"] = _refuse(path, path.chain, protected)
        # In the chain for denied addresses too, before the host's own connections are let through.
        blocks[f"{name}_refuse_denied"] = _refuse(path, f"{path.chain}-DENY", protected)
        blocks[f"{name}_refuse_rest"] = [
            f"-A {path.chain}-DENY -p tcp -j {_RESET}",
            f"-A {path.chain}-DENY -j {path.other}",
        ]
    text = _TEMPLATE.format_map({name: "\n".join(lines) for name, lines in blocks.items()})
    return [line for line in text.splitlines() if line]


def union(ports: Iterable[Ports]) -> list[Ports]:
    """The same ports without overlaps, each protocol's in order."""
    merged: list[Ports] = []
    for each in sorted(ports):
        last = merged[-1] if merged else None
        if last and last.protocol == each.protocol and each.first <= last.last + 1:
            merged[-1] = Ports(last.protocol, last.first, max(last.last, each.last))
        else:
            merged.append(each)
    return merged


def _checks(path: _Path, desired: Desired, version: int) -> list[str]:
    address = "-s" if path.client == "src" else "-d"
    failsafe = [
        f"{address} {network} {match} -j {path.admit}"
        for entry in desired.failsafe
        for network in entry.networks
        if network.version == version
        for match in path.ports(entry.ports)
    ]
    discovery = [f"{match} -j ACCEPT" for match in _DISCOVERY[version]] if path.chain == "RB-INPUT" else []
    allow = [f"{match} -j {path.admit}" for match in _in_sets(ALLOW, path, version)]
    deny = [f"{match} -g {path.chain}-DENY" for match in _in_sets(DENY, path, version)]
    members = [
        f"{match} {member} -j {path.admit}"
        for service in desired.services
        for match in path.ports(service.ports)
        for member in _in_sets(service.name, path, version)
    ]
    return [f"-A {path.chain} {rule}" for rule in failsafe + discovery + allow + deny + members]


def _refuse(path: _Path, chain: str, protected: Sequence[Ports]) -> list[str]:
    return [
        f"-A {chain} {match} -j {_RESET if protocol is Protocol.TCP else path.other}"
        for protocol in Protocol
        for match in path.ports([ports for ports in protected if ports.protocol is protocol])
    ]


def _in_sets(name: str, path: _Path, version: int) -> list[str]:
    return [f"-m set --match-set {set_name(Kind(version, hosts), name)} {path.client}" for hosts in (True, False)]


def _by_port(end: str) -> Callable[[Sequence[Ports]], list[str]]:
    def matches(ports: Sequence[Ports]) -> list[str]:
        found = []
        for protocol in Protocol:
            for group in _groups([each for each in ports if each.protocol is protocol]):
                several = f"-m multiport --{end}s" if len(group) > 1 else f"-m {protocol} --{end}"
                found.append(f"-p {protocol} {several} {','.join(map(_numbers, group))}")
        return found

    return matches


def _by_original_port(ports: Sequence[Ports]) -> list[str]:
    return [
        f"-p {each.protocol} -m conntrack --ctproto {each.protocol} --ctorigdstport {_numbers(each)}" for each in ports
    ]


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
