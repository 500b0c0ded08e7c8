"""What the kernel logs of refused packets: reads NFLOG (linux/netfilter/nfnetlink_log.h). CAP_NET_ADMIN is enough."""

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from agent.dataplane.errors import DataplaneError
from agent.dataplane.wire import ATTRIBUTE, HEADER, attributes, split
from radius_bridge.policy.members import Prefix, address_prefix


class Logged(NamedTuple):
    """One packet that was logged."""

    prefix: str
    """What its rule says."""
    source: Prefix


_NETLINK_NETFILTER = 12
_ERROR = 2
_SUBSYSTEM = 4 << 8
_PACKET, _CONFIG = 0, 1
_COMMAND, _MODE, _TIMEOUT = 1, 2, 4
_BIND, _COPY_PACKET = 1, 2
_PREFIX, _PAYLOAD = 10, 9
_REQUEST_ACK = 5
_HEADERS = 40
"""Octets of a packet that are copied: an IPv6 header."""

_HUNDREDTHS = 50
"""The kernel keeps packets for so long (1/100 s), to send several at once."""

_FAMILY = struct.Struct(">BBH")
_CODE = struct.Struct("=i")
_BUFFER = 1 << 17


def read(data: bytes) -> Iterator[Logged]:
    """The packets in a datagram; what is no IP packet is left out. Raises DataplaneError if it is cut."""
    for kind, _, content in split(data):
        if kind != _SUBSYSTEM | _PACKET:
            continue
        found = dict(attributes(content[_FAMILY.size :]))
        source = _source(found.get(_PAYLOAD, b""))
        if source is not None and _PREFIX in found:
            yield Logged(found[_PREFIX].rstrip(b"\0").decode(errors="replace"), source)


def answer(data: bytes) -> int | None:
    """What the kernel answers to a request of ours, 0 or an errno; None for what was logged, which may come first.

    Raises DataplaneError if the datagram is cut.
    """
    codes = (-_CODE.unpack_from(content)[0] for kind, _, content in split(data) if kind == _ERROR)
    return next(codes, None)


def _source(packet: bytes) -> Prefix | None:
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return address_prefix(ipaddress.IPv4Address(packet[12:16]))
    if version == 6 and len(packet) >= 40:
        return address_prefix(ipaddress.IPv6Address(packet[8:24]))
    return None


class NflogSocket:
    """Hears what is logged to one group in its network namespace."""

    def __init__(self, group: int) -> None:
        """Raises DataplaneError without CAP_NET_ADMIN, or if another program listens to this group."""
        self.lost = 0
        """How often more came than there was room for."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        except OSError as error:
            raise DataplaneError(f"NFLOG: {error}") from error
        try:
            self._socket.settimeout(5)
            self._socket.bind((0, 0))
            for attribute in (
                _attribute(_COMMAND, struct.pack("=B", _BIND)),
                _attribute(_MODE, struct.pack(">IBx", _HEADERS, _COPY_PACKET)),
                _attribute(_TIMEOUT, struct.pack(">I", _HUNDREDTHS)),
            ):
                self._configure(group, attribute)
        except (OSError, DataplaneError) as error:
            self._socket.close()
            raise DataplaneError(f"NFLOG group {group}: {error}") from error
        self._socket.setblocking(False)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """What to wait for until there is something to be read."""
        return self._socket.fileno()

    def take(self) -> list[Logged]:
        """What was logged since this was last called."""
        found: list[Logged] = []
        while True:
            try:
                found += read(self._socket.recv(_BUFFER))
            except BlockingIOError:
                return found
            except (OSError, DataplaneError):  # ENOBUFS: what there was no room for is lost
                self.lost += 1

    def _configure(self, group: int, attribute: bytes) -> None:
        content = _FAMILY.pack(0, 0, group) + attribute
        self._socket.send(HEADER.pack(HEADER.size + len(content), _SUBSYSTEM | _CONFIG, _REQUEST_ACK, 0, 0) + content)
        while (code := answer(self._socket.recv(_BUFFER))) is None:
            pass
        if code == errno.EBUSY:
            raise DataplaneError("another program listens to it; choose another group (refused.group)")
        if code:
            raise DataplaneError(errno.errorcode.get(code, str(code)))


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
