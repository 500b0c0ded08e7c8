"""What is inside a packet's attributes: vendors' attributes, TLVs, extended ones, long values. Pure.

An attribute whose inside is not what its type says does not spoil the packet (RFC 6929 §2.8): it stays whole, as
octets, and says what is wrong with it and where.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from radius_bridge.radius.definitions import VENDOR_SPECIFIC, Definition, Path, Vendor
from radius_bridge.radius.dictionary import Dictionary
from radius_bridge.radius.packet import HEADER, MAX_VALUE, Attribute, Malformed
from radius_bridge.radius.values import Value

_MORE = 0x80
"""Of the flags of long extended attributes (RFC 6929 §2.2) and of continued vendor attributes."""

_LAST_TAG = 0x1F
"""RFC 2868 §3: an octet above is the first of the value, not a tag."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An attribute that holds no others."""

    path: Path
    octets: bytes
    """Its value; of fragments, all of them together."""
    offset: int
    """Of its (first) outermost attribute, counted from the packet's first octet."""
    definition: Definition | None
    """None if the dictionary does not know it."""
    malformed: Malformed | None = None
    """Why the octets could not be taken apart further."""

    def split_tag(self) -> tuple[int | None, bytes]:
        """The tag, if there can be and is one, and the value without it (RFC 2868 §3)."""
        if self.definition is None or not self.definition.tagged or not self.octets:
            return None, self.octets
        # Of a text, the first octet is a tag only if it cannot be one of a text.
        if self.definition.has_tag_always or self.octets[0] <= _LAST_TAG:
            return self.octets[0] or None, self.octets[1:]
        return None, self.octets

    def value(self) -> Value:
        """What the octets mean; octets themselves if the dictionary does not know the attribute.

        Raises Malformed if they cannot be of their type.
        """
        if self.malformed is not None:
            raise self.malformed
        if self.definition is None:
            return self.octets
        try:
            return self.definition.decode(self.split_tag()[1])
        except ValueError as error:
            raise Malformed(f"{self.definition.name}: {error}", self.offset) from None

    def show(self) -> str:
        """The value for people. Raises Malformed like `value`."""
        value = self.value()
        if self.definition is None:
            return f"0x{self.octets.hex()}"
        return self.definition.show(value)


def unpack(attributes: Sequence[Attribute], dictionary: Dictionary, start: int = HEADER) -> Iterator[Leaf]:
    """Takes a packet's attributes apart; `start` is the first one's offset."""
    offset = start
    position = 0
    while position < len(attributes):
        number, octets = attributes[position]
        definition = dictionary.find((number,))
        kind = "" if definition is None else definition.type.name
        pieces = 1
        try:
            if definition is not None and definition.concatenated:
                whole, pieces = _concatenated(attributes, position)
                yield Leaf((number,), whole, offset, definition)
            elif kind == "vsa":
                vendor = _vendor((number,), octets, dictionary, offset)
                payload = octets[4:]
                if vendor.continued:
                    fragments = _fragments(attributes, position, slice(0, 4 + vendor.type_octets), 4 + vendor.head - 1)
                    pieces = len(fragments)
                    payload = _continued(fragments, vendor, offset)
                    vendor = vendor._replace(length_octets=0)
                yield from _vendors_own((number, vendor.number), payload, vendor, dictionary, offset)
            elif kind == "extended":
                _need(octets, 2, "an extended attribute has its type and a value", offset)
                yield from _inside((number, octets[0]), octets[1:], dictionary, offset)
            elif kind == "long-extended":
                fragments = _fragments(attributes, position, slice(0, 1), 1)
                pieces = len(fragments)
                whole = _long(fragments, offset)
                yield from _inside((number, whole[0]), whole[1:], dictionary, offset)
            else:
                yield from _inside((number,), octets, dictionary, offset)
        except Malformed as error:
            yield Leaf((number,), octets, offset, definition, error)
        offset += sum(2 + len(value) for _, value in attributes[position : position + pieces])
        position += pieces


def assign(text: str, dictionary: Dictionary) -> list[Attribute]:
    """The attributes of `NAME=VALUE` as somebody wrote it; `NAME:1=VALUE` has a tag.

    Raises ValueError, saying what is allowed.
    """
    left, equals, value = text.partition("=")
    name, colon, tag_text = left.strip().partition(":")
    value = value.strip()
    if not equals:
        raise ValueError(f"{text!r}: write NAME=VALUE")
    try:
        definition = dictionary[name]
    except KeyError:
        raise ValueError(f"{name!r} is no attribute that the dictionaries know") from None
    octets = definition.encode(value)
    tag = int(tag_text) if tag_text.isascii() and tag_text.isdigit() else -1
    if colon and not (definition.tagged and 0 <= tag <= _LAST_TAG):
        raise ValueError(f"{left.strip()!r}: tags are 0 to {_LAST_TAG}, of tunnel attributes only")
    if definition.tagged and (tag > 0 or definition.has_tag_always):
        octets = bytes((max(tag, 0),)) + octets
    return pack(definition.path, octets, dictionary)


def pack(path: Path, octets: bytes, dictionary: Dictionary) -> list[Attribute]:
    """The attributes, mostly one, that carry a value.

    Raises Malformed if the value is too long for where it goes.
    """
    top, inner = path[0], path[1:]
    definition = dictionary.find((top,))
    kind = "" if definition is None else definition.type.name
    if kind == "extended":
        value = bytes(inner[:1]) + _wrap(path, 2, octets, dictionary)
    elif kind == "long-extended":
        pieces = _cut(_wrap(path, 2, octets, dictionary), MAX_VALUE - 2)
        last = len(pieces) - 1
        return [(top, bytes((inner[0], _MORE if at < last else 0)) + piece) for at, piece in enumerate(pieces)]
    elif definition is not None and definition.concatenated:
        return [(top, piece) for piece in _cut(octets, MAX_VALUE)]
    elif kind == "vsa" and inner:
        vendor = dictionary.vendor(inner[0])
        if vendor.continued:
            return _pack_continued(path, vendor, octets, dictionary)
        value = inner[0].to_bytes(4) + _wrap(path, 2, octets, dictionary)
    else:
        value = _wrap(path, 1, octets, dictionary)
    if len(value) > MAX_VALUE:
        raise Malformed(f"{dictionary.name(path)}: a value of {len(octets)} octets does not fit", 0)
    return [(top, value)]


def _inside(path: Path, octets: bytes, dictionary: Dictionary, offset: int) -> Iterable[Leaf]:
    """The leaves of the attribute at `path`, itself perhaps."""
    definition = dictionary.find(path)
    if definition is not None and definition.type.name == "tlv":
        # All of it or none: RFC 6929 §2.3.
        return [
            leaf
            for number, value in _split(octets, 1, 1, offset)
            for leaf in _inside((*path, number), value, dictionary, offset)
        ]
    if definition is not None and definition.type.name == "evs":
        # RFC 6929 §2.4: a vendor, one type, one value, no length.
        _need(octets, 6, f"{definition.name} has a vendor's number, a type and a value", offset)
        return _inside((*path, int.from_bytes(octets[:4]), octets[4]), octets[5:], dictionary, offset)
    return [Leaf(path, octets, offset, definition)]


def _vendors_own(path: Path, payload: bytes, vendor: Vendor, dictionary: Dictionary, offset: int) -> Iterable[Leaf]:
    # RFC 2865 §5.26: what a vendor puts there is its own affair; if it is not types and values, it is octets.
    try:
        return [
            leaf
            for number, value in _split(payload, vendor.type_octets, vendor.length_octets, offset)
            for leaf in _inside((*path, number), value, dictionary, offset)
        ]
    except Malformed as error:
        return [Leaf(path, payload, offset, None, error)]


def _vendor(path: Path, octets: bytes, dictionary: Dictionary, offset: int) -> Vendor:
    _need(octets, 5, f"{dictionary.name(path)} has a vendor's number and a value", offset)
    return dictionary.vendor(int.from_bytes(octets[:4]))


def _split(octets: bytes, type_octets: int, length_octets: int, offset: int) -> Iterator[tuple[int, bytes]]:
    """Types and values that stand one behind the other; lengths include both type and length."""
    head = type_octets + length_octets
    at = 0
    while at < len(octets):
        if at + head > len(octets):
            raise Malformed("a type within an attribute lacks its length", offset)
        number = int.from_bytes(octets[at : at + type_octets])
        length = int.from_bytes(octets[at + type_octets : at + head]) if length_octets else len(octets) - at
        if length < head:
            raise Malformed(f"a length of {length} within an attribute is less than {head}", offset)
        if at + length > len(octets):
            raise Malformed(f"{length} octets within an attribute run past its end", offset)
        yield number, octets[at + head : at + length]
        at += length


def _concatenated(attributes: Sequence[Attribute], position: int) -> tuple[bytes, int]:
    """The value that goes on in the attributes right behind, and how many those are with the first."""
    end = position + 1
    while end < len(attributes) and attributes[end][0] == attributes[position][0]:
        end += 1
    return b"".join(value for _, value in attributes[position:end]), end - position


def _fragments(attributes: Sequence[Attribute], position: int, same: slice, flags: int) -> list[bytes]:
    """The attribute at `position` and the ones right behind that go on with its value.

    They have the octets `same` in common, and all but the last have the flag that there is more in octet `flags`.
    """
    number, first = attributes[position]
    fragments: list[bytes] = []
    for kind, octets in attributes[position:]:
        if kind != number or octets[same] != first[same]:
            break
        fragments.append(octets)
        if len(octets) <= flags or not octets[flags] & _MORE:
            break
    return fragments


def _long(fragments: list[bytes], offset: int) -> bytes:
    """A long extended attribute's type and value (RFC 6929 §2.2)."""
    for octets in fragments:
        _need(octets, 3, "a long extended attribute has its type, flags and a value", offset)
        if octets[1] & _MORE and len(octets) < MAX_VALUE:
            raise Malformed("a fragment that is not full says that there is more", offset)
    if fragments[-1][1] & _MORE:
        raise Malformed("the last fragment of a long extended attribute is missing", offset)
    return fragments[0][:1] + b"".join(octets[2:] for octets in fragments)


def _continued(fragments: list[bytes], vendor: Vendor, offset: int) -> bytes:
    """A vendor's type and value, put together from pieces that each have type, length and a flag."""
    head = 4 + vendor.type_octets + vendor.length_octets + 1
    for octets in fragments:
        _need(octets, head, "a vendor's attribute lacks its continuation flag", offset)
        if int.from_bytes(octets[4 + vendor.type_octets : head - 1]) != len(octets) - 4:
            raise Malformed("a vendor's attribute that can go on does not fill its own", offset)
    if fragments[-1][head - 1] & _MORE:
        raise Malformed("the last piece of a vendor's attribute is missing", offset)
    return fragments[0][4 : 4 + vendor.type_octets] + b"".join(octets[head:] for octets in fragments)


def _pack_continued(path: Path, vendor: Vendor, octets: bytes, dictionary: Dictionary) -> list[Attribute]:
    pieces = _cut(_wrap(path, 3, octets, dictionary), MAX_VALUE - 4 - vendor.head)
    last = len(pieces) - 1
    return [
        (
            path[0],
            vendor.number.to_bytes(4)
            + path[2].to_bytes(vendor.type_octets)
            + (vendor.head + len(piece)).to_bytes(vendor.length_octets)
            + bytes((_MORE if at < last else 0,))
            + piece,
        )
        for at, piece in enumerate(pieces)
    ]


def _cut(octets: bytes, room: int) -> list[bytes]:
    return [octets[at : at + room] for at in range(0, len(octets), room)] or [b""]


def _wrap(path: Path, depth: int, octets: bytes, dictionary: Dictionary) -> bytes:
    """The value of the attribute at `path[:depth]` that holds `octets` at `path`."""
    if depth == len(path):
        return octets
    holder = dictionary.find(path[:depth])
    if holder is not None and holder.type.name == "evs":
        return path[depth].to_bytes(4) + bytes((path[depth + 1],)) + _wrap(path, depth + 2, octets, dictionary)
    is_vendors = depth == 2 and path[0] == VENDOR_SPECIFIC
    type_octets, length_octets = dictionary.vendor(path[1])[2:4] if is_vendors else (1, 1)
    inner = _wrap(path, depth + 1, octets, dictionary)
    head = path[depth].to_bytes(type_octets)
    if not length_octets:
        return head + inner
    length = type_octets + length_octets + len(inner)
    if length >= 1 << 8 * length_octets:
        raise Malformed(f"{dictionary.name(path)}: a value of {len(octets)} octets does not fit", 0)
    return head + length.to_bytes(length_octets) + inner


def _need(octets: bytes, least: int, what: str, offset: int) -> None:
    if len(octets) < least:
        raise Malformed(f"{what}: {len(octets)} octets are too few", offset)
