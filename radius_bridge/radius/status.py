"""Status-Server (RFC 5997): "are you there?", asked and answered on the accounting port. Pure."""

import hashlib
import hmac
import os
import struct

from radius_bridge.radius.packet import HEADER, Code, Packet

STATUS_SERVER = 12
"""Its code (RFC 5997 §1)."""

_MESSAGE_AUTHENTICATOR = 80
_PROXY_STATE = 33
_ZEROS = bytes(16)
_header = struct.Struct("!BBH")


def is_genuine(packet: Packet, secret: bytes) -> bool:
    """True if there is exactly one Message-Authenticator, made by somebody who knows `secret` (RFC 5997 §3).

    The Request Authenticator is random and proves nothing.
    """
    offset = HEADER
    signed_at = None
    for kind, value in packet.attributes:
        if kind == _MESSAGE_AUTHENTICATOR:
            if signed_at is not None or len(value) != 16:
                return False
            signed_at = offset + 2
        offset += 2 + len(value)
    if signed_at is None:
        return False
    raw = packet.raw
    signed = raw[:signed_at] + _ZEROS + raw[signed_at + 16 :]
    return hmac.compare_digest(hmac.digest(secret, signed, "md5"), raw[signed_at : signed_at + 16])


def response(request: Packet, secret: bytes) -> bytes:
    """The Accounting-Response to a Status-Server on an accounting port (RFC 5997 §3).

    It has a Message-Authenticator, computed over the request's Authenticator (RFC 3579 §3.2), the request's
    Proxy-States, and nothing else.
    """
    states = b"".join(bytes((kind, len(v) + 2)) + v for kind, v in request.attributes if kind == _PROXY_STATE)
    head = _header.pack(Code.ACCOUNTING_RESPONSE, request.identifier, HEADER + 18 + len(states))
    mark = bytes((_MESSAGE_AUTHENTICATOR, 18))
    signature = hmac.digest(secret, head + request.authenticator + mark + _ZEROS + states, "md5")
    body = mark + signature + states
    digest = hashlib.md5(head + request.authenticator + body + secret, usedforsecurity=False).digest()
    return head + digest + body


def request(identifier: int, secret: bytes) -> bytes:
    """A Status-Server, ready to send."""
    head = _header.pack(STATUS_SERVER, identifier, HEADER + 18) + os.urandom(16) + bytes((_MESSAGE_AUTHENTICATOR, 18))
    return head + hmac.digest(secret, head + _ZEROS, "md5")
