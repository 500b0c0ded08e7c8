"""What a TLS peer offers before anything is agreed: the protocol names of its ClientHello (RFC 7301 §3.1). Pure.

Python's `ssl` chooses one of our names or none, and goes on if none fits; what was offered it does not tell.
"""

from collections.abc import Iterator

LONGEST = 1 << 15
"""Octets. A ClientHello, even one with post-quantum keys, has a few thousand."""

NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""The record of a fatal alert no_application_protocol (RFC 7301 §3.2), in clear as before any ServerHello."""

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_ALPN = 16


class _Misfit(Exception):
    """A length that runs past the end."""


class _Reader:
    """Takes vectors (RFC 8446 §3.4) off the front."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._octets[self._at : self._at + size]
        if len(taken) < size:
            raise _Misfit
        self._at += size
        return taken

    def vector(self, size: int) -> bytes:
        """One whose length is in `size` octets before it."""
        return self.take(int.from_bytes(self.take(size)))

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._octets)


def offered(octets: bytes) -> tuple[bytes, ...] | None:
    """The names that the ClientHello at the beginning of a connection offers; None if more octets are needed.

    Empty if it offers none, and for whatever is no ClientHello: the handshake says what is wrong with that.
    """
    message = b""
    at = 0
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4]):
        if at >= LONGEST or octets[at : at + 1] not in (b"", bytes((_HANDSHAKE,))):
            return ()
        if len(octets) < at + 5:
            return None
        length = int.from_bytes(octets[at + 3 : at + 5])
        message += octets[at + 5 : at + 5 + length]
        if not length or message[:1] not in (b"", bytes((_CLIENT_HELLO,))):
            return ()
        at += 5 + length
    try:
        return tuple(_names(_Reader(message[4 : 4 + int.from_bytes(message[1:4])])))
    except _Misfit:
        return ()


def _names(hello: _Reader) -> Iterator[bytes]:
    """RFC 8446 §4.1.2."""
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression
    if hello.is_empty:
        return
    extensions = _Reader(hello.vector(2))
    while not extensions.is_empty:
        kind = int.from_bytes(extensions.take(2))
        extension = _Reader(extensions.vector(2))
        if kind == _ALPN:
            names = _Reader(extension.vector(2))
            while not names.is_empty:
                yield names.vector(1)
