"""The rules of this host as iptables-restore reads them. Pure; templates/iptables.rules says how they hang together.

Protected ports are closed to all but members; unless the host is closed, everything else on it stays as it was.
Membership is looked up for every packet, in both directions, without asking whether the connection is established: so
a live connection ends when its member does, and no conntrack entry can keep it open.

A denied address is cut off from all that the host offers. Connections that the host itself opened to it go
on: a deny of a whole network must not cut the agent off from Consul.

Refused attempts to connect are counted by a rule without a target, whose comment is `refused:<service>`, and logged
with that as the end of their prefix: `rb:refused:<service>`. What DENY or a custom set keeps out is `denied`, what a
closed host keeps out is `closed`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

from agent.dataplane.kinds import short_name
from agent.dataplane.matches import (
    DISCOVERY,
    ICMP_ERRORS,
    LEASES,
    LISTENERS,
    NEW,
    address,
    by_original_port,
    by_port,
    in_sets,
    quoted,
)
from agent.dataplane.plan import Wanted
from agent.dataplane.ports import segments, union
from agent.dataplane.template import RuleTemplate, built_in
from agent.desired import ALLOW, DENY, Desired, Target
from radius_bridge.policy.services import Ports, Protocol

JUMPS = {"INPUT": "RB-INPUT", "OUTPUT": "RB-OUTPUT", "FORWARD": "RB-FORWARD"}
"""The chain that the first rule of each built-in chain jumps to."""

_WAYS = ("INPUT", "OUTPUT", "FORWARD", "REPLY")

CHAINS = tuple(f"RB-{way}{part}" for way in _WAYS for part in ("", "-PORTS", "-REST", "-DENY", "-DROP"))
"""Our chains in the table `filter`, besides numbered ones: `RB-INPUT-1`; no other is ever touched."""

_NUMBERED = re.compile(rf"RB-(?:{'|'.join(_WAYS)})-\d+")

TEMPLATE = "iptables.rules"

LOG_PREFIX = "rb:"
"""Begins the NFLOG prefix of everything that we log."""

REFUSED, DENIED, CLOSED = "refused:", "denied", "closed"
"""What was refused: REFUSED and the service's short name, or one of the others."""

_RESET = "REJECT --reject-with tcp-reset"
_UNREACHABLE = {
    4: "REJECT --reject-with icmp-port-unreachable",
    6: "REJECT --reject-with icmp6-port-unreachable",
}
_FEW = 6
"""So many rules about ports are looked at one by one."""


@dataclass(frozen=True, slots=True)
class _Path:
    """A way of packets through the host, and how it is checked."""

    chain: str
    client: str
    """Which address of the packet is the client's: `src` or `dst`."""
    ports: Callable[[Iterable[Ports]], list[str]]
    """The matches for packets of a service with these ports."""
    admit: str
    """The verdict for members; where the host's own rules are to go on, RETURN."""
    refuse: tuple[str, str] | None
    """The verdicts for others: if it is TCP, and if not (nobody hears of a reply that was cut); None: only observe."""


def is_chain_of_ours(name: str) -> bool:
    """True for the chains that we make."""
    return name in CHAINS or _NUMBERED.fullmatch(name) is not None


def empty(desired: Desired) -> frozenset[str]:
    """The overrides and custom sets that have no members now, but for those that shut out.

    A first block must not wait for rules to be written: another program may hold the lock of iptables.
    """
    posture = desired.posture
    names = (ALLOW, *(each.name for each in posture.sets))
    return frozenset(name for name in names if not desired.of(name) and not posture.shuts_out(name))


def render(
    desired: Desired, version: int, template: RuleTemplate | None = None, unused: Collection[str] = ()
) -> list[str]:
    """The rules of all our chains for IP version 4 or 6, in order.

    The overrides and custom sets that are `unused` are not looked up: each look costs every packet.
    """
    template = template or built_in(TEMPLATE)
    observe = desired.posture.observe
    loud, quiet = (None, None) if observe else ((_RESET, _UNREACHABLE[version]), (_RESET, "DROP"))
    paths = {
        "input": _Path("RB-INPUT", "src", by_port("dport"), "RETURN" if observe else "ACCEPT", loud),
        "output": _Path("RB-OUTPUT", "dst", by_port("sport"), "RETURN", quiet),
        "forward": _Path("RB-FORWARD", "src", by_original_port, "RETURN", loud),
        "reply": _Path("RB-REPLY", "dst", by_original_port, "RETURN", quiet),
    }
    blocks = {
        "input_discovery": [f"-A RB-INPUT {match} -j {paths['input'].admit}" for match in DISCOVERY[version]],
        "input_closed": _closed(desired, paths["input"], version),
    }
    for name, path in paths.items():
        has_rest = f"-A {path.chain}-REST " in template.text or (name == "input" and desired.posture.closed)
        found = _checks(path, desired, version, unused) | _services(path, desired, version, has_rest=has_rest)
        found |= _ends(path, desired, version)
        blocks |= {f"{name}_{block}": rules for block, rules in found.items()}
    return template.fill(blocks)


def _checks(path: _Path, desired: Desired, version: int, unused: Collection[str]) -> dict[str, list[str]]:
    """Who is let in or kept out, whatever the port."""
    chain, targets = (
        path.chain,
        {"": f"-j {path.admit}", "deny": f"-g {path.chain}-DENY", "drop": f"-g {path.chain}-DROP"},
    )
    of_set = {Target.ACCEPT: targets[""], Target.REJECT: targets["deny"], Target.DROP: targets["drop"]}
    failsafe = [
        f"-A {chain} {address(network, path.client)}{match} -j {path.admit}"
        for entry in desired.failsafe
        for network in entry.networks
        if network.version == version
        for match in path.ports(entry.ports)
    ]

    def looked_up(name: str, target: str) -> list[str]:
        kinds = Wanted({}, (version,), shuts_out=desired.posture.shuts_out(name)).kinds
        matches = [] if name in unused else in_sets(name, kinds, path.client)
        return [f"-A {chain} {match} {target}" for match in matches]

    return {
        "failsafe": failsafe,
        "allow": looked_up(ALLOW, targets[""]),
        "deny": looked_up(DENY, targets["deny"]),
        "sets": [
            rule
            for each in desired.posture.sets
            if each.target in of_set
            for rule in looked_up(each.name, of_set[each.target])
        ],
    }


class _Lead(NamedTuple):
    """Packets to these ports go to that chain."""

    ports: Ports
    chain: str


def _services(path: _Path, desired: Desired, version: int, *, has_rest: bool) -> dict[str, list[str]]:
    """The way to the members of each service, by port; and who is let in there.

    `has_rest` says that the chain for all other packets has rules: to go there for nothing costs every one of them.
    """
    rest = f" -g {path.chain}-REST" if has_rest else ""
    parts = segments(desired.services)
    numbers = count(1)
    chains = {services: f"{path.chain}-{next(numbers)}" for services in dict.fromkeys(each.services for each in parts)}
    lead = []
    for protocol in Protocol:
        leads = [_Lead(each.ports, chains[each.services]) for each in parts if each.ports.protocol is protocol]
        if len(_leaf(path, path.chain, leads)) > _FEW:
            branch = f"{path.chain}-{next(numbers)}"
            lead += [*_to_all_of(path, path.chain, leads, branch), *_tree(path, branch, leads, numbers, rest)]
        else:
            lead += _leaf(path, path.chain, leads)
    return {
        "ports": [*lead, *([f"-A {path.chain}{rest}"] if rest else [])],
        "services": [
            rule for services, chain in chains.items() for rule in _service(path, chain, services, desired, version)
        ],
    }


def _tree(path: _Path, chain: str, leads: Sequence[_Lead], numbers: Iterator[int], rest: str) -> list[str]:
    """Leads by halves, so that 200 services cost a packet few rules more than one; the rest goes to the rest."""
    rules, branches = [], []
    while len(_leaf(path, chain, leads)) > _FEW:
        lower, leads = leads[: len(leads) // 2], leads[len(leads) // 2 :]
        branch = f"{path.chain}-{next(numbers)}"
        rules += _to_all_of(path, chain, lower, branch)
        branches += _tree(path, branch, lower, numbers, rest)
    return [*rules, *_leaf(path, chain, leads), *([f"-A {chain}{rest}"] if rest else []), *branches]


def _to_all_of(path: _Path, chain: str, leads: Sequence[_Lead], branch: str) -> list[str]:
    """Sends what may be for one of these ports, which are in order, to `branch`."""
    span = replace(leads[0].ports, last=leads[-1].ports.last)
    return [f"-A {chain} {match} -g {branch}" for match in path.ports([span])]


def _leaf(path: _Path, chain: str, leads: Iterable[_Lead]) -> list[str]:
    ports = defaultdict[str, list[Ports]](list)
    for each in leads:
        ports[each.chain].append(each.ports)
    return [f"-A {chain} {match} -g {target}" for target, some in ports.items() for match in path.ports(some)]


def _service(path: _Path, chain: str, services: Iterable[str], desired: Desired, version: int) -> list[str]:
    """The chain for ports that belong to these services: members are let in, attempts of others are told."""
    kinds = Wanted({}, (version,)).kinds
    rules = [
        f"-A {chain} {member} -j {path.admit}" for name in services for member in in_sets(name, kinds, path.client)
    ]
    if path.client == "src":
        rules += [rule for name in services for rule in _tell(chain, REFUSED + short_name(name), desired)]
    return [*rules, f"-A {chain} -g {path.chain}-PORTS"]


def _ends(path: _Path, desired: Desired, version: int) -> dict[str, list[str]]:
    """What becomes of the rest, and what is told of it."""
    blocks = {
        "refuse": _refuse(path, f"{path.chain}-PORTS"),
        "denied_refuse": _refuse(path, f"{path.chain}-DENY"),
        "dropped_refuse": _refuse(path, f"{path.chain}-DROP", silently=True),
    }
    if path.client == "src":
        blocks["denied"] = _tell(f"{path.chain}-DENY", DENIED, desired)
        blocks["dropped"] = _tell(f"{path.chain}-DROP", DENIED, desired)
    if path.chain in ("RB-INPUT", "RB-OUTPUT"):
        protected = union(ports for service in desired.services for ports in service.ports)
        blocks["denied_ports"] = _refuse(path, f"{path.chain}-DENY", protected)
        blocks["dropped_ports"] = _refuse(path, f"{path.chain}-DROP", protected, silently=True)
    if path.chain == "RB-OUTPUT":
        errors = [*ICMP_ERRORS[version], *DISCOVERY[version]]
        blocks["denied_errors"] = [f"-A RB-OUTPUT-DENY {match} -j RETURN" for match in errors]
        blocks["dropped_errors"] = [f"-A RB-OUTPUT-DROP {match} -j RETURN" for match in errors]
    return blocks


def _refuse(path: _Path, chain: str, only: Iterable[Ports] | None = None, *, silently: bool = False) -> list[str]:
    """Refuses packets to these ports (None: all that come there)."""
    if path.refuse is None:
        matches = [""] if only is None else path.ports(only)
        return [f"-A {chain} {match} -j RETURN".replace("  ", " ") for match in matches]
    tcp, other = ("DROP", "DROP") if silently else path.refuse
    if only is None:
        return [f"-A {chain} -j DROP"] if silently else [f"-A {chain} -p tcp -j {tcp}", f"-A {chain} -j {other}"]
    verdicts = {Protocol.TCP: tcp, Protocol.UDP: other}
    return [
        f"-A {chain} {match} -j {verdict}"
        for protocol, verdict in verdicts.items()
        for match in path.ports([ports for ports in only if ports.protocol is protocol])
    ]


def _tell(chain: str, what: str, desired: Desired) -> list[str]:
    """Counts attempts to connect, and logs some of them."""
    rules = [f"-A {chain} {NEW} -m comment --comment {quoted(what)}"]
    log = desired.posture.log
    if log is not None:
        limit = f"-m limit --limit {log.per_second}/sec --limit-burst {2 * log.per_second}"
        target = f"-j NFLOG --nflog-prefix {quoted(LOG_PREFIX + what)} --nflog-group {log.group}"
        rules.append(f"-A {chain} {NEW} {limit} {target}")
    return rules


def _closed(desired: Desired, path: _Path, version: int) -> list[str]:
    """What a closed host does with everything that is no service's: its own connections and openings go on."""
    if not desired.posture.closed:
        return []
    passing = ["-m conntrack --ctstate RELATED", "-m conntrack --ctdir REPLY", *LISTENERS[version], *LEASES[version]]
    for opening in desired.posture.openings:
        networks = [network for network in opening.networks if network.version == version]
        sources = [address(network, path.client) for network in networks] if opening.networks else [""]
        matches = path.ports(opening.ports) if opening.ports else [""]
        passing += [f"{source}{match}".strip() for source in sources for match in matches]
    chain = f"{path.chain}-REST"
    rules = [f"-A {chain} {match} -j RETURN" for match in passing]
    verdict = "RETURN" if path.refuse is None else "DROP"
    return [*rules, *_tell(chain, CLOSED, desired), f"-A {chain} -j {verdict}"]
