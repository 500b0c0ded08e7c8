"""OpenSSL's own contexts, through pyOpenSSL, with the rules of `tls`: Python's `ssl` has no DTLS."""

import hmac
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from radius_bridge.radius import tls


@dataclass
class Handshake:
    """What OpenSSL's callbacks know about a connection: its app_data."""

    name: bytes
    """The peer's sockaddr: cookies are made for it."""
    problem: str = ""
    """What was wrong with the peer's certificate."""


class ForeignProtocol(Exception):
    """The peer speaks another RADIUS than we; `str()` says which. Comes out of `do_handshake`."""


class Contexts:
    """Makes contexts whose cookies hold for one another."""

    def __init__(self) -> None:
        self._cookie_key = secrets.token_bytes(32)

    def make(self, files: tls.Files) -> SSL.Context:
        """A server's context. Raises ValueError if the files cannot be used, OSError that says what is missing."""
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # a resumed session would not be checked again
        try:
            context.use_certificate_chain_file(str(files.certificate))
            context.use_privatekey_file(str(files.key))
            context.load_verify_locations(str(files.ca))
            if files.crl is not None:
                store = context.get_cert_store()
                assert store is not None  # noqa: S101 - every context has one; for the type checker
                store.load_locations(str(files.crl))
                store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
        except (SSL.Error, crypto.Error) as error:
            raise ValueError(f"radsec's certificates cannot be used for DTLS: {error}") from None
        try:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _judge)
            context.set_alpn_select_callback(_choose_protocol)
            context.set_cookie_generate_callback(self._cookie)
            context.set_cookie_verify_callback(lambda c, cookie: hmac.compare_digest(cookie, self._cookie(c)))
        except MemoryError:
            # cffi makes each callback's entry at run time.
            raise OSError("DTLS needs memory to write and execute: set MemoryDenyWriteExecute=no") from None
        return context

    def _cookie(self, connection: SSL.Connection) -> bytes:
        """Proves that a peer hears what is sent to its address (RFC 6347 §4.2.1); nothing is kept for it until then."""
        return hmac.digest(self._cookie_key, connection.get_app_data().name, "sha256")


def _judge(connection: SSL.Connection, _: crypto.X509, code: int, depth: int, good: int) -> bool:
    """OpenSSL's verdict stands; we only note why."""
    if not good:
        connection.get_app_data().problem = f"certificate: {tls.problem(code)}"
    return bool(good)


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if tls.ALPN.encode() in offered:
        return tls.ALPN.encode()
    # RFC 9765 §3: it would speak another RADIUS than we. pyOpenSSL makes of this the alert no_application_protocol.
    raise ForeignProtocol(tls.shown(offered))


def why_failed(connection: SSL.Connection, error: SSL.Error | ForeignProtocol) -> str:
    """Why a handshake failed, in a few words for the log."""
    if isinstance(error, ForeignProtocol):
        return tls.FOREIGN_PROTOCOL
    problem: str = connection.get_app_data().problem
    if problem:
        return problem
    # Of a SysCallError (the peer ended amid a record) the first is an errno.
    reasons = [each[2] for each in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    if "peer did not return a certificate" in reasons:
        return "certificate: it shows none"
    return f"DTLS: {', '.join(reasons) or 'the handshake failed'}"


def certificate_of(connection: SSL.Connection) -> tls.Certificate:
    """The certificate that the other side has shown; the handshake has verified it."""
    shown = connection.get_peer_certificate(as_cryptography=True)
    assert shown is not None  # noqa: S101 - the context demands one; for the type checker
    try:
        alternatives = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    if not names:
        names = [str(each.value) for each in shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tls.Certificate(shown.fingerprint(hashes.SHA256()), tuple(name.lower() for name in names))
