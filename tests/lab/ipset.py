"""Is an address in a set of the kernel? Asked over netlink: tens of microseconds, where `ipset test` takes 3 ms."""

import ipaddress
import socket
import struct
from types import TracebackType
from typing import Self

from tests.lab.netns import Namespace
from tests.lab.processes import LabError

_NETLINK_NETFILTER = 12
_IPSET_CMD_TEST = 6 << 8 | 11
_REQUEST, _ACK = 1, 4
_NESTED, _NET_BYTEORDER = 1 << 15, 1 << 14
_ATTR_PROTOCOL, _ATTR_SETNAME, _ATTR_DATA, _ATTR_IP = 1, 2, 7, 1
_NOT_THERE = 4103  # IPSET_ERR_EXIST: for this command, "not in the set"
_NO_SUCH_SET = 2  # ENOENT


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


class SetProbe:
    """Asks about sets of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._sock = namespace.call(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER))
        self._sock.settimeout(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def holds(self, set_name: str, address: str) -> bool:
        """True if the hash:ip set has the address now; False too if there is no such set."""
        ip = ipaddress.ip_address(address)
        inner = _attribute((1 if ip.version == 4 else 2) | _NET_BYTEORDER, ip.packed)
        body = struct.pack("=BBH", socket.AF_INET if ip.version == 4 else socket.AF_INET6, 0, 0)
        body += _attribute(_ATTR_PROTOCOL, b"\6")
        body += _attribute(_ATTR_SETNAME, set_name.encode() + b"\0")
        body += _attribute(_ATTR_DATA | _NESTED, _attribute(_ATTR_IP | _NESTED, inner))
        self._sock.send(struct.pack("=IHHII", 16 + len(body), _IPSET_CMD_TEST, _REQUEST | _ACK, 0, 0) + body)
        (negative,) = struct.unpack_from("=i", self._sock.recv(4096), 16)
        if -negative not in {0, _NOT_THERE, _NO_SUCH_SET}:
            raise LabError(f"ipset test {set_name} {address}: error {-negative}")
        return bool(negative == 0)
