"""The rules of this host as nft reads them. Pure; templates/nftables.nft says how they hang together.

They mean what the iptables rules mean (agent/dataplane/rules.py), with two differences that come from nftables: to be
let in here ends no other table's rules, and the same rules serve IPv4 and IPv6.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent.dataplane.kinds import KINDS, Kind, set_name, short_name
from agent.dataplane.plan import last_address
from agent.dataplane.ports import segments, union
from agent.dataplane.rules import CLOSED, DENIED, LOG_PREFIX, REFUSED
from agent.dataplane.template import RuleTemplate, built_in
from agent.desired import ALLOW, DENY, Desired, Opening, Target
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Ports, Protocol

TABLE = "radius_bridge"
"""Our table, of the family inet; no other is ever touched."""

TEMPLATE = "nftables.nft"

OVERRIDDEN = "overridden"
"""The set of IP versions for which overrides and custom sets are looked up: all of them, or none while these have no
members. To put them in takes no rule to be written, so a first block waits for no program."""

OVERRIDDEN_ALL = (2, 10)
"""What is in it then: IPv4 and IPv6 as netfilter numbers them (linux/netfilter.h, NFPROTO)."""

_ORIGINAL = "meta l4proto {0} ct original proto-dst"
_LISTENERS = "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report"
_LEASES = "ip6 saddr fe80::/10 udp sport 547 udp dport 546"  # RFC 8415, section 7.2: asked by multicast
_NEW = "ct state new"

AGAIN = "again."
"""Begins the names of chains that lead to the chains of services by one rule after the other."""


class _Path(NamedTuple):
    """A way of packets through the host: where its client's address and its service's port are to be found."""

    side: str
    """`from` a client, or `to` it."""
    port: str
    """The port of the service, for a protocol."""


_PATHS = {
    "input": _Path("from", "{0} dport"),
    "output": _Path("to", "{0} sport"),
    "forward": _Path("from", _ORIGINAL),
    "reply": _Path("to", _ORIGINAL),
}
_ADDRESS = {"from": "saddr", "to": "daddr"}


def declarations(names: Iterable[str]) -> dict[str, str]:
    """Our sets, with those of these services, overrides and custom sets: kernel name → how nft declares it."""
    found = {OVERRIDDEN: "typeof meta nfproto;"}
    for name in names:
        for kind in KINDS:
            address = "ipv4_addr" if kind.version == 4 else "ipv6_addr"
            flags = "timeout" if kind.hosts else "interval,timeout"
            found[set_name(kind, name)] = f"type {address}; flags {flags};"
    return found


def render(desired: Desired, template: RuleTemplate | None = None) -> list[str]:
    """The lines of our table with its counters and chains, but without its sets."""
    posture = desired.posture
    parts = segments(desired.services)
    chains = {each.services: "." + short_name(" ".join(each.services)) for each in parts}
    blocks: dict[str, list[str]] = {
        "counters": _counters(desired),
        "input_closed": _closed(desired),
        "denied": _tell(DENIED, desired),
        "dropped": _tell(DENIED, desired),
        "service_chains": [
            line
            for services, chain in chains.items()
            for side in ("from", "to")
            for line in _service_chain(side, chain, services, desired)
        ],
    }
    protected = union(ports for service in desired.services for ports in service.ports)
    for name, path in _PATHS.items():
        blocks[f"{name}_failsafe"] = [
            rule for entry in desired.failsafe for rule in _openings(Opening(entry.networks, entry.ports), path)
        ]
        verdicts = defaultdict[Protocol, list[str]](list)
        for each in parts:
            verdicts[each.ports.protocol].append(f"{_numbers(each.ports)} : goto {path.side}{chains[each.services]}")
        blocks[f"{name}_ports"] = [
            f"{path.port.format(protocol)} vmap {{ {', '.join(found)} }}" for protocol, found in verdicts.items()
        ]
        # A packet that is under way while rules are written anew finds nothing in the map of the old ones (the kernel
        # takes a map's elements away at once, a set's it does not): it is led the long way, instead of let in.
        blocks[f"{name}_ports"] += _by_port(protected, path.port, f"goto {AGAIN}{name}")
        if parts:
            again = [
                f"{path.port.format(each.ports.protocol)} {_numbers(each.ports)} "
                f"goto {path.side}{chains[each.services]}"
                for each in parts
            ]
            blocks["service_chains"] += [f"chain {AGAIN}{name} {{", *(f"\t{rule}" for rule in again), "}"]
    for side, port in (("from", _PATHS["input"].port), ("to", _PATHS["output"].port)):
        goto = {Target.ACCEPT: "accept", Target.REJECT: f"goto {side}_denied", Target.DROP: f"goto {side}_dropped"}
        blocks[f"{side}_allow"] = _in_sets(ALLOW, side, "accept")
        blocks[f"{side}_deny"] = _in_sets(DENY, side, goto[Target.REJECT])
        blocks[f"{side}_sets"] = [
            rule
            for each in posture.sets
            if each.target in goto
            for rule in _in_sets(each.name, side, goto[each.target])
        ]
        blocks[f"{side}_denied_ports"] = _by_port(protected, port, f"goto {side}_refuse")
        blocks[f"{side}_dropped_ports"] = _by_port(protected, port, "goto drop_silently")
    others = {"from": "reject", "to": "drop"}
    for side, other in others.items():
        blocks[f"{side}_refuse"] = ["accept"] if posture.observe else ["meta l4proto tcp reject with tcp reset", other]
    blocks["drop_silently"] = ["accept" if posture.observe else "drop"]
    outside = ("counters", "service_chains")
    indented = {
        name: [("\t" if name in outside else "\t\t") + line for line in lines] for name, lines in blocks.items()
    }
    return (template or built_in(TEMPLATE)).fill(indented)


def is_overridden(desired: Desired) -> bool:
    """True if there is an address to look up in the overrides or in custom sets that rules mention."""
    names = (ALLOW, DENY, *(each.name for each in desired.posture.sets if each.target is not Target.NONE))
    return any(desired.of(name) for name in names)


def _counters(desired: Desired) -> list[str]:
    """Counters outlive the rules that use them: writing rules anew loses no count."""
    names = [REFUSED + short_name(service.name) for service in desired.services]
    return [f"counter {counter_name(each)} {{ }}" for each in (*names, DENIED, CLOSED)]


def counter_name(what: str) -> str:
    """The kernel's counter of what was refused: nft knows no `:` in names."""
    return what.replace(REFUSED, "refused.")


def counted(name: str) -> str:
    """What a counter of the kernel counts; the inverse of `counter_name`."""
    return name.replace("refused.", REFUSED, 1)


def _service_chain(side: str, chain: str, services: Sequence[str], desired: Desired) -> list[str]:
    rules = [rule for name in services for rule in _in_sets(name, side, "accept")]
    if side == "from":
        rules += [rule for name in services for rule in _tell(REFUSED + short_name(name), desired)]
    return [f"chain {side}{chain} {{", *(f"\t{rule}" for rule in (*rules, f"goto {side}_refuse")), "}"]


def _tell(what: str, desired: Desired) -> list[str]:
    """Counts attempts to connect, and logs some of them."""
    rules = [f'{_NEW} counter name "{counter_name(what)}"']
    log = desired.posture.log
    if log is not None:
        limit = f"limit rate {log.per_second}/second burst {2 * log.per_second} packets"
        rules.append(f'{_NEW} {limit} log prefix "{LOG_PREFIX}{what}" group {log.group}')
    return rules


def _closed(desired: Desired) -> list[str]:
    """What a closed host does with everything that is no service's: its own connections and openings go on."""
    if not desired.posture.closed:
        return []
    passing = [rule for opening in desired.posture.openings for rule in _openings(opening, _PATHS["input"])]
    own = ["ct state related accept", "ct direction reply accept", f"icmpv6 type {{ {_LISTENERS} }} accept"]
    own.append(f"{_LEASES} accept")
    return [*own, *passing, *_tell(CLOSED, desired), "goto drop_silently"]


def _openings(opening: Opening, path: _Path) -> list[str]:
    """Lets everything pass between these networks and ports."""
    matches = _by_port(opening.ports, path.port, "accept") if opening.ports else ["accept"]
    if not opening.networks:
        return matches
    rules = []
    for version, family in ((4, "ip"), (6, "ip6")):
        networks = _union([network for network in opening.networks if network.version == version])
        if networks:
            address = f"{family} {_ADDRESS[path.side]} {_one_or_set(networks)}"
            rules += [f"{address} {match}" for match in matches]
    return rules


def _in_sets(name: str, side: str, verdict: str) -> list[str]:
    return [
        f"{'ip' if version == 4 else 'ip6'} {_ADDRESS[side]} @{set_name(Kind(version, hosts), name)} {verdict}"
        for version in (4, 6)
        for hosts in (True, False)
    ]


def _by_port(ports: Iterable[Ports], port: str, verdict: str) -> list[str]:
    merged = union(ports)
    if port == _ORIGINAL:  # nft 1.0.6 lists sets of these in no form that it could read again
        return [f"{port.format(each.protocol)} {_numbers(each)} {verdict}" for each in merged]
    found = {protocol: [_numbers(each) for each in merged if each.protocol is protocol] for protocol in Protocol}
    return [f"{port.format(protocol)} {_one_or_set(each)} {verdict}" for protocol, each in found.items() if each]


def _one_or_set(each: Sequence[str]) -> str:
    return each[0] if len(each) == 1 else f"{{ {', '.join(each)} }}"


def _union(networks: Iterable[Prefix]) -> list[str]:
    """The same networks without those inside others: nft refuses overlaps."""
    found: list[str] = []
    last = -1
    for each in sorted(networks, key=lambda each: (each.number, each.length)):
        if last_address(each) > last:
            found.append(str(each))
            last = last_address(each)
    return found


def _numbers(ports: Ports) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
