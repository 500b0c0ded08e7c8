"""UDP sockets that tell which of our addresses was asked, so that the response leaves from there."""

import socket
import sys

RECEIVE_BUFFER = 8 << 20
"""Octets of socket buffer asked for: some 10,000 packets, a controller's stations that reconnect at once."""

# Not in Python's socket module; values of linux/in.h and asm-generic/socket.h.
_IP_PKTINFO = 8
_SO_RCVBUFFORCE = 33
_SO_RXQ_OVFL = 40

ANCILLARY_SPACE = socket.CMSG_SPACE(20) + socket.CMSG_SPACE(4)
"""Octets for what the kernel tells about a datagram: its destination, and packets that were dropped."""

Ancillary = list[tuple[int, int, bytes]]
"""Control messages (cmsg(3)): level, type, data."""

Peer = tuple[str, int] | tuple[str, int, int, int]
"""Where a datagram comes from: address and port, for IPv6 with flow and scope."""


def open_udp(host: str, port: int) -> socket.socket:
    """A bound, non-blocking socket; `host` is numeric. Raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)  # as far as net.core.rmem_max goes
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        where = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
        raise OSError(error.errno, f"cannot listen on {where}/udp: {error.strerror}") from error
    return sock


def read_ancillary(received: Ancillary) -> tuple[Ancillary, int | None]:
    """Reads what came with a datagram.

    Gives the ancillary data that makes the response leave from the address that was asked (by any interface:
    routing decides), and how many packets the kernel has dropped on this socket so far (modulo 2³²; None: 0).
    """
    reply: Ancillary = []
    dropped = None
    for level, kind, data in received:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # struct in_pktinfo: interface, local address, destination.
            reply.append((level, kind, bytes(4) + data[4:8] + bytes(4)))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            # struct in6_pktinfo: destination, interface.
            reply.append((level, kind, data[:16] + bytes(4)))
        elif level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
            dropped = int.from_bytes(data, sys.byteorder)
    return reply, dropped
