"""What an engineer's write hits, as far as it is known; much is asked about before it is written."""

import sys
import time
from dataclasses import dataclass, field
from typing import Annotated, Final

import typer

from radius_bridge.cli.common import home_of, with_consul
from radius_bridge.cli.output import fail
from radius_bridge.identity.events import NOBODY
from radius_bridge.policy.members import GroupRef, Member, Prefix, parse_prefix, user_of
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import BadRecord, RegistryError
from radius_bridge.registry.hosts import decode
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.reading import read_groups
from radius_bridge.registry.records import decode_binding

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however much it hits: for programs.")]

MUCH: Final = 1000
"""Addresses, or users, from which on we ask first."""

LAN6: Final = 64
"""Length (bits) of an IPv6 network that counts as one address: one LAN has more addresses than IPv4."""

GROUPS_READ: Final = 100
"""Groups in groups that are looked into."""


@dataclass
class Reach:
    """Who is meant by a member."""

    addresses: int = 0
    """Single addresses; IPv6 networks by the number of their LANs (/64)."""
    users: set[str] = field(default_factory=set)
    behind: set[str] = field(default_factory=set)
    """Users who are logged in behind these addresses, as far as somebody looked."""
    hosts: int = 0
    """Hosts that enforce it, of those that told of themselves."""
    more: bool = False
    """True if there were too many groups to look into all."""

    @property
    def is_much(self) -> bool:
        """True if one should think twice."""
        return self.addresses >= MUCH or len(self.users) >= MUCH or self.more

    def __str__(self) -> str:
        parts = []
        if self.addresses:
            behind = f" ({_number(len(self.behind), 'user')} logged in there now)" if self.behind else ""
            parts.append(_number(self.addresses, "address") + behind)
        if self.users:
            parts.append(_number(len(self.users), "user"))
        if self.more:
            parts.append("more in further groups")
        where = f", on {_number(self.hosts, 'host')}" if self.hosts else ""
        return (" and ".join(parts) or "nobody") + where


def ask_if_much(verb: str, member: Member, *, yes: bool, service: str = "", always_knows: bool = True) -> None:
    """Asks whether it is meant if a write about `member` hits much; ends the command if not, or if nobody can be asked.

    A single user or address never is. `service` is what it is about; empty for everything. Without `always_knows` a
    Consul that cannot be asked who is in a group is no reason not to go on.
    """
    if yes or (isinstance(member, Prefix) and weight(member) < MUCH):
        return
    if isinstance(member, GroupRef) and user_of(member) is not None:
        return

    async def look(consul: Consul, keys: Keys) -> Reach:
        try:
            async with home_of(consul, keys) as home:
                return await reach(home, keys, member, service)
        except RegistryError:
            if isinstance(member, GroupRef) and always_knows:
                raise
            return Reach(weight(member) if isinstance(member, Prefix) else 0)

    found = with_consul(look, at_home=False)
    if not found.is_much:
        return
    sentence = f"{verb} hits {found}"
    if not sys.stdin.isatty():
        fail(f"{sentence}; nothing was written. If that is meant: --yes")
    if not typer.confirm(f"{sentence}. Go on?"):
        fail("nothing was written")


async def reach(consul: Consul, keys: Keys, member: Member, service: str = "") -> Reach:
    """Who is meant by `member`, and on how many hosts `service` (or anything, if empty) is enforced.

    Raises RegistryError.
    """
    found = Reach()
    networks: list[Prefix] = []
    pending, seen, groups_read = [member], {member}, 0
    while pending:
        each = pending.pop()
        if isinstance(each, Prefix):
            networks.append(each)
            found.addresses += weight(each)
        elif (user := user_of(each)) is not None:
            found.users.add(user)
        elif groups_read == GROUPS_READ:
            found.more = True
        else:
            groups_read += 1
            members = read_groups(keys, (await consul.read(keys.group(each))).entries).data.get(each, {})
            pending += members.keys() - seen
            seen |= members.keys()
    if found.is_much:
        found.behind = await _behind(consul, keys, networks)
        found.hosts = await _hosts(consul, keys, service)
    return found


def weight(prefix: Prefix) -> int:
    """How many addresses a network counts for. Pure."""
    return 1 << (32 - prefix.length if prefix.version == 4 else max(0, LAN6 - prefix.length))


def contains(network: Prefix, address: Prefix) -> bool:
    """True if `address` is in `network`. Pure."""
    if network.version != address.version or network.length > address.length:
        return False
    shift = (32 if network.version == 4 else 128) - network.length
    return network.number >> shift == address.number >> shift


async def _behind(consul: Consul, keys: Keys, networks: list[Prefix]) -> set[str]:
    """Who is logged in within these networks; nobody, if that cannot be known."""
    users: set[str] = set()
    if not networks:
        return users
    now = time.time()
    try:
        entries = (await consul.read(keys.bindings)).entries
    except RegistryError:
        return users
    for entry in entries:
        try:
            address = parse_prefix(entry.key.removeprefix(keys.bindings))
            if any(contains(network, address) for network in networks):
                users.add(decode_binding(entry.key, entry.value).holding(now).user)
        except (ValueError, BadRecord):
            continue
    return users - {"", NOBODY}


async def _hosts(consul: Consul, keys: Keys, service: str) -> int:
    """How many hosts said that they enforce the service; none, if that cannot be known."""
    count = 0
    try:
        for entry in (await consul.read(keys.hosts)).entries:
            count += not service or service in decode(entry.key, entry.value).services
    except RegistryError:
        return count
    return count


def _number(count: int, what: str) -> str:
    plural = {"address": "addresses"}.get(what, f"{what}s")
    return f"{count:,} {what if count == 1 else plural}"
