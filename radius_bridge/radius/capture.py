"""Datagrams in capture files: classic pcap and pcapng; Ethernet, Linux cooked and raw IP; UDP over IPv4 and IPv6. Pure.

Strict about the file's own structure; what is in it may be anything, and is left out and counted if it is not UDP.
"""

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

PCAPNG = b"\x0a\x0d\x0d\x0a"
"""The first four octets of a pcapng file."""

_PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
"""Byte order and unit of time of a pcap file, by its first four octets."""

_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_INTERFACE, _SIMPLE, _ENHANCED = 1, 3, 6
_RESOLUTION = 9
"""The option of an interface that says what its times count."""

_VLANS = frozenset({0x8100, 0x88A8})
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP = 17
_EXTENSIONS = frozenset({0, 43, 60})
"""IPv6 headers before the payload that say their own length: hop by hop, routing, destination options."""


class CaptureError(ValueError):
    """The file is no capture file, or is damaged; `str()` says where."""


class Datagram(NamedTuple):
    """One UDP datagram of the capture."""

    time: float | None
    """When it was captured (epoch seconds), if the file says."""
    source: tuple[str, int]
    destination: tuple[str, int]
    payload: bytes


class _Frame(NamedTuple):
    time: float | None
    link: int
    octets: bytes
    whole: bool
    """False if the capture cut it."""


@dataclass
class Capture:
    """Reads a capture file's octets."""

    octets: bytes
    skipped: int = 0
    """Frames left out so far: no UDP, fragments of datagrams, cut by the capture."""

    def __iter__(self) -> Iterator[Datagram]:
        """The UDP datagrams, in order. Raises CaptureError where the file is damaged."""
        if self.octets[:4] == PCAPNG:
            frames = _pcapng(self.octets)
        elif self.octets[:4] in _PCAP:
            frames = _pcap(self.octets)
        else:
            raise CaptureError("neither pcap nor pcapng")
        for frame in frames:
            datagram = _datagram(frame)
            if datagram is None:
                self.skipped += 1
            else:
                yield datagram


def is_capture(octets: bytes) -> bool:
    """True if a file that begins like this is a capture."""
    return octets[:4] == PCAPNG or octets[:4] in _PCAP


def _pcap(octets: bytes) -> Iterator[_Frame]:
    order, unit = _PCAP[octets[:4]]
    if len(octets) < 24:
        raise CaptureError("the file ends within its header (octet 0)")
    # The highest bits of the link type are about the frame check sequence.
    link = struct.unpack_from(order + "I", octets, 20)[0] & 0x0FFFFFFF
    at = 24
    while at < len(octets):
        if at + 16 > len(octets):
            raise CaptureError(f"the file ends within a record (octet {at})")
        seconds, fraction, captured, length = struct.unpack_from(order + "IIII", octets, at)
        if at + 16 + captured > len(octets):
            raise CaptureError(f"a record of {captured} octets runs past the file's end (octet {at})")
        frame = octets[at + 16 : at + 16 + captured]
        yield _Frame(seconds + fraction * unit, link, frame, captured >= length)
        at += 16 + captured


def _pcapng(octets: bytes) -> Iterator[_Frame]:
    order = "<"
    interfaces: list[tuple[int, float, int]] = []  # link type, unit of time, most octets of a frame
    at = 0
    while at < len(octets):
        if at + 12 > len(octets):
            raise CaptureError(f"the file ends within a block (octet {at})")
        if octets[at : at + 4] == PCAPNG:
            order = "<" if struct.unpack_from("<I", octets, at + 8)[0] == _BYTE_ORDER_MAGIC else ">"
            if struct.unpack_from(order + "I", octets, at + 8)[0] != _BYTE_ORDER_MAGIC:
                raise CaptureError(f"a section without its byte order (octet {at + 8})")
            interfaces = []
        kind, length = struct.unpack_from(order + "II", octets, at)
        if length < 12 or length % 4 or at + length > len(octets):
            raise CaptureError(f"a block of {length} octets does not fit (octet {at})")
        if struct.unpack_from(order + "I", octets, at + length - 4)[0] != length:
            raise CaptureError(f"a block's two lengths differ (octet {at})")
        body = octets[at + 8 : at + length - 4]
        if kind == _INTERFACE:
            if len(body) < 8:
                raise CaptureError(f"an interface of {len(body)} octets is too short (octet {at})")
            link, _, most = struct.unpack_from(order + "HHI", body)
            interfaces.append((link, _unit(body[8:], order), most))
        elif kind in (_ENHANCED, _SIMPLE):
            yield _packet(kind, body, order, interfaces, at)
        at += length


def _packet(kind: int, body: bytes, order: str, interfaces: list[tuple[int, float, int]], at: int) -> _Frame:
    head = 20 if kind == _ENHANCED else 4
    if len(body) < head:
        raise CaptureError(f"a packet of {len(body)} octets is too short (octet {at})")
    number, high, low, captured, length = 0, 0, 0, 0, 0
    if kind == _ENHANCED:
        number, high, low, captured, length = struct.unpack_from(order + "IIIII", body)
    if number >= len(interfaces):
        raise CaptureError(f"a packet of interface {number}, of which nothing was said (octet {at})")
    link, unit, most = interfaces[number]
    if kind == _SIMPLE:
        (length,) = struct.unpack_from(order + "I", body)
        captured = min(length, most or length)
    if head + captured > len(body):
        raise CaptureError(f"{captured} captured octets do not fit into their block (octet {at})")
    time = (high << 32 | low) * unit if kind == _ENHANCED else None
    return _Frame(time, link, body[head : head + captured], captured >= length)


def _unit(options: bytes, order: str) -> float:
    """Seconds that an interface's times count in."""
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from(order + "HH", options, at)
        if code == _RESOLUTION and length == 1 and at + 4 < len(options):
            value = options[at + 4]
            return 2.0 ** -(value & 0x7F) if value & 0x80 else 10.0**-value
        if code == 0:
            break
        at += 4 + (length + 3) // 4 * 4
    return 1e-6


def _datagram(frame: _Frame) -> Datagram | None:
    octets, protocol = _without_link(frame)
    if not frame.whole or len(octets) < 1:
        return None
    version = octets[0] >> 4
    if version == 4 and protocol in (_IPV4, None):
        inside = _ipv4(octets)
    elif version == 6 and protocol in (_IPV6, None):
        inside = _ipv6(octets)
    else:
        return None
    if inside is None:
        return None
    source, destination, udp = inside
    if len(udp) < 8:
        return None
    source_port, destination_port, length = struct.unpack_from("!HHH", udp)
    if not 8 <= length <= len(udp):
        return None
    return Datagram(frame.time, (source, source_port), (destination, destination_port), udp[8:length])


def _without_link(frame: _Frame) -> tuple[bytes, int | None]:
    """The IP packet and what the link says that it is; nothing if this is another protocol's."""
    octets = frame.octets
    match frame.link:
        case 101 | 12 | 14 | 228 | 229:  # raw IP; 12 and 14 are what some systems call it
            return octets, None
        case 1:  # Ethernet
            at = 12
            while octets[at : at + 2] and int.from_bytes(octets[at : at + 2]) in _VLANS:
                at += 4
        case 113:  # Linux cooked
            at = 14
        case 276:  # Linux cooked, version 2
            return octets[20:], int.from_bytes(octets[:2])
        case _:
            return b"", 0
    return octets[at + 2 :], int.from_bytes(octets[at : at + 2])


def _ipv4(octets: bytes) -> tuple[str, str, bytes] | None:
    head = (octets[0] & 15) * 4
    if head < 20 or len(octets) < head:
        return None
    length = int.from_bytes(octets[2:4])
    is_fragment = int.from_bytes(octets[6:8]) & 0x3FFF
    if octets[9] != _UDP or is_fragment or not head <= length <= len(octets):
        return None
    source, destination = ipaddress.IPv4Address(octets[12:16]), ipaddress.IPv4Address(octets[16:20])
    return str(source), str(destination), octets[head:length]


def _ipv6(octets: bytes) -> tuple[str, str, bytes] | None:
    if len(octets) < 40:
        return None
    end = 40 + int.from_bytes(octets[4:6])
    following, at = octets[6], 40
    while following in _EXTENSIONS and at + 8 <= len(octets):
        following, at = octets[at], at + 8 + octets[at + 1] * 8
    if following != _UDP or not at <= end <= len(octets):
        return None
    source, destination = ipaddress.IPv6Address(octets[8:24]), ipaddress.IPv6Address(octets[24:40])
    return str(source), str(destination), octets[at:end]
