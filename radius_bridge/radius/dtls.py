"""RADIUS over DTLS (RFC 7360), by OpenSSL through pyOpenSSL."""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import replace

import structlog
from OpenSSL import SSL

from radius_bridge import metrics
from radius_bridge.radius import openssl, sockets, tls
from radius_bridge.radius.batches import Datagram, Receiver, Sender
from radius_bridge.radius.clients import Client, Clients
from radius_bridge.radius.secured import CLOSING, DEFAULT_LIMITS, Limits, Secured, SecuredPeer
from radius_bridge.radius.service import Drop, Service, moment

SECRET = b"radius/dtls"
"""The shared secret inside DTLS unless another is agreed (RFC 7360 §2.1)."""

_TICK = 0.25
"""Seconds between two looks at what waits: handshakes to repeat, sessions to forget."""

_MTU = 1400
"""Octets of a datagram with a part of the handshake. A RADIUS packet is one record, whatever its size."""

_RECORD = 13
"""Octets of a record's header; the last two are the length of what follows (RFC 6347 §4.1)."""

_ROOM = 1 << 16
"""Octets of a datagram that comes: a packet of 4,096 in its record, or all certificates at once on a jumbo network."""

_CLIENT_HELLO = (22, b"\0\0")
"""Content type and epoch of what begins a new handshake."""

Where = tuple[bytes, bytes]
"""The peer's sockaddr, and the control message that chooses the address to answer from."""


class Dtls(Secured):
    """One UDP socket and its DTLS sessions. Needs a running event loop; closed by `shut`."""

    def __init__(
        self, host: str, port: int, made: tls.Tls, clients: Clients, service: Service, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Opens a numeric address and a port (0: any). Raises OSError that says why not, ValueError like `tls.load`."""
        super().__init__("DTLS", made, clients, service, limits)
        self._contexts = openssl.Contexts()
        self._context = self._contexts.make(made.files)
        self._socket = sockets.open_udp(host, port)
        self._receiver = Receiver(_ROOM)
        self._sender = Sender(_ROOM)
        self.sessions: dict[bytes, _Session] = {}
        """All of them, from the handshake to the end, by the peer's sockaddr."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)
        self._timer = self._loop.call_later(_TICK, self._tick)

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that are open."""
        return sockets.local_address(self._socket)

    def context(self, made: tls.Tls) -> SSL.Context:
        """What new sessions would meet with these certificates. Raises ValueError if the files cannot be used."""
        return self._context if made.digest == self.tls.digest else self._contexts.make(made.files)

    def reload(self, made: tls.Tls, clients: Clients, context: SSL.Context | None = None) -> None:
        """As `Secured.reload`, with what `context` gave, if that was asked already.

        Raises ValueError if the files cannot be used; then nothing has changed.
        """
        self._context = context or self.context(made)
        super().reload(made, clients)

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
        client = super().find(certificate)
        return replace(client, secret=SECRET) if client is not None and client.secret == tls.SECRET else client

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

    def take(self, data: bytes, where: Where) -> None:
        """Takes a datagram, whatever is in it."""
        if len(data) < _RECORD:
            return
        session = self.sessions.get(where[0])
        is_hello = (data[0], data[3:5]) == _CLIENT_HELLO
        if session is not None and (session.client is None or not is_hello):
            session.receive(data)
        elif is_hello:
            # On a session that stands, it is a peer that has forgotten it (RFC 6347 §4.2.8).
            self._welcome(data, where)

    def _readable(self) -> None:
        try:
            received = self._receiver.receive(self._socket.fileno())
        except OSError as error:
            if self.log.is_due("receive"):
                self.log.warning("receive failed", error=str(error))
            return
        for data, name, control in received:
            try:
                self.take(data, (name, sockets.read_control(control).reply))
            except Exception:
                # Whatever a datagram provoked, the next one must be served.
                structlog.get_logger().exception("datagram failed", source=sockets.endpoint_of(name))
                metrics.DROPPED[Drop.FAILED] += 1

    def _welcome(self, data: bytes, where: Where) -> None:
        host, port = sockets.host_and_port(where[0])
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(openssl.Handshake(where[0]))
        connection.set_accept_state()
        connection.set_ciphertext_mtu(_MTU)
        connection.bio_write(data)
        try:
            connection.DTLSv1_listen()
        except SSL.WantReadError:
            return self.transmit(connection, where)  # HelloVerifyRequest: it comes again with the cookie
        except SSL.Error:
            return self.refuse(host, "DTLS: no ClientHello")
        forgotten = self.sessions.get(where[0])
        if forgotten is not None:
            forgotten.leave()
        if self.admits(host, len(self.sessions)):
            session = self.sessions[where[0]] = _Session(self, connection, where, host, port)
            session.advance()
        return None

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_TICK, self._tick)  # first: whatever a session does, the others need it
        now = time.monotonic()
        for session in list(self.sessions.values()):
            session.tick(now)


class _Session(SecuredPeer):
    """One peer: a handshake, then a client's packets, one in each record (RFC 7360 §5)."""

    def __init__(self, server: Dtls, connection: SSL.Connection, where: Where, host: str, port: int) -> None:
        super().__init__(server, host, port)
        self._server = server
        self._connection = connection
        self._where = where
        self._deadline = time.monotonic() + server.limits.handshake

    def receive(self, data: bytes) -> None:
        """Takes a datagram."""
        self._connection.bio_write(data)
        self.advance()

    def advance(self) -> None:
        """Goes as far as what was received allows."""
        if self.client is None and not self._shake_hands():
            return None
        now, arrival = moment()
        while self.client is not None:
            try:
                packet = self._connection.recv(1 << 14)
            except SSL.WantReadError:
                break
            except SSL.Error:  # close_notify, or what is no DTLS
                return self.leave()
            self._last = now
            dropped = self._server.service.receive(packet, self.client, self, self._where, self._where[0], now, arrival)
            if dropped in CLOSING:
                return self.close(str(dropped))
            if dropped is Drop.NOT_ACCOUNTING:
                self.decline(packet, self._where)
        return self._server.transmit(self._connection, self._where)

    def _shake_hands(self) -> bool:
        """True if the handshake is over and the peer a client."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._server.transmit(self._connection, self._where)
            return False
        except (SSL.Error, openssl.ForeignProtocol) as error:
            self._server.transmit(self._connection, self._where)  # the alert
            self.leave()
            more = {"offered": str(error)} if isinstance(error, openssl.ForeignProtocol) else None
            self._server.refuse(self.source, openssl.why_failed(self._connection, error), more)
            return False
        if not self.enter(openssl.certificate_of(self._connection)):
            self.leave()
            return False
        return True

    def tick(self, now: float) -> None:
        """Repeats what was lost of a handshake; forgets who is silent."""
        if self.client is None:
            if now > self._deadline:
                self.leave()
                self._server.refuse(self.source, "DTLS: the handshake took too long")
            else:
                with suppress(SSL.Error):  # it has been repeated often enough; the deadline ends it
                    self._connection.DTLSv1_handle_timeout()
                self._server.transmit(self._connection, self._where)
        elif now > self._last + self._server.limits.idle:
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

    def leave(self) -> None:
        """Keeps nothing of the session."""
        super().leave()
        if self._server.sessions.get(self._where[0]) is self:
            del self._server.sessions[self._where[0]]

    def _hang_up(self) -> None:
        try:
            self._connection.shutdown()
        except SSL.Error:
            return  # in the middle of a handshake there is nothing to take leave of
        self._server.transmit(self._connection, self._where)
