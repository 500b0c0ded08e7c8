"""Sockets, and what the kernel tells with a datagram: so that a response leaves from the address that was asked."""

import functools
import ipaddress
import socket
import struct
import sys
from typing import NamedTuple

RECEIVE_BUFFER = 32 << 20
"""Octets of socket buffer asked for: some 25,000 packets, a controller's stations that reconnect at once.

The kernel counts about 1.3 KiB for a small packet. Without CAP_NET_ADMIN, net.core.rmem_max is the limit.
"""

BACKLOG = 128
"""TCP connections that wait to be accepted."""

# Not in Python's socket module; values of linux/in.h and asm-generic/socket.h.
_IP_PKTINFO = 8
_SO_RCVBUFFORCE = 33
_SO_RXQ_OVFL = 40

_cmsghdr = struct.Struct("@Nii")
_ALIGN = struct.calcsize("@N")


def open_udp(host: str, port: int, *, receive_buffer: int = RECEIVE_BUFFER) -> socket.socket:
    """A bound, non-blocking socket; `host` is numeric. Raises OSError that names the address."""
    sock = socket.socket(_family(host), socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # as far as net.core.rmem_max goes
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {endpoint(host, port)}/udp: {error.strerror}") from error
    return sock


def open_tcp(host: str, port: int) -> socket.socket:
    """A listening, non-blocking socket; `host` is numeric. Raises OSError that names the address."""
    sock = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {endpoint(host, port)}/tcp: {error.strerror}") from error
    return sock


def local_address(sock: socket.socket) -> tuple[str, int]:
    """Address and port that are open."""
    host, port = sock.getsockname()[:2]
    return host, port


def endpoint(host: str, port: int) -> str:
    """As people write it: `192.0.2.1:1813`, `[2001:db8::1]:1813`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def address_of(name: bytes) -> tuple[int, int]:
    """IP version and address in a sockaddr_in or sockaddr_in6."""
    if len(name) == 16:
        return 4, int.from_bytes(name[4:8])
    return 6, int.from_bytes(name[8:24])


def host_and_port(name: bytes) -> tuple[str, int]:
    """Address and port in a sockaddr."""
    version, number = address_of(name)
    host = ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)
    return str(host), int.from_bytes(name[2:4])


def endpoint_of(name: bytes) -> str:
    """Address and port in a sockaddr, for people."""
    return endpoint(*host_and_port(name))


class Control(NamedTuple):
    """What control messages said."""

    reply: bytes
    """Control message that makes the response leave from the address that was asked (by any interface)."""
    dropped: int | None
    """Packets that the kernel has dropped on this socket so far, modulo 2³²; None: not told, none."""


@functools.lru_cache(maxsize=1024)
def read_control(control: bytes) -> Control:
    """Reads the control messages (cmsg(3)) that came with a datagram; the same ones come again and again."""
    reply = b""
    dropped = None
    offset = 0
    while offset + _cmsghdr.size <= len(control):
        length, level, kind = _cmsghdr.unpack_from(control, offset)
        if length < _cmsghdr.size:
            break
        data = control[offset + _cmsghdr.size : offset + length]
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # struct in_pktinfo: interface, local address, destination.
            reply = _message(level, kind, bytes(4) + data[4:8] + bytes(4))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            # struct in6_pktinfo: destination, interface.
            reply = _message(level, kind, data[:16] + bytes(4))
        elif level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
            dropped = int.from_bytes(data, sys.byteorder)
        offset += -(-length // _ALIGN) * _ALIGN
    return Control(reply, dropped)


def _message(level: int, kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % _ALIGN)
    return _cmsghdr.pack(_cmsghdr.size + len(data), level, kind) + data + padding
