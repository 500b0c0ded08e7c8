"""Netlink as the kernel sends it: messages and attributes (linux/netlink.h). Pure."""

import struct
from collections.abc import Iterator

from agent.dataplane.errors import DataplaneError

HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""

ATTRIBUTE = struct.Struct("=HH")
"""nlattr: length, type."""


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
