"""The attributes' names, numbers and types: the files in dictionaries/, which pyrad reads once, at start."""

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pyrad.dictionary import Dictionary as DictionaryFiles

from radius_bridge.policy.members import Prefix

Value = int | str | bytes | Prefix
"""What octets mean: `str` for text (`surrogateescape` for what is not UTF-8), `Prefix` for addresses."""


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(octets: bytes) -> bytes:
    return octets


def _integer(octets: bytes) -> int:
    if len(octets) != 4:
        raise ValueError(f"an integer has 4 octets, not {len(octets)}")
    return int.from_bytes(octets)


def _ipv4(octets: bytes) -> Prefix:
    if len(octets) != 4:
        raise ValueError(f"an IPv4 address has 4 octets, not {len(octets)}")
    return Prefix(4, int.from_bytes(octets), 32)


def _ipv6(octets: bytes) -> Prefix:
    if len(octets) != 16:
        raise ValueError(f"an IPv6 address has 16 octets, not {len(octets)}")
    return Prefix(6, int.from_bytes(octets), 128)


def _ipv6_prefix(octets: bytes) -> Prefix:
    # RFC 3162 §2.3: a reserved octet, the length in bits, then as many octets as the prefix needs, or more.
    if not 2 <= len(octets) <= 18 or octets[1] > 128 or (len(octets) - 2) * 8 < octets[1]:
        raise ValueError("an IPv6 prefix has its length (0 to 128 bits) and as many octets as that needs")
    number = int.from_bytes(octets[2:].ljust(16, b"\0"))
    if number & ((1 << 128 - octets[1]) - 1):
        raise ValueError(f"an IPv6 prefix of {octets[1]} bits has bits set behind them")
    return Prefix(6, number, octets[1])


_DECODERS: dict[str, Callable[[bytes], Value]] = {
    "string": _text,
    "octets": _octets,
    "integer": _integer,
    "date": _integer,
    "ipaddr": _ipv4,
    "ipv6addr": _ipv6,
    "ipv6prefix": _ipv6_prefix,
    "ifid": _octets,
}


@dataclass(frozen=True, slots=True)
class Definition:
    """One attribute of the dictionary."""

    name: str
    number: int
    type: str
    """As dictionary files call it: string, octets, integer, date, ipaddr, ipv6addr, ipv6prefix, ifid."""
    values: dict[str, int]
    """Names of values, such as Start = 1."""
    decode: Callable[[bytes], Value]
    """Reads the octets of a value. Raises ValueError if they cannot be of this type."""

    def encode(self, text: str) -> bytes:
        """The octets of a value that somebody wrote. Raises ValueError, saying what is allowed."""
        match self.type:
            case "string":
                return text.encode("utf-8", "surrogateescape")
            case "integer" | "date":
                number = self.values.get(text)
                if number is None and text.isascii() and text.isdigit():
                    number = int(text)
                if number is None or number >= 1 << 32:
                    names = f", or one of {', '.join(self.values)}" if self.values else ""
                    raise ValueError(f"{self.name} = {text!r}: write a number from 0 to {(1 << 32) - 1}{names}")
                return number.to_bytes(4)
            case "ipaddr":
                return ipaddress.IPv4Address(text).packed
            case "ipv6addr":
                return ipaddress.IPv6Address(text).packed
            case "ipv6prefix":
                network = ipaddress.IPv6Network(text)
                return bytes((0, network.prefixlen)) + network.network_address.packed
            case _:
                try:
                    return bytes.fromhex(text.removeprefix("0x"))
                except ValueError:
                    raise ValueError(f"{self.name} = {text!r}: write octets as hexadecimal digits, 0x1f2e") from None


class Dictionary:
    """Attributes by name and by number."""

    def __init__(self, file: Path) -> None:
        """Reads `file` and what it includes. Raises OSError, and pyrad's ParseError with file and line."""
        self._by_name: dict[str, Definition] = {}
        self._by_number: dict[int, Definition] = {}
        for name, attribute in DictionaryFiles(str(file)).attributes.items():
            if attribute.type not in _DECODERS:
                raise ValueError(f"{file}: {name} has type {attribute.type}; known are {', '.join(_DECODERS)}")
            values = {value: int.from_bytes(octets) for value, octets in attribute.values.forward.items()}
            definition = Definition(name, attribute.code, attribute.type, values, _DECODERS[attribute.type])
            self._by_name[name] = self._by_number[attribute.code] = definition

    def __getitem__(self, key: str | int) -> Definition:
        """The attribute of this name or number. Raises KeyError."""
        return self._by_name[key] if isinstance(key, str) else self._by_number[key]

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._by_name.values())


@cache
def standard() -> Dictionary:
    """The dictionary that comes with radius-bridge, read once."""
    installed = Path(__file__).parent.parent / "dictionaries"
    checkout = Path(__file__).parent.parent.parent / "dictionaries"
    return Dictionary((installed if installed.is_dir() else checkout) / "dictionary")
