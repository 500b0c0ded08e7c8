"""The kernel's sets of a service or an override: what each is called, and what it can hold. Pure.

There are four, one per kind: IPv4 and IPv6, hosts (hash:ip) and networks (hash:net). In ipset those that shut out have
two: hosts are in hash:net too. They are looked up for every packet, and a look costs 95 ns, full or empty.
"""

import hashlib
import re
from typing import NamedTuple

from radius_bridge.policy.members import Prefix

PREFIX = "rb"
"""Every set of ours is named `rb<4|6><h|n>.<service>`; nothing else on the host is touched."""

TEMPORARY = "~"
"""Ends the name of a set that is being built aside."""

_OURS = re.compile(rf"{PREFIX}[46][hn]\..+")
_NAME_ROOM = 25  # IPSET_MAXNAMELEN 32, less NUL, "rb4h." and the temporary's suffix
_PLAIN_NAME = re.compile(rf"[a-z0-9._-]{{1,{_NAME_ROOM}}}")


class Kind(NamedTuple):
    """What a set can hold."""

    version: int
    """4 or 6."""
    hosts: bool
    """True: single addresses (hash:ip); False: networks (hash:net)."""

    @property
    def type_name(self) -> str:
        """The set type as ipset calls it."""
        return "hash:ip" if self.hosts else "hash:net"


KINDS = (Kind(4, True), Kind(4, False), Kind(6, True), Kind(6, False))


def kind_of(prefix: Prefix, *, joined: bool = False) -> Kind:
    """The kind of set that holds `prefix`; `joined` says that hosts are held with the networks."""
    if joined:
        return KINDS[1] if prefix.version == 4 else KINDS[3]
    if prefix.version == 4:
        return KINDS[0] if prefix.length == 32 else KINDS[1]
    return KINDS[2] if prefix.length == 128 else KINDS[3]


def short_name(name: str) -> str:
    """The name of a service or set as the kernel knows it: at most 25 characters of `a-z 0-9 . _ - /`.

    A name that is too long or has unusual characters ends in a hash after a `/`, which no plain name has: two services
    never share a name.
    """
    if _PLAIN_NAME.fullmatch(name):
        return name
    head = re.sub(r"[^a-z0-9._-]", "-", name.lower())[:8]
    return f"{head}/{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def set_name(kind: Kind, name: str) -> str:
    """The kernel's name for the set of `kind` of a service, an override or a custom set: at most 30 characters."""
    return f"{PREFIX}{kind.version}{'h' if kind.hosts else 'n'}.{short_name(name)}"


def kind_of_set(kernel_name: str) -> Kind:
    """The kind of a set of ours, from its name."""
    return Kind(int(kernel_name[len(PREFIX)]), kernel_name[len(PREFIX) + 1] == "h")


def is_ours(kernel_name: str) -> bool:
    """True for the name of a set that this agent made."""
    return _OURS.fullmatch(kernel_name) is not None
