"""Netlink as the kernel sends it: messages and attributes (linux/netlink.h). Pure."""

import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping

from agent.dataplane.errors import DataplaneError

HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""

ATTRIBUTE = struct.Struct("=HH")
"""nlattr: length, type."""

_LONGEST = 0xFFFF
_WORD = 4


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages in what the kernel sent: type, sequence, content. Raises DataplaneError if they are cut."""
    at = 0
    while at < len(data):
        if at + HEADER.size > len(data):
            raise DataplaneError("netlink: the kernel's answer is cut off")
        length, kind, _, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > len(data):
            raise DataplaneError("netlink: the kernel's answer is cut off")
        yield kind, sequence, data[at + HEADER.size : at + length]
        at += length + -length % 4


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data`: type (without flags) and value. Raises DataplaneError if they are cut."""
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size or at + length > len(data):
            raise DataplaneError("netlink: an attribute is cut off")
        yield kind & 0x3FFF, data[at + ATTRIBUTE.size : at + length]
        at += length + -length % 4


class Records:
    """Makes many attributes of the same length: what is the same in all is laid out once, the rest is put in column by
    column, which takes a tenth of the time that one after the other would take."""

    def __init__(self, record: bytes) -> None:
        """`record` is one of them, of whole words (32 bits)."""
        self.capacity = (_LONGEST - ATTRIBUTE.size) // len(record)
        """How many of them an attribute can hold: its length has 16 bits."""
        self._size = len(record) // _WORD
        self._blank = array("I", record * self.capacity)

    def pack(self, count: int, columns: Mapping[int, "array[int]"]) -> bytes:
        """So many records, at least one. `columns` are by the word at which they begin: the words of each record."""
        packed = self._blank[: count * self._size]
        for at, words in columns.items():
            width = len(words) // count
            for place in range(width):
                packed[at + place :: self._size] = words[place::width]
        return packed.tobytes()


def big_endian(numbers: Iterable[int], octets: int) -> "array[int]":
    """Unsigned numbers of 1, 4, 8 or 16 octets each in network order, as words for a column."""
    if octets not in (_WORD, 2 * _WORD):
        padding = bytes(-octets % _WORD)
        return array("I", b"".join([number.to_bytes(octets) + padding for number in numbers]))
    each = tuple(numbers)
    return array("I", struct.pack(f">{len(each)}{'I' if octets == _WORD else 'Q'}", *each))
