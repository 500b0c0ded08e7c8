"""What the tests of RadSec and DTLS share: a CA, a service with its recorder, and who is refused for which reason."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius import genuine, tls
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.packet import HEADER, MAX_LENGTH, accounting_request, parse
from radius_bridge.radius.service import Service
from tests.lab.pki import Authority, Identity
from tests.lab.radius_client import Status, accounting, request
from tests.radius.recorder import Recorder

NAMES = ("proxy.example.org",)


def client(name: str, *, certificate_name: str | None = None, fingerprint: bytes | None = None) -> Client:
    """A client that may bind 10.0.0.0/8."""
    networks = Networks([parse_prefix("10.0.0.0/8")])
    return Client(name, None, tls.SECRET, networks, certificate_name=certificate_name, fingerprint=fingerprint)


CLIENTS = Clients([client("campus", certificate_name=NAMES[0])])


def login(number: int, secret: bytes) -> bytes:
    """A Start with that Identifier and session."""
    return request(number % 256, accounting(Status.START, "alice", f"s{number}", "10.1.2.3"), secret)


def longest(secret: bytes) -> bytes:
    """A Start of 4,096 octets with 16 Proxy-States (RFC 7930 §2)."""
    pairs = [*accounting(Status.START, "alice", "s1", "10.1.2.3"), *((33, bytes((n,)) * 253) for n in range(15))]
    spare = MAX_LENGTH - len(accounting_request(1, pairs, secret))
    return accounting_request(1, [*pairs, (33, bytes(spare - 2))], secret)


def change(code: int, secret: bytes) -> bytes:
    """A CoA- (43) or Disconnect-Request (40) with two Proxy-States."""
    body = b"\x21\x05one\x01\x07alice\x21\x05two"
    head = bytes((code, 9)) + (HEADER + len(body)).to_bytes(2)
    return head + genuine.request_authenticator(head, body, secret) + body


def is_nak(answer: bytes, request: bytes, secret: bytes) -> bool:
    """True if it is the NAK to that request, with Error-Cause 406 and the Proxy-States (RFC 5176 §3.5, §3.1)."""
    nak = parse(answer)
    is_right = genuine.verdict(nak, secret, parse(request)) is genuine.Verdict.RIGHT
    pairs = [(101, (406).to_bytes(4)), (33, b"one"), (33, b"two")]
    return is_right and (nak.code, nak.identifier, nak.attributes) == (request[0] + 2, 9, pairs)


class SecuredLab:
    """A CA, the certificates of both sides, and a service."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority(folder)
        self.ours = self.ca.issue("bridge", "bridge.example.org")
        self.proxy = self.ca.issue("proxy", *NAMES)
        self.recorder = Recorder()
        self.service = Service(Rules(default_lease=3600, shared=Networks([])), self.recorder.submit)

    @property
    def files(self) -> tls.Files:
        """What the bridge reads."""
        return tls.Files(self.ours.certificate, self.ours.key, self.ca.certificate, self.ca.crl)

    def load(self) -> tls.Tls:
        """The files as they are now."""
        return tls.load(self.files)


def _revoked(ca: Authority) -> Identity:
    identity = ca.issue("revoked", *NAMES)
    ca.revoke(identity)
    return identity


def _of_another_ca(ca: Authority, label: str) -> Identity:
    folder = ca.certificate.parent / "other"
    folder.mkdir()
    return Authority(folder, label).issue("proxy", *NAMES)


def _with_expired_crl(ca: Authority) -> Identity:
    ca.write_crl(valid=timedelta(hours=-1))
    return ca.issue("behind-an-old-list", *NAMES)


def below(ca: Authority) -> Authority:
    """A CA below ours, and its revocation list beside ours."""
    folder = ca.certificate.parent / "below"
    folder.mkdir()
    made = Authority(folder, "intermediate", ca)
    ca.crl.write_bytes(ca.crl.read_bytes() + made.crl.read_bytes())
    return made


def _below_a_revoked_ca(ca: Authority) -> Identity:
    made = below(ca)
    ca.revoke(made.identity)
    ca.crl.write_bytes(ca.crl.read_bytes() + made.crl.read_bytes())
    return made.issue("proxy", *NAMES)


def _below_without_list(ca: Authority) -> Identity:
    identity = below(ca).issue("proxy", *NAMES)
    ca.write_crl()
    return identity


REFUSED: dict[str, tuple[str, Callable[[Authority], Identity | None]]] = {
    "expired": ("certificate: it is expired", lambda ca: ca.issue("expired", *NAMES, valid=timedelta(days=-1))),
    "self-signed": ("certificate: it is self-signed", lambda ca: ca.issue("own", *NAMES, self_signed=True)),
    "other CA": ("certificate: it is of another CA", lambda ca: _of_another_ca(ca, "other-ca")),
    "same name": ("certificate: it is of another CA of the same name", lambda ca: _of_another_ca(ca, "ca")),
    "revoked": ("certificate: it is revoked", _revoked),
    "revoked CA": ("certificate: it is revoked", _below_a_revoked_ca),
    "expired CRL": ("certificate: the CRL of its CA is expired", _with_expired_crl),
    "no CRL": ("certificate: there is no CRL of its CA in crl_file", _below_without_list),
    "none": ("certificate: it shows none", lambda _: None),
    "stranger": ("no client has this certificate", lambda ca: ca.issue("stranger", "stranger.example.org")),
}
"""Who is refused: the reason that the log gives, and a certificate. It is made before the bridge reads its files."""
