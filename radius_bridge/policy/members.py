"""Members: what a group or a grant names. An address, a network, or another group.

In Consul a member is the last part of its key: `192.0.2.1`, `192.0.2.0/24`, `$staff$`, `$user.alice$`.
People write `alice`, `group:staff`, `192.0.2.1`.
"""

import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote_to_bytes


class Prefix(NamedTuple):
    """An address (prefix length 32 or 128) or a network, as plain numbers: the form that sets are made of."""

    version: int
    """4 or 6."""
    number: int
    """The address as an unsigned integer; host bits are zero."""
    length: int
    """Prefix length in bits."""

    @property
    def is_host(self) -> bool:
        """True for a single address."""
        return self.length == (32 if self.version == 4 else 128)

    def __str__(self) -> str:
        if self.version == 4 and self.length == 32:  # nearly all: at a tenth of the time
            return socket.inet_ntoa(self.number.to_bytes(4))
        address = _address(self.version, self.number)
        return str(address) if self.is_host else f"{address}/{self.length}"


@dataclass(frozen=True, slots=True)
class GroupRef:
    """Another group as a member; `name` is without the dollar signs: `staff`, `user.alice`."""

    name: str

    def __str__(self) -> str:
        return f"${self.name}$"


Member = Prefix | GroupRef

USER_PREFIX = "user."
"""Groups of users start with this: somebody who logs in as "dba" must not walk into the group `$dba$`."""

_MAPPED, _MAPPED_LENGTH = 0xFFFF, 96
"""What IPv6 addresses that stand for IPv4 ones begin with (RFC 4291 §2.5.5.2), and how many bits that are."""

_PLAIN = re.compile(rb"[A-Za-z0-9._@+-]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._@+-]+")
_GROUP_NAME = re.compile(r"[A-Za-z0-9._@+%-]{1,800}")


def _address(version: int, number: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)


def parse_prefix(text: str) -> Prefix:
    """Reads `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`; what is v4-mapped becomes v4: no packet has such an address.

    Raises ValueError for anything else, host bits in a network and zone identifiers included.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone identifier: it means nothing on another host")
    if "/" in text:
        base, _, bits = text.partition("/")
        if not re.fullmatch(r"\d{1,3}", bits):
            raise ValueError(f"{text!r}: write the network's length as a number of bits")
        network = ipaddress.ip_network(f"{base}/{bits}", strict=True)
        number, length = int(network.network_address), network.prefixlen
        if network.version == 6 and length >= _MAPPED_LENGTH and number >> 32 == _MAPPED:
            return Prefix(4, number & 0xFFFFFFFF, length - _MAPPED_LENGTH)
        return Prefix(network.version, number, length)
    return address_prefix(ipaddress.ip_address(text))


def address_prefix(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Prefix:
    """One address as a Prefix; a v4-mapped v6 address becomes its v4 address."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return Prefix(address.version, int(address), address.max_prefixlen)


def parse_member(text: str) -> Member:
    """Reads a member as it stands in a key. Raises ValueError for anything that is none."""
    if len(text) > 2 and text.startswith("$") and text.endswith("$"):
        name = text[1:-1]
        if not _GROUP_NAME.fullmatch(name):
            raise ValueError(f"{text!r} is no group: its name may hold letters, digits and . _ @ + - only")
        return GroupRef(name)
    return parse_prefix(text)


def user_group(user: str) -> GroupRef:
    """The group of one user. The name is percent-encoded, so that no user name leaves its group.

    A name that is not UTF-8 is passed with `surrogateescape`.
    """
    if _PLAIN_NAME.fullmatch(user):
        return GroupRef(USER_PREFIX + user)
    raw = user.encode("utf-8", "surrogateescape")
    encoded = "".join(chr(octet) if _PLAIN.match(bytes([octet])) else f"%{octet:02X}" for octet in raw)
    return GroupRef(USER_PREFIX + encoded)


def user_of(group: GroupRef) -> str | None:
    """The user whose own group this is; None for other groups, those included that only look like one."""
    if not group.name.startswith(USER_PREFIX):
        return None
    user = unquote_to_bytes(group.name[len(USER_PREFIX) :]).decode("utf-8", "surrogateescape")
    return user if user_group(user) == group else None


def parse_who(text: str) -> Member:
    """Reads what an engineer types: a user name, `group:NAME`, an address or a network.

    Raises ValueError with the way out for a name that cannot be meant.
    """
    if text.startswith("group:"):
        return parse_member(f"${text.removeprefix('group:')}$")
    if text.startswith("user:"):
        return _checked_user(text.removeprefix("user:"))
    if "/" in text or ":" in text or re.fullmatch(r"[\d.]+", text):
        try:
            return parse_prefix(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no address or network ({error}); for a user write user:{text}") from None
    return _checked_user(text)


def _checked_user(name: str) -> GroupRef:
    if not name or not name.isprintable() or name.startswith("$"):
        raise ValueError(f"{name!r} is no user name; for a group write group:NAME")
    return user_group(name)


def describe(member: Member) -> str:
    """A member the way an engineer types it: the inverse of `parse_who`."""
    if isinstance(member, Prefix):
        return str(member)
    user = user_of(member)
    for typed in () if user is None else (user, f"user:{user}"):
        with suppress(ValueError):
            if parse_who(typed) == member:
                return typed
    return f"group:{member.name}"
