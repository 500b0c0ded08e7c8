"""Which attributes of a packet name the user's addresses: configuration, made ready for the packet path. Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.radius.attributes import Leaf, unpack
from radius_bridge.radius.definitions import VENDOR_SPECIFIC, Path
from radius_bridge.radius.dictionary import Dictionary, standard
from radius_bridge.radius.packet import Attribute, Malformed
from radius_bridge.radius.values import Value

ADDRESS_TYPES = frozenset({"ipaddr", "ipv6addr", "combo-ip", "ipv4prefix", "ipv6prefix"})
"""Types whose values are addresses already; text is searched for one, the others have none."""

_NO_ADDRESSES = {parse_prefix(text) for text in ("0.0.0.0", "255.255.255.254", "255.255.255.255", "::")}  # noqa: S104
"""RFC 2865 §5.8: the user or the NAS shall choose. None of these is an address that anybody has."""

_MAPPED = 0xFFFF << 32

REMEMBERED = 16384
"""Values of one attribute whose address is remembered: a session tells its own again and again."""


@dataclass(frozen=True, slots=True)
class Source:
    """An attribute that names addresses."""

    attribute: str
    """Its name in the dictionary."""
    pattern: re.Pattern[str] | None = None
    """For text: where in it the address is (its first group); without one, the text is an address."""


DEFAULT = (
    Source("Framed-IP-Address"),
    Source("Framed-IPv6-Address"),
    # Documented by Huawei and H3C as "address, space, MAC"; there when Framed-IP-Address is 255.255.255.255 or missing.
    Source("Huawei-IPHost-Addr", re.compile(r"^([0-9.]+)(?: |$)")),
    Source("H3C-Ip-Host-Addr", re.compile(r"^([0-9.]+)(?: |$)")),
    Source("Huawei-Framed-IPv6-Address"),
    Source("Aruba-Framed-IPv6-Address"),
)
"""What vendors document. Framed-IPv6-Prefix is not here: it is a network that more than the user may be in."""


class Addresses:
    """The sources of addresses, in their order: of each IP version, the first one that names any counts."""

    def __init__(self, sources: Iterable[Source], dictionary: Dictionary) -> None:
        """Raises ValueError for a source that no packet could have an address in."""
        self._dictionary = dictionary
        self._sources: dict[Path, tuple[int, Source]] = {}
        for rank, source in enumerate(sources):
            try:
                definition = dictionary[source.attribute]
            except KeyError:
                raise ValueError(f"{source.attribute}: the dictionaries know no attribute of this name") from None
            kind = definition.type.name
            if kind not in ADDRESS_TYPES and kind != "string":
                raise ValueError(f"{source.attribute} has type {kind}: addresses are in {_LISTED}")
            if source.pattern is not None and (kind != "string" or source.pattern.groups < 1):
                raise ValueError(f"{source.attribute}: a pattern needs text (type string) and a group for the address")
            self._sources[definition.path] = (rank, source)
        self._outermost = frozenset(path[0] for path in self._sources)
        self._vendors = {path[1].to_bytes(4) for path in self._sources if path[0] == VENDOR_SPECIFIC}
        self._plain = {
            path[0]: (rank, _remembering(dictionary[source.attribute].type.decode))
            for path, (rank, source) in self._sources.items()
            if len(path) == 1 and dictionary[source.attribute].type.name in ADDRESS_TYPES
        }

    def read(self, attributes: Sequence[Attribute]) -> tuple[list[Prefix], int]:
        """The addresses in a packet's attributes, and how many values of those that may name one are of no use.

        Each address comes once, v4-mapped ones as the v4 addresses that they are.
        """
        found: dict[int, list[Prefix]] = {}
        ignored = 0
        rest: list[Attribute] = []
        outermost = self._outermost
        for attribute in [each for each in attributes if each[0] in outermost]:
            number, octets = attribute
            plain = self._plain.get(number)
            if plain is None:
                if number != VENDOR_SPECIFIC or octets[:4] in self._vendors:
                    rest.append(attribute)
                continue
            rank, read = plain
            try:
                _add(found, rank, read(octets))
            except ValueError:
                ignored += 1
        if len(found) == 1 and not rest:
            return next(iter(found.values())), ignored
        for leaf in unpack(rest, self._dictionary) if rest else ():
            try:
                self._search(leaf, found)
            except ValueError:
                ignored += 1
        return self._first(found), ignored

    def _search(self, leaf: Leaf, found: dict[int, list[Prefix]]) -> None:
        if leaf.malformed is not None:
            raise leaf.malformed
        rank, source = self._sources.get(leaf.path, (0, None))
        if source is None:
            return
        value = leaf.value()
        if isinstance(value, str):
            if source.pattern is not None:
                match = source.pattern.search(value)
                if match is None or match[1] is None:
                    return  # such as a Cisco-AVPair about something else
                value = match[1]
            value = parse_prefix(value)
            if not value.is_host:
                raise Malformed(f"{source.attribute}: {value} is no single address", leaf.offset)
        _add(found, rank, _usable(value))

    def _first(self, found: dict[int, list[Prefix]]) -> list[Prefix]:
        chosen: dict[int, int] = {}
        for rank in sorted(found):
            for address in found[rank]:
                chosen.setdefault(address.version, rank)
        return [address for rank in sorted(found) for address in found[rank] if chosen[address.version] == rank]


_LISTED = ", ".join(sorted(ADDRESS_TYPES)) + " and string"


def _usable(value: Value) -> Prefix | None:
    """An address that somebody can have."""
    if not isinstance(value, Prefix):
        return None
    if value.version == 6 and value.length == 128 and value.number >> 32 << 32 == _MAPPED:
        value = Prefix(4, value.number & 0xFFFFFFFF, 32)
    return None if value in _NO_ADDRESSES else value


def _remembering(decode: Callable[[bytes], Value]) -> Callable[[bytes], Prefix | None]:
    return lru_cache(maxsize=REMEMBERED)(lambda octets: _usable(decode(octets)))


def _add(found: dict[int, list[Prefix]], rank: int, address: Prefix | None) -> None:
    if address is not None:
        addresses = found.setdefault(rank, [])
        if address not in addresses:
            addresses.append(address)


@cache
def default() -> Addresses:
    """What holds if nothing is configured."""
    return Addresses(DEFAULT, standard())
