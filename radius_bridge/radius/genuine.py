"""Whether packets of any kind were made by somebody who knows a secret: for people who look at captured ones. Pure.

The listener's own checks are in `packet` and `status`; here are all codes, and responses too.
"""

import hashlib
import hmac
from enum import StrEnum

from radius_bridge.radius.packet import HEADER, Packet

CODES = {
    1: "Access-Request",
    2: "Access-Accept",
    3: "Access-Reject",
    4: "Accounting-Request",
    5: "Accounting-Response",
    11: "Access-Challenge",
    12: "Status-Server",
    13: "Status-Client",
    40: "Disconnect-Request",
    41: "Disconnect-ACK",
    42: "Disconnect-NAK",
    43: "CoA-Request",
    44: "CoA-ACK",
    45: "CoA-NAK",
}
"""RFC 2865 §3, RFC 2866 §3, RFC 5997 §1, RFC 5176 §2.3."""

RESPONSES = frozenset({2, 3, 5, 11, 41, 42, 44, 45})

_COMPUTED = frozenset({4, 40, 43})
"""Requests whose Authenticator is computed (RFC 2866 §3, RFC 5176 §2.3); that of the others is random."""

_MESSAGE_AUTHENTICATOR = 80
_ZEROS = bytes(16)


class Verdict(StrEnum):
    """What the Authenticators prove."""

    RIGHT = "right"
    WRONG = "wrong"
    UNCHECKED = "unchecked"
    """Nothing in the packet depends on the secret, or the request that it answers is not known."""


def request_authenticator(head: bytes, body: bytes, secret: bytes) -> bytes:
    """The computed Authenticator (RFC 2866 §3) of a request: the four octets before it and the attributes behind."""
    return hashlib.md5(head + _ZEROS + body + secret, usedforsecurity=False).digest()


def verdict(packet: Packet, secret: bytes, request: Packet | None = None) -> Verdict:
    """Judges the Response or Request Authenticator and each Message-Authenticator (RFC 3579 §3.2).

    `request` is what a response answers; Status-Server may be answered by an Accounting-Response.
    """
    if packet.code in _COMPUTED:
        stand_in = _ZEROS
    elif packet.code in RESPONSES:
        if request is None:
            return Verdict.UNCHECKED
        stand_in = request.authenticator
    else:
        stand_in = packet.authenticator
    raw = packet.raw
    is_proven = False
    if packet.code in _COMPUTED | RESPONSES:
        signed = raw[:4] + stand_in + raw[HEADER:] + secret
        if not hmac.compare_digest(hashlib.md5(signed, usedforsecurity=False).digest(), packet.authenticator):
            return Verdict.WRONG
        is_proven = True
    at = HEADER
    for kind, value in packet.attributes:
        if kind == _MESSAGE_AUTHENTICATOR:
            signed = raw[:4] + stand_in + raw[HEADER : at + 2] + _ZEROS + raw[at + 18 :]
            if len(value) != 16 or not hmac.compare_digest(hmac.digest(secret, signed, "md5"), value):
                return Verdict.WRONG
            is_proven = True
        at += 2 + len(value)
    return Verdict.RIGHT if is_proven else Verdict.UNCHECKED
