"""RADIUS over DTLS (RFC 7360), by OpenSSL through pyOpenSSL: Python's own `ssl` has no DTLS."""

import asyncio
import hmac
import os
import secrets
import time
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from radius_bridge import metrics
from radius_bridge.radius import sockets, tls
from radius_bridge.radius.batches import Datagram, Receiver, Sender
from radius_bridge.radius.clients import Client, Clients
from radius_bridge.radius.seldom import SeldomLog
from radius_bridge.radius.service import Drop, Service

SECRET = b"radius/dtls"
"""The shared secret inside DTLS unless another is agreed (RFC 7360 §2.1)."""

SESSIONS = 1024
"""Sessions at once, in handshake or after it; more are not begun."""

HANDSHAKE = 5.0
"""Seconds that a handshake may take, lost datagrams included."""

IDLE = 900.0
"""Seconds without a packet after which a session is forgotten."""

_TICK = 0.25
"""Seconds between two looks at what waits: handshakes to repeat, sessions to forget."""

_MTU = 1400
"""Octets of a datagram with a part of the handshake. A RADIUS packet is one record, whatever its size."""

_RECORD = 13
"""Octets of a record's header; the last two are the length of what follows (RFC 6347 §4.1)."""

_CLIENT_HELLO = (22, b"\0\0")
"""Content type and epoch of what begins a new handshake."""

Where = tuple[bytes, bytes]
"""The peer's sockaddr, and the control message that chooses the address to answer from."""


@dataclass
class _Handshake:
    """What OpenSSL's callbacks know about a connection."""

    name: bytes
    """The peer's sockaddr: cookies are made for it."""
    problem: str = ""
    """What was wrong with the peer's certificate."""


class Dtls:
    """One UDP socket and its DTLS sessions. Needs a running event loop; closed by `shut`."""

    def __init__(
        self,
        host: str,
        port: int,
        made: tls.Tls,
        clients: Clients,
        service: Service,
        *,
        limit: int = SESSIONS,
        handshake: float = HANDSHAKE,
        idle: float = IDLE,
    ) -> None:
        """Opens a numeric address and a port (0: any). Raises OSError that says why not, ValueError like `tls.load`."""
        self._cookie_key = secrets.token_bytes(32)
        self._tls = made
        self._context = self._make_context(made.files)
        self._socket = sockets.open_udp(host, port)
        self._clients = clients
        self.service = service
        self._limit = limit
        self._handshake = handshake
        self._idle = idle
        self._receiver = Receiver()
        self._sender = Sender()
        self.sessions: dict[bytes, _Session] = {}
        """By the peer's sockaddr."""
        self.log = SeldomLog()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)
        self._timer = self._loop.call_later(_TICK, self._tick)

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that are open."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def reload(self, made: tls.Tls, clients: Clients) -> None:
        """As `Radsec.reload`. Raises ValueError if the files cannot be used; then nothing has changed."""
        anew = made.digest != self._tls.digest
        if anew:
            self._context = self._make_context(made.files)
        self._tls = made
        self._clients = clients
        for session in list(self.sessions.values()):
            if session.client is not None and (anew or not session.recognise()):
                session.close("configuration changed")

    def close(self) -> None:
        """Stops reading; what is in flight can still be answered."""
        self._loop.remove_reader(self._socket)
        self._timer.cancel()

    def shut(self) -> None:
        """Takes leave of the peers and closes the socket. Call `close` first."""
        for session in list(self.sessions.values()):
            session.close("shutting down")
        self._socket.close()

    def find(self, certificate: tls.Certificate) -> Client | None:
        """The client with this certificate, with the secret that DTLS has by default."""
        client = self._clients.with_certificate(certificate.fingerprint, certificate.names)
        return replace(client, secret=SECRET) if client is not None and client.secret == tls.SECRET else client

    def refuse(self, peer: str, reason: str) -> None:
        """Counts and logs somebody who did not become a client's session."""
        metrics.CONNECTIONS["refused"] += 1
        if self.log.is_due(("refused", reason)):
            self.log.warning("DTLS peer refused", source=peer, reason=reason)

    def transmit(self, connection: SSL.Connection, where: Where) -> None:
        """Sends what OpenSSL has to say, records together as far as they fit into a datagram."""
        try:
            octets = connection.bio_read(1 << 20)
        except SSL.WantReadError:
            return
        datagrams: list[Datagram] = []
        datagram = b""
        while octets:
            size = _RECORD + int.from_bytes(octets[_RECORD - 2 : _RECORD])
            if datagram and len(datagram) + size > _MTU:
                datagrams.append((datagram, *where))
                datagram = b""
            datagram += octets[:size]
            octets = octets[size:]
        datagrams.append((datagram, *where))
        if self._socket.fileno() >= 0:
            for _, error in self._sender.send(self._socket.fileno(), datagrams):
                metrics.SEND_ERRORS.inc()
                if self.log.is_due("send"):
                    self.log.warning("response not sent", peer=sockets.endpoint_of(where[0]), error=os.strerror(error))

    def _make_context(self, files: tls.Files) -> SSL.Context:
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

    def _readable(self) -> None:
        try:
            received = self._receiver.receive(self._socket.fileno())
        except OSError as error:
            if self.log.is_due("receive"):
                self.log.warning("receive failed", error=str(error))
            return
        for data, name, control in received:
            where = (name, sockets.read_control(control).reply)
            session = self.sessions.get(name)
            is_hello = len(data) >= _RECORD and (data[0], data[3:5]) == _CLIENT_HELLO
            if session is not None and (session.client is None or not is_hello):
                session.receive(data)
            elif is_hello:
                # On a session that stands, it is a peer that has forgotten it (RFC 6347 §4.2.8).
                self._welcome(data, where)

    def _welcome(self, data: bytes, where: Where) -> None:
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(_Handshake(where[0]))
        connection.set_accept_state()
        connection.set_ciphertext_mtu(_MTU)
        connection.bio_write(data)
        try:
            connection.DTLSv1_listen()
        except SSL.WantReadError:
            return self.transmit(connection, where)  # HelloVerifyRequest: it comes again with the cookie
        except SSL.Error:
            return self.refuse(sockets.endpoint_of(where[0]), "DTLS: no ClientHello")
        forgotten = self.sessions.get(where[0])
        if forgotten is not None:
            forgotten.forget()
        if len(self.sessions) >= self._limit:
            return self.refuse(sockets.endpoint_of(where[0]), "too many sessions")
        session = self.sessions[where[0]] = _Session(self, connection, where, time.monotonic() + self._handshake)
        return session.advance()

    def _tick(self) -> None:
        now = time.monotonic()
        for session in list(self.sessions.values()):
            session.tick(now, self._idle)
        self._timer = self._loop.call_later(_TICK, self._tick)


class _Session:
    """One peer: a handshake, then a client's packets, one in each record (RFC 7360 §5)."""

    def __init__(self, server: Dtls, connection: SSL.Connection, where: Where, deadline: float) -> None:
        self._server = server
        self._connection = connection
        self._where = where
        self._deadline = deadline
        self._last = time.monotonic()
        self._certificate: tls.Certificate | None = None
        self.client: Client | None = None
        """Whose it is, once the handshake is over."""

    def receive(self, data: bytes) -> None:
        """Takes a datagram."""
        self._connection.bio_write(data)
        self.advance()

    def advance(self) -> None:
        """Goes as far as what was received allows."""
        if self.client is None and not self._shake_hands():
            return None
        now = time.monotonic()
        arrival = time.time()
        while self.client is not None:
            try:
                packet = self._connection.recv(1 << 14)
            except SSL.WantReadError:
                break
            except SSL.Error:  # close_notify, or what is no DTLS
                return self.forget()
            self._last = now
            dropped = self._server.service.receive(packet, self.client, self, self._where, self._where[0], now, arrival)
            if dropped in (Drop.MALFORMED, Drop.WRONG_SECRET):
                return self.close(dropped)
        return self._server.transmit(self._connection, self._where)

    def _shake_hands(self) -> bool:
        """True if the handshake is over and the peer a client."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._server.transmit(self._connection, self._where)
            return False
        except SSL.Error as error:
            self._server.transmit(self._connection, self._where)  # the alert
            self.forget()
            problem = self._connection.get_app_data().problem or _no_certificate(error)
            self._server.refuse(self.name(self._where), problem)
            return False
        shown = self._connection.get_peer_certificate(as_cryptography=True)
        assert shown is not None  # noqa: S101 - the context demands one; for the type checker
        self._certificate = _certificate(shown)
        if not self.recognise():
            self.forget()
            self._server.refuse(self.name(self._where), "no client has this certificate")
            return False
        metrics.CONNECTIONS["accepted"] += 1
        return True

    def recognise(self) -> bool:
        """Looks up whose certificate it is; False if it is no client's."""
        self.client = None if self._certificate is None else self._server.find(self._certificate)
        return self.client is not None

    def tick(self, now: float, idle: float) -> None:
        """Repeats what was lost of a handshake; forgets who is silent."""
        if self.client is None:
            if now > self._deadline:
                self.forget()
                self._server.refuse(self.name(self._where), "DTLS: the handshake took too long")
            elif self._connection.DTLSv1_handle_timeout():
                self._server.transmit(self._connection, self._where)
        elif now > self._last + idle:
            self.close("idle")

    def send(self, response: bytes, where: Where) -> None:
        """Sends a response, unless the session is gone: the peer repeats its request."""
        if self.client is None:
            return
        try:
            self._connection.send(response)
        except SSL.Error:
            metrics.SEND_ERRORS.inc()
            return
        self._server.transmit(self._connection, self._where)

    def name(self, where: Where) -> str:
        """Address and port of the peer."""
        return sockets.endpoint_of(where[0])

    def forget(self) -> None:
        """Keeps nothing of the session."""
        self.client = None
        if self._server.sessions.get(self._where[0]) is self:
            del self._server.sessions[self._where[0]]

    def close(self, reason: str) -> None:
        """Tells the peer that the session is over, and the log why."""
        metrics.CONNECTIONS["closed"] += 1
        client = "" if self.client is None else self.client.name
        if self._server.log.is_due(("closed", reason, client)):
            peer = self.name(self._where)
            self._server.log.warning("DTLS session closed", source=peer, client=client, reason=str(reason))
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass  # in the middle of a handshake there is nothing to take leave of
        else:
            self._server.transmit(self._connection, self._where)
        self.forget()


def _judge(connection: SSL.Connection, _: crypto.X509, code: int, depth: int, good: int) -> bool:
    """OpenSSL's verdict stands; we only note why."""
    if not good:
        connection.get_app_data().problem = f"certificate: {tls.problem(code)}"
    return bool(good)


def _choose_protocol(_: SSL.Connection, offered: list[bytes]) -> bytes:
    ours = tls.ALPN.encode()
    # RFC 9765 §3: one that offers nothing we speak is refused, or it would speak another RADIUS than we.
    return ours if ours in offered else b""


def _no_certificate(error: SSL.Error) -> str:
    reasons = [reason for _, _, reason in error.args[0]] if error.args else []
    if "peer did not return a certificate" in reasons:
        return "certificate: it shows none"
    return f"DTLS: {', '.join(reasons) or 'the handshake failed'}"


def _certificate(shown: x509.Certificate) -> tls.Certificate:
    try:
        alternatives = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    if not names:
        names = [str(each.value) for each in shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tls.Certificate(shown.fingerprint(hashes.SHA256()), tuple(name.lower() for name in names))
