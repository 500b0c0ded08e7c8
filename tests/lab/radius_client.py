"""A small RADIUS accounting client: its code and the bridge's have nothing in common but the RFCs."""

import hashlib
import ipaddress
import itertools
import socket
import time
from enum import IntEnum
from types import TracebackType
from typing import Self

Attributes = list[tuple[int, bytes]]
"""Attribute types and values, in the order they are sent."""


class Status(IntEnum):
    """Acct-Status-Type (RFC 2866 §5.1)."""

    START = 1
    STOP = 2
    INTERIM = 3


def accounting(
    status: Status,
    user: str,
    session: str,
    *addresses: str,
    nas: str = "203.0.113.2",
    session_timeout: int | None = None,
    session_time: int | None = None,
    event_time: float | None = None,
) -> Attributes:
    """The attributes of an Accounting-Request as a NAS sends them. Durations and epochs in seconds."""
    attributes: Attributes = [
        (40, int(status).to_bytes(4, "big")),
        (1, user.encode()),
        (44, session.encode()),
        (4, ipaddress.IPv4Address(nas).packed),
    ]
    for text in addresses:
        address = ipaddress.ip_address(text)
        attributes.append((8 if address.version == 4 else 168, address.packed))
    if session_timeout is not None:
        attributes.append((27, session_timeout.to_bytes(4, "big")))
    if session_time is not None:
        attributes.append((46, session_time.to_bytes(4, "big")))
    if event_time is not None:
        attributes.append((55, int(event_time).to_bytes(4, "big")))
    return attributes


def request(identifier: int, attributes: Attributes, secret: bytes) -> bytes:
    """An Accounting-Request with its Request Authenticator (RFC 2866 §3)."""
    body = b"".join(bytes([kind, len(value) + 2]) + value for kind, value in attributes)
    head = bytes([4, identifier]) + (20 + len(body)).to_bytes(2, "big")
    return head + hashlib.md5(head + bytes(16) + body + secret, usedforsecurity=False).digest() + body


def is_response(answer: bytes, to: bytes, secret: bytes) -> bool:
    """True if `answer` is the genuine Accounting-Response to the request `to` (RFC 2866 §3)."""
    if len(answer) < 20 or answer[0] != 5 or answer[1] != to[1] or int.from_bytes(answer[2:4], "big") != len(answer):
        return False
    digest = hashlib.md5(answer[:4] + to[4:20] + answer[20:] + secret, usedforsecurity=False).digest()
    return digest == answer[4:20]


class AccountingClient:
    """Sends accounting packets over one connected UDP socket, one after the other."""

    def __init__(self, sock: socket.socket, secret: bytes) -> None:
        self.sock = sock
        self.secret = secret
        self._identifiers = itertools.cycle(range(256))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, attributes: Attributes, *, timeout: float = 5.0) -> float | None:
        """Sends a request once; seconds until its response, None if none came within `timeout` seconds."""
        packet = request(next(self._identifiers), attributes, self.secret)
        began = time.monotonic()
        self.sock.send(packet)
        while (left := began + timeout - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                answer = self.sock.recv(4096)
            except TimeoutError:
                break
            except ConnectionRefusedError:
                # Nobody listens right now: as good as no answer, and the NAS would try again.
                return None
            if is_response(answer, packet, self.secret):
                return time.monotonic() - began
        return None
