"""RADIUS over TLS, "RadSec" (RFC 6614), and what it takes from RADIUS over TCP (RFC 6613)."""

import asyncio
import itertools
import socket
import ssl
import time
from typing import cast

from radius_bridge import metrics
from radius_bridge.radius import sockets, tls
from radius_bridge.radius.clients import Client, Clients
from radius_bridge.radius.packet import HEADER, MAX_LENGTH
from radius_bridge.radius.seldom import SeldomLog
from radius_bridge.radius.service import Drop, Service

CONNECTIONS = 1024
"""Connections at once, in handshake or after it; more are closed as they come."""

HANDSHAKE = 5.0
"""Seconds that a handshake may take."""

IDLE = 900.0
"""Seconds without a packet after which a connection is closed. Peers ask Status-Server more often than that."""

_CLOSING = {Drop.MALFORMED, Drop.WRONG_SECRET}
"""RFC 6613 §2.6.4: after these nobody knows where the next packet begins, or who sends it."""

_numbers = itertools.count()


class Radsec:
    """One listening TCP socket and its connections. Needs a running event loop; closed by `shut`."""

    def __init__(
        self,
        host: str,
        port: int,
        made: tls.Tls,
        clients: Clients,
        service: Service,
        *,
        connections: int = CONNECTIONS,
        handshake: float = HANDSHAKE,
        idle: float = IDLE,
    ) -> None:
        """Opens a numeric address and a port (0: any). Raises OSError that names it."""
        self._socket = sockets.open_tcp(host, port)
        self._tls = made
        self.clients = clients
        self.service = service
        self._limit = connections
        self._handshake = handshake
        self.idle = idle
        self._handshakes: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        """All of them, from before the handshake to the end."""
        self.open: set[_Connection] = set()
        """Those of known clients."""
        self.log = SeldomLog()
        self._accepting = asyncio.create_task(self._accept(), name="radsec")

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that are open."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def reload(self, made: tls.Tls, clients: Clients) -> None:
        """New connections meet these. Who is no client any more goes; if the certificates or CRLs are others, all go.

        They come again and are checked anew; what they have no answer for, they send again.
        """
        anew = made.digest != self._tls.digest
        self._tls = made
        self.clients = clients
        for connection in list(self.open):
            if anew or not connection.recognise():
                connection.close("configuration changed")

    def close(self) -> None:
        """Takes no more connections and reads no more from those there are."""
        self._accepting.cancel()
        for task in self._handshakes:
            task.cancel()
        for connection in self.open:
            connection.pause()

    def shut(self) -> None:
        """Closes everything; what was sent is still delivered. Call `close` first."""
        for connection in list(self.open):
            connection.close("shutting down")
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(self._socket)
            except OSError as error:
                # Such as too many open files: those who wait are served when others have gone.
                self._refuse("", f"accept: {error.strerror}")
                await asyncio.sleep(0.1)
                continue
            if len(self._connections) >= self._limit:
                self._refuse(sockets.endpoint(*peer[:2]), "too many connections")
                sock.close()
                continue
            connection = _Connection(self, sockets.endpoint(*peer[:2]))
            self._connections.add(connection)
            task = asyncio.create_task(self._welcome(sock, connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _welcome(self, sock: socket.socket, connection: "_Connection") -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._tls.context,
                ssl_handshake_timeout=self._handshake,
                ssl_shutdown_timeout=1.0,
            )
        except (ssl.SSLError, OSError) as error:
            self._connections.discard(connection)
            self._refuse(connection.peer, tls.why_refused(error))

    def gone(self, connection: "_Connection") -> None:
        """Makes room for another one."""
        self._connections.discard(connection)
        self.open.discard(connection)

    def _refuse(self, peer: str, reason: str) -> None:
        metrics.CONNECTIONS["refused"] += 1
        if self.log.is_due(("refused", reason)):
            self.log.warning("RadSec peer refused", source=peer, reason=reason)

    def refuse_stranger(self, peer: str, certificate: tls.Certificate) -> None:
        """Counts and logs somebody whose certificate is good and no client's."""
        metrics.CONNECTIONS["refused"] += 1
        if self.log.is_due("stranger"):
            self.log.warning(
                "RadSec peer refused",
                source=peer,
                reason="no client has this certificate",
                certificate_names=certificate.names,
                fingerprint=certificate.fingerprint.hex(),
            )


class _Connection(asyncio.Protocol):
    """One connection: a client, its packets one after the other, and their responses in any order."""

    def __init__(self, server: Radsec, peer: str) -> None:
        self._server = server
        self.peer = peer
        self._number = next(_numbers)
        self._buffer = bytearray()
        self._last = time.monotonic()
        self._client: Client | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has its methods and not its class
        self._certificate = tls.certificate_of(transport.get_extra_info("ssl_object"))
        if not self.recognise():
            self._server.refuse_stranger(self.peer, self._certificate)
            self._transport.abort()
            return
        metrics.CONNECTIONS["accepted"] += 1
        self._server.open.add(self)
        self._watch_idle()

    def recognise(self) -> bool:
        """Looks up whose certificate it is; False if it is no client's."""
        clients = self._server.clients
        self._client = clients.with_certificate(self._certificate.fingerprint, self._certificate.names)
        return self._client is not None

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        self._last = now = time.monotonic()
        arrival = time.time()
        service = self._server.service
        while len(buffer) >= 4 and self._client is not None:
            length = int.from_bytes(buffer[2:4])
            if not HEADER <= length <= MAX_LENGTH:
                service.drop(Drop.MALFORMED, self, None, self._client.name, f"a Length of {length}")
                return self.close(Drop.MALFORMED)
            if len(buffer) < length:
                break
            packet = bytes(buffer[:length])
            del buffer[:length]
            dropped = service.receive(packet, self._client, self, None, self._number, now, arrival)
            if dropped in _CLOSING:
                return self.close(dropped)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._client = None
        self._server.gone(self)

    def pause_writing(self) -> None:
        # It does not read its responses: then we read no more of its requests.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._paused:
            self._transport.resume_reading()

    def pause(self) -> None:
        """Reads no more, for good."""
        self._paused = True
        self._transport.pause_reading()

    def send(self, response: bytes, where: None) -> None:
        """Sends a response, unless the connection is gone: the peer repeats its request on another one."""
        if not self._transport.is_closing():
            self._transport.write(response)

    def name(self, where: None) -> str:
        """Address and port of the peer."""
        return self.peer

    def close(self, reason: str) -> None:
        """Closes the connection after what was sent, and says why."""
        metrics.CONNECTIONS["closed"] += 1
        client = "" if self._client is None else self._client.name
        if self._server.log.is_due(("closed", reason, client)):
            self._server.log.warning("RadSec connection closed", source=self.peer, client=client, reason=str(reason))
        self._client = None
        self._server.open.discard(self)
        self._transport.close()

    def _watch_idle(self) -> None:
        if self._client is None:
            return
        left = self._last + self._server.idle - time.monotonic()
        if left <= 0:
            self.close("idle")
        else:
            asyncio.get_running_loop().call_later(left, self._watch_idle)
