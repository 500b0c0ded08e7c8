"""RADIUS packets over bytes: a strict codec (RFC 2865 §3, RFC 2866 §3). Pure; knows no dictionary.

The Authenticators are MD5 because the RFCs say so; `usedforsecurity=False` keeps them working on FIPS hosts.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterable
from enum import IntEnum

from msgspec import Struct

HEADER = 20
"""Octets before the attributes: Code, Identifier, Length, Authenticator."""

MAX_LENGTH = 4096
"""The longest packet there is (RFC 2865 §3; RFC 2866 says 4095, but RFC 7930 has peers that send 4096)."""

MAX_VALUE = 253
"""The longest value of one attribute (RFC 2865 §5)."""

_ZEROS = bytes(16)
_PROXY_STATE = 33
_MESSAGE_AUTHENTICATOR = 80
_UNSUPPORTED_EXTENSION = (101, (406).to_bytes(4))
"""An Error-Cause (RFC 5176 §3.5)."""
_header = struct.Struct("!BBH")

Attribute = tuple[int, bytes]
"""An attribute as it is on the wire: its type and its value's octets."""


class Code(IntEnum):
    """Packet codes (RFC 2865 §3, RFC 2866 §3, RFC 5176 §2.3)."""

    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    DISCONNECT_REQUEST = 40
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_NAK = 45


class Malformed(ValueError):
    """These octets are no RADIUS packet, or a value cannot be what its type says."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what} (octet {offset})")
        self.what = what
        self.offset = offset
        """Where, counted from the packet's first octet."""


class Packet(Struct, frozen=True, gc=False):
    """A packet whose form is right. Whether it is genuine is another question: `is_genuine`."""

    code: int
    identifier: int
    authenticator: bytes
    attributes: list[Attribute]
    """In the order of the packet."""
    raw: bytes
    """The packet's own octets, without what followed its Length."""


def parse(data: bytes) -> Packet:
    """Reads one datagram. Octets beyond the packet's Length are padding (RFC 2866 §3).

    Raises Malformed for a packet that is shorter than it says or has an attribute that does not fit in it.
    """
    if len(data) < HEADER:
        raise Malformed(f"{len(data)} octets are too few for a packet", 0)
    code, identifier, length = _header.unpack_from(data)
    if not HEADER <= length <= MAX_LENGTH:
        raise Malformed(f"a Length of {length} is not within {HEADER}..{MAX_LENGTH}", 2)
    if length != len(data):
        if length > len(data):
            raise Malformed(f"Length says {length}, but {len(data)} octets came", 2)
        data = data[:length]
    attributes: list[Attribute] = []
    offset = HEADER
    try:
        while offset < length:
            value, end = offset + 2, offset + data[offset + 1]
            if end < value or end > length:
                raise _misfit(data[offset + 1], offset + 1)
            attributes.append((data[offset], data[value:end]))
            offset = end
    except IndexError:
        raise Malformed("an attribute without its length", offset) from None
    return Packet(code, identifier, data[4:HEADER], attributes, data)


def _misfit(length: int, offset: int) -> Malformed:
    if length < 2:
        return Malformed(f"an attribute's length of {length} is less than 2", offset)
    return Malformed(f"an attribute of {length} octets runs past the packet's end", offset)


def is_genuine(packet: Packet, secret: bytes) -> bool:
    """True if an Accounting-Request was made by somebody who knows `secret`.

    Checks the Request Authenticator (RFC 2866 §3) and, if there is one, the Message-Authenticator: it does not
    belong there (RFC 3579 §3.3), but a wrong one is a lie.
    """
    raw = packet.raw
    expected = hashlib.md5(raw[:4] + _ZEROS + raw[HEADER:] + secret, usedforsecurity=False).digest()
    if not hmac.compare_digest(expected, packet.authenticator):
        return False
    if _MESSAGE_AUTHENTICATOR not in raw:  # no octet says 80: then no attribute is of that type
        return True
    offset = HEADER
    for kind, value in packet.attributes:
        if kind == _MESSAGE_AUTHENTICATOR and not _message_authenticator_holds(raw, offset, value, secret):
            return False
        offset += 2 + len(value)
    return True


def _message_authenticator_holds(raw: bytes, offset: int, value: bytes, secret: bytes) -> bool:
    # For requests whose Authenticator is itself computed, sixteen zero octets stand in its place.
    if len(value) != 16:
        return False
    signed = raw[:4] + _ZEROS + raw[HEADER : offset + 2] + _ZEROS + raw[offset + 18 :]
    return hmac.compare_digest(hmac.digest(secret, signed, "md5"), value)


def accounting_response(request: Packet, secret: bytes) -> bytes:
    """The Accounting-Response: the request's Proxy-States in order, unchanged, no more (RFC 2866 §4.2)."""
    return _response(Code.ACCOUNTING_RESPONSE, request, b"", secret)


_NAKS: dict[int, Code] = {Code.DISCONNECT_REQUEST: Code.DISCONNECT_NAK, Code.COA_REQUEST: Code.COA_NAK}


def unsupported(data: bytes, secret: bytes) -> bytes | None:
    """The NAK that a genuine CoA- or Disconnect-Request gets from who takes none (RFC 6614 §2.5); None for all else.

    Their Authenticators are made as those of Accounting-Requests (RFC 5176 §2.3). Raises Malformed.
    """
    packet = parse(data)
    nak = _NAKS.get(packet.code)
    if nak is None or not is_genuine(packet, secret):
        return None
    answer = _response(nak, packet, _encode([_UNSUPPORTED_EXTENSION]), secret)
    return answer if len(answer) <= MAX_LENGTH else None


def _response(code: int, request: Packet, attributes: bytes, secret: bytes) -> bytes:
    if _PROXY_STATE in request.raw:  # else no octet says 33, and no attribute is of that type
        attributes += _encode([pair for pair in request.attributes if pair[0] == _PROXY_STATE])
    head = _header.pack(code, request.identifier, HEADER + len(attributes))
    digest = hashlib.md5(head + request.authenticator + attributes + secret, usedforsecurity=False).digest()
    return head + digest + attributes


def accounting_request(
    identifier: int, attributes: Iterable[Attribute], secret: bytes, *, message_authenticator: bool = False
) -> bytes:
    """An Accounting-Request, ready to send; `message_authenticator` puts one in front.

    Raises Malformed if a value or the packet gets too long.
    """
    pairs = list(attributes)
    if message_authenticator:
        pairs.insert(0, (_MESSAGE_AUTHENTICATOR, _ZEROS))
    body = _encode(pairs)
    if HEADER + len(body) > MAX_LENGTH:
        raise Malformed(f"{HEADER + len(body)} octets are too many for a packet: {MAX_LENGTH} fit", MAX_LENGTH)
    head = _header.pack(Code.ACCOUNTING_REQUEST, identifier, HEADER + len(body))
    if message_authenticator:
        body = body[:2] + hmac.digest(secret, head + _ZEROS + body, "md5") + body[18:]
    return head + hashlib.md5(head + _ZEROS + body + secret, usedforsecurity=False).digest() + body


def is_response(data: bytes, request: bytes, secret: bytes) -> bool:
    """True if `data` is the genuine Accounting-Response to `request`, both as they are on the wire."""
    try:
        packet = parse(data)
    except Malformed:
        return False
    signed = packet.raw[:4] + request[4:HEADER] + packet.raw[HEADER:] + secret
    digest = hashlib.md5(signed, usedforsecurity=False).digest()
    matches = packet.code == Code.ACCOUNTING_RESPONSE and packet.identifier == request[1]
    return matches and hmac.compare_digest(digest, packet.authenticator)


def _encode(attributes: list[Attribute]) -> bytes:
    parts = []
    for kind, value in attributes:
        if len(value) > MAX_VALUE:
            raise Malformed(f"a value of {len(value)} octets is too long: {MAX_VALUE} fit", 0)
        parts.append(bytes((kind, len(value) + 2)) + value)
    return b"".join(parts)
