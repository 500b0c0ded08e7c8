"""What BEFW's agent has programmed on a host, and what would be open without it. Pure.

With iptables: a chain of its own (`BEFW`), to which the site's rules lead from INPUT (and FORWARD), and sets of
hash:net that it looks clients up in. With nftables: the table `inet befw`.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from agent.dataplane.ports import union
from radius_bridge.policy.services import Ports, Protocol, parse_ports

CHAIN = "BEFW"
TABLE = "befw"

_SET = re.compile(r"--match-set (\S+) ")
_PORTS = re.compile(r"--dports? (\S+)")
_PROTOCOL = re.compile(r"-p (tcp|udp) ")
_TARGET = re.compile(r" -[jg] (\S+)")
_HARMLESS = frozenset({"ACCEPT", "RETURN", "LOG", "NFLOG"})
_NFT_SET = re.compile(r"@ip[46]_(\S+) ")
_ENDING = re.compile(r"(?:[._-]?(?:ip)?v?6)?")
_NFT_REFUSES = re.compile(r"\b(?:drop|reject)\b")


@dataclass(frozen=True, slots=True)
class Closed:
    """What our own agent takes care of."""

    ports: Sequence[Ports]
    """Of its services."""
    sets: Collection[str]
    """Overrides and custom sets."""
    everything: bool
    """With the policy `closed`."""


@dataclass(frozen=True, slots=True)
class Chain:
    """BEFW's chain in the table `filter` of one IP version."""

    name: str
    rules: tuple[str, ...]
    """Its rules."""
    jumps: tuple[str, ...]
    """The rules of other chains that lead to it."""
    sets: tuple[str, ...]
    """The sets that its rules look into, and no other rule does."""

    def removal(self) -> str:
        """What iptables-restore (--noflush) removes it with, in one transaction."""
        jumps = [jump.replace("-A ", "-D ", 1) for jump in self.jumps]
        return "\n".join(["*filter", f":{self.name} - [0:0]", *jumps, f"-X {self.name}", "COMMIT", ""])

    def only_there(self, ours: Closed) -> list[str]:
        """What it keeps closed and our agent would not."""
        found = [
            f"what is routed through this host ({jump}): only published ports are protected"
            for jump in self.jumps
            if not jump.startswith("-A INPUT ")
        ]
        for rule in self.rules:
            target = _TARGET.search(rule)
            if target is None or target[1] in _HARMLESS or ours.everything:
                continue
            if ports := _PORTS.search(rule):
                protocol = Protocol(named[1]) if (named := _PROTOCOL.search(rule)) else Protocol.TCP
                listed = [parse_ports(each, protocol) for each in ports[1].split(",")]
                found += [f"{each} ({rule})" for each in listed if not _covers(ours.ports, each)]
            elif (looked_up := _SET.search(rule)) is None or not _is_known(looked_up[1], ours.sets):
                found.append(f"what this refuses: {rule}")
        return list(dict.fromkeys(found))


def read_save(text: str, name: str) -> Chain | None:
    """The chain called `name` in the output of `iptables-save -t filter`; None if there is none."""
    lines = text.splitlines()
    if not any(line.startswith(f":{name} ") for line in lines):
        return None
    rules = tuple(line for line in lines if line.startswith(f"-A {name} "))
    others = [line for line in lines if line.startswith("-A ") and line not in rules]
    jumps = tuple(line for line in others if (target := _TARGET.search(line)) and target[1] == name)
    sets = dict.fromkeys(_SET.findall(" ".join(rules)))
    used = set(_SET.findall(" ".join(others)))
    return Chain(name, rules, jumps, tuple(each for each in sets if each not in used))


def only_in_table(listing: str, ours: Closed) -> list[str]:
    """What BEFW's table of nftables, as nft lists it, keeps closed and our agent would not."""
    refusing = [line.strip() for line in listing.splitlines() if _NFT_REFUSES.search(line) and "policy" not in line]
    return [
        f"what this refuses: {line}"
        for line in refusing
        if not ours.everything and ((name := _NFT_SET.search(line)) is None or not _is_known(name[1], ours.sets))
    ]


def _covers(ports: Iterable[Ports], wanted: Ports) -> bool:
    return any(
        each.protocol is wanted.protocol and each.first <= wanted.first and wanted.last <= each.last
        for each in union(ports)
    )


def _is_known(name: str, sets: Iterable[str]) -> bool:
    """True if a set of BEFW's is one of these; for IPv6 its name has an ending."""
    return any(name.startswith(each) and _ENDING.fullmatch(name, len(each)) for each in sets)
