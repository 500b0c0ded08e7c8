"""TLS as RadSec needs it (RFC 6614 §2.3): both sides show certificates, and what is wrong with one has a name."""

import hashlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radius_bridge.secretfile import is_everybodys

ALPN = "radius/1.0"
"""RFC 9765 §3: historic RADIUS, with its MD5 authenticators, inside TLS."""

SECRET = b"radsec"
"""The shared secret inside TLS unless another is agreed (RFC 6614 §2.3)."""

_WRONG = {
    2: "the CA above its CA is not in ca_file",
    3: "there is no CRL of its CA in crl_file",
    7: "it is of another CA of the same name",
    8: "the CRL of its CA is not signed by that CA",
    9: "it is not valid yet",
    10: "it is expired",
    11: "the CRL of its CA is not valid yet",
    12: "the CRL of its CA is expired",
    18: "it is self-signed",
    19: "it is of another CA (whose root it brings along)",
    20: "it is of another CA",
    21: "it is of another CA",
    23: "it is revoked",  # or the CA that it brings along
    24: "its issuer is no CA",
    26: "it is not for TLS clients (extended key usage)",
    66: "its key is too short",
    67: "its CA's key is too short",
    68: "its signature's hash is too weak",
}
"""By OpenSSL's X509_V_ERR code."""


@dataclass(frozen=True)
class Files:
    """Where certificates are, all PEM."""

    certificate: Path
    """Ours, and the intermediate ones behind it."""
    key: Path
    ca: Path
    """The CAs whose certificates peers may show."""
    crl: Path | None = None
    """Certificate revocation lists: one of every CA in `ca`, or nobody of that CA is let in."""


Stamp = tuple[tuple[int, ...] | None, ...]
"""Inode, size and time of change (ns) of each file; None for one that cannot be looked at, or is not configured."""


@dataclass(frozen=True)
class Tls:
    """What the files held when they were read."""

    context: ssl.SSLContext
    files: Files
    digest: bytes
    """Differs when the files do."""
    stamp: Stamp
    """Of the files, before they were read."""


def stamp(files: Files) -> Stamp:
    """Tells without reading them whether files have changed."""
    return tuple(_stamp(path) for path in vars(files).values())


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    try:
        about = None if path is None else path.stat()
    except OSError:
        return None
    return None if about is None else (about.st_ino, about.st_size, about.st_mtime_ns, about.st_mode)


def load(files: Files) -> Tls:
    """Reads the files. Raises ValueError that names the one that cannot be used."""
    before = stamp(files)
    digest = hashlib.sha256()
    for key, path in vars(files).items():
        if path is None:
            continue
        try:
            if key == "key" and is_everybodys(path.stat()):
                raise ValueError(f"key_file {path} can be read by everybody: chmod 640 {path}")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise ValueError(f"{key}_file {path}: cannot be read: {error.strerror}") from None
    # Session tickets and with them 0-RTT are off: a resumed session would not be checked against the CRL.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([ALPN])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ValueError(
            f"certificate_file {files.certificate}, key_file {files.key}: not a certificate and its key, "
            f"unencrypted, as PEM ({_short(error)})"
        ) from None
    for key, path in (("ca", files.ca), ("crl", files.crl)):
        if path is None:
            continue
        try:
            context.load_verify_locations(path)
        except OSError as error:
            raise ValueError(f"{key}_file {path}: holds nothing of the kind as PEM ({_short(error)})") from None
    if files.crl is not None:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    return Tls(context, files, digest.digest(), before)


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _short(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    return str(error.strerror) if isinstance(error, OSError) else str(error)


def problem(code: int) -> str:
    """What is wrong with a certificate, by OpenSSL's code (X509_V_ERR)."""
    return _WRONG.get(code, f"OpenSSL refuses it (code {code})")


FOREIGN_PROTOCOL = f"TLS: it does not offer {ALPN} (ALPN)"
"""Why a peer is refused that offers other protocols only."""


def shown(offered: Iterable[bytes]) -> str:
    """Protocols' names for the log, not all of what somebody may have made up."""
    return ", ".join(name[:32].decode("ascii", "backslashreplace") for name in list(offered)[:4])


def why_refused(error: Exception) -> str:
    """Why a handshake failed, in a few words for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {problem(error.verify_code)}"
    if isinstance(error, ssl.SSLError):
        if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "certificate: it shows none"
        return f"TLS: {str(error.reason or error).lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError | ConnectionAbortedError):  # the second is uvloop's
        return "TLS: the handshake took too long"
    return f"TLS: {str(error) or 'the connection ended during the handshake'}"


@dataclass(frozen=True)
class Certificate:
    """What tells one peer from another in the certificate that it has shown."""

    fingerprint: bytes
    """SHA-256 of the whole (DER)."""
    names: tuple[str, ...]
    """Its DNS names (lower case); if it has none, its common name (RFC 6125 §6.4.4)."""


def certificate_of(connection: ssl.SSLObject) -> Certificate:
    """The certificate that the other side has shown; the handshake has verified it."""
    der = connection.getpeercert(binary_form=True) or b""
    shown: dict[str, Any] = connection.getpeercert() or {}  # nested tuples that no type describes
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]
    if not names:
        names = [value for part in shown.get("subject", ()) for kind, value in part if kind == "commonName"]
    return Certificate(hashlib.sha256(der).digest(), tuple(name.lower() for name in names))
