"""What the kernel logs to a group of NFLOG: the prefixes of the packets (linux/netfilter/nfnetlink_log.h)."""

import socket
import struct
import time
from types import TracebackType
from typing import Self

from tests.lab.netns import Namespace
from tests.lab.processes import LabError

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 4 << 8
_PACKET, _CONFIG = 0, 1
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND = 1
_COPY_PACKET = 2
_PREFIX = 10


class Nflog:
    """Listens to one group in a namespace."""

    def __init__(self, namespace: Namespace, group: int) -> None:
        self._sock = namespace.call(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER))
        self._group = group
        self._sock.settimeout(5)
        self._configure(struct.pack("=HHB3x", 5, _COMMAND, _BIND))
        self._configure(struct.pack("=HH", 10, _MODE) + struct.pack(">IBx2x", 0xFFFF, _COPY_PACKET))
        self._configure(struct.pack("=HH", 8, _THRESHOLD) + struct.pack(">I", 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def prefixes(self, seconds: float = 0.2) -> list[str]:
        """The prefixes of all packets that are logged until none came for so long."""
        found: list[str] = []
        quiet = time.monotonic() + seconds
        while (left := quiet - time.monotonic()) > 0:
            self._sock.settimeout(left)
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                break
            found += self._read(data)
            quiet = time.monotonic() + seconds
        return found

    def _configure(self, attribute: bytes) -> None:
        body = struct.pack(">BBH", 0, 0, self._group) + attribute
        self._sock.send(struct.pack("=IHHII", 16 + len(body), _SUBSYSTEM | _CONFIG, 5, 0, 0) + body)
        (negative,) = struct.unpack_from("=i", self._sock.recv(4096), 16)
        if negative:
            raise LabError(f"NFLOG group {self._group}: error {-negative}")

    def _read(self, data: bytes) -> list[str]:
        found, at = [], 0
        while at < len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind == _SUBSYSTEM | _PACKET:
                found += [value for name, value in _attributes(data[at + 20 : at + length]) if name == _PREFIX]
            at += length + -length % 4
        return [value.rstrip(b"\0").decode() for value in found]


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found.append((kind & 0x3FFF, data[at + 4 : at + length]))
        at += length + -length % 4
    return found
