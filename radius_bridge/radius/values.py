"""The types of attributes' values (RFC 2865 §5, RFC 8044): octets in, what they mean out, and back."""

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

from radius_bridge.policy.members import Prefix

Value = int | str | bytes | Prefix
"""What octets mean: `str` for text (`surrogateescape` for what is not UTF-8), `Prefix` for addresses."""


class Type(NamedTuple):
    """One type of values. `decode` and `encode` raise ValueError and say what is allowed."""

    name: str
    decode: Callable[[bytes], Value]
    encode: Callable[[str], bytes]
    show: Callable[[Value], str] = str
    """A decoded value as `encode` reads it."""


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(octets: bytes) -> bytes:
    return octets


def _from_text(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("is no text that UTF-8 could write") from None


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise ValueError("write octets as hexadecimal digits, 0x1f2e") from None


def _show_octets(value: Value) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)


def _number(name: str, size: int, *, signed: bool = False) -> Type:
    lowest, highest = (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if signed else (0, (1 << 8 * size) - 1)

    def decode(octets: bytes) -> int:
        if len(octets) != size:
            raise ValueError(f"{name} has {size} octets, not {len(octets)}")
        return int.from_bytes(octets, signed=signed)

    def encode(text: str) -> bytes:
        # A number of more digits than any in range is not worth the time that int() takes.
        if not re.fullmatch(r"-?[0-9]{1,20}", text) or not lowest <= int(text) <= highest:
            raise ValueError(f"write a number from {lowest} to {highest}")
        return int(text).to_bytes(size, signed=signed)

    return Type(name, decode, encode)


def _address(version: int) -> Callable[[bytes], Prefix]:
    size = 4 if version == 4 else 16

    def decode(octets: bytes) -> Prefix:
        if len(octets) != size:
            raise ValueError(f"an IPv{version} address has {size} octets, not {len(octets)}")
        return Prefix(version, int.from_bytes(octets), size * 8)

    return decode


def _either_address(octets: bytes) -> Prefix:
    if len(octets) not in (4, 16):
        raise ValueError(f"an address has 4 or 16 octets, not {len(octets)}")
    return Prefix(4 if len(octets) == 4 else 6, int.from_bytes(octets), len(octets) * 8)


def _prefix(version: int, size: int, octets: bytes) -> Prefix:
    # RFC 3162 §2.3: a reserved octet, the length in bits, then as many octets as the prefix needs, or more.
    bits = size * 8
    if not 2 <= len(octets) <= 2 + size or octets[1] > bits or (len(octets) - 2) * 8 < octets[1]:
        raise ValueError(f"an IPv{version} prefix has its length (0 to {bits} bits) and as many octets as that needs")
    number = int.from_bytes(octets[2:].ljust(size, b"\0"))
    if number & ((1 << bits - octets[1]) - 1):
        raise ValueError(f"an IPv{version} prefix of {octets[1]} bits has bits set behind them")
    return Prefix(version, number, octets[1])


def _ipv6_prefix(octets: bytes) -> Prefix:
    return _prefix(6, 16, octets)


def _ipv4_prefix(octets: bytes) -> Prefix:
    # RFC 8044 §3.11: as for IPv6, but the address is always whole.
    if len(octets) != 6:
        raise ValueError(f"an IPv4 prefix has 6 octets, not {len(octets)}")
    return _prefix(4, 4, octets)


def _show_prefix(value: Value) -> str:
    # With its length, even if it is a single address.
    return f"{value._replace(length=0)}".replace("/0", f"/{value.length}") if isinstance(value, Prefix) else str(value)


def _from_prefix(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    return bytes((0, network.prefixlen)) + network.network_address.packed


def _from_ipv6_prefix(text: str) -> bytes:
    return _from_prefix(str(ipaddress.IPv6Network(text)))


def _from_ipv4_prefix(text: str) -> bytes:
    return _from_prefix(str(ipaddress.IPv4Network(text)))


def _groups(name: str, size: int, width: int) -> Type:
    """Octets that people write in groups of `width` octets: 02:00:00:00:00:01, 200:5eff:fe00:1."""

    def decode(octets: bytes) -> bytes:
        if len(octets) != size:
            raise ValueError(f"{name} has {size} octets, not {len(octets)}")
        return octets

    def encode(text: str) -> bytes:
        parts = re.split("[:-]", text)
        if len(parts) * width != size or not all(re.fullmatch(f"[0-9A-Fa-f]{{1,{2 * width}}}", p) for p in parts):
            raise ValueError(f"write {size // width} groups of {2 * width} hexadecimal digits with colons between")
        return b"".join(int(part, 16).to_bytes(width) for part in parts)

    def show(value: Value) -> str:
        octets = value if isinstance(value, bytes) else b""
        return ":".join(octets[at : at + width].hex() for at in range(0, size, width))

    return Type(name, decode, encode, show)


_AS_OCTETS = ("octets", "abinary", "tlv", "vsa", "evs", "extended", "long-extended")
"""Types whose octets stay what they are; the last five hold attributes, which `attributes.unpack` takes out."""

TYPES: dict[str, Type] = {
    known.name: known
    for known in (
        Type("string", _text, _from_text),
        *(Type(name, _octets, _from_hex, _show_octets) for name in _AS_OCTETS),
        _number("byte", 1),
        _number("short", 2),
        _number("integer", 4),
        _number("signed", 4, signed=True),
        _number("date", 4),
        _number("integer64", 8),
        Type("ipaddr", _address(4), lambda text: ipaddress.IPv4Address(text).packed),
        Type("ipv6addr", _address(6), lambda text: ipaddress.IPv6Address(text).packed),
        Type("combo-ip", _either_address, lambda text: ipaddress.ip_address(text).packed),
        Type("ipv4prefix", _ipv4_prefix, _from_ipv4_prefix, _show_prefix),
        Type("ipv6prefix", _ipv6_prefix, _from_ipv6_prefix, _show_prefix),
        _groups("ifid", 8, 2),
        _groups("ether", 6, 1),
    )
}
"""All types by the name that dictionary files give them."""
