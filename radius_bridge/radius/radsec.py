"""RADIUS over TLS, "RadSec" (RFC 6614), and what it takes from RADIUS over TCP (RFC 6613)."""

import asyncio
import itertools
import socket
import ssl
import time
from collections.abc import Mapping
from typing import cast

from radius_bridge.radius import hello, sockets, tls
from radius_bridge.radius.clients import Clients
from radius_bridge.radius.framing import Frames
from radius_bridge.radius.packet import Malformed
from radius_bridge.radius.secured import CLOSING, DEFAULT_LIMITS, Limits, Secured, SecuredPeer
from radius_bridge.radius.service import Drop, Service, moment

_numbers = itertools.count()


class Radsec(Secured):
    """One listening TCP socket and its connections. Needs a running event loop; closed by `shut`."""

    def __init__(
        self, host: str, port: int, made: tls.Tls, clients: Clients, service: Service, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Opens a numeric address and a port (0: any). Raises OSError that names it."""
        super().__init__("RadSec", made, clients, service, limits)
        self._socket = sockets.open_tcp(host, port)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        """All of them, from before the handshake to the end."""
        self._accepting = asyncio.create_task(self._accept(), name="radsec")

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that are open."""
        return sockets.local_address(self._socket)

    @property
    def pending(self) -> int:
        """Handshakes that are not over."""
        return len(self._handshakes)

    def close(self) -> None:
        """Takes no more connections and reads no more from those there are."""
        self._accepting.cancel()
        for task in self._handshakes:
            task.cancel()
        for connection in self._connections:
            connection.pause()

    def shut(self) -> None:
        """Closes everything; what was sent is still delivered. Call `close` first."""
        for peer in list(self.open):
            peer.close("shutting down")
        self._socket.close()

    def gone(self, connection: "_Connection") -> None:
        """Makes room for another one."""
        self._connections.discard(connection)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(self._socket)
            except OSError as error:
                # Such as too many open files: those who wait are served when others have gone.
                self.refuse("", f"accept: {error.strerror}")
                await asyncio.sleep(0.1)
                continue
            host, port = peer[:2]
            if not self.admits(host, len(self._connections)):
                sock.close()
                continue
            connection = _Connection(self, host, port)
            self._connections.add(connection)
            task = asyncio.create_task(self._welcome(sock, connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _welcome(self, sock: socket.socket, connection: "_Connection") -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.handshake
        try:
            names = await self._read_hello(sock)
            if names and tls.ALPN.encode() not in names:
                # RFC 9765 §3: it would speak another RADIUS than we.
                sock.send(hello.NO_APPLICATION_PROTOCOL)
                sock.recv(hello.LONGEST)  # what is left unread would reset the connection, and the alert be lost
                return self._turn_away(sock, connection, tls.FOREIGN_PROTOCOL, {"offered": tls.shown(names)})
            await loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self.tls.context,
                ssl_handshake_timeout=max(0.01, deadline - loop.time()),
                ssl_shutdown_timeout=1.0,
            )
        except (ssl.SSLError, OSError) as error:
            self._turn_away(sock, connection, tls.why_refused(error))
        except asyncio.CancelledError:
            sock.close()
            raise

    def _turn_away(
        self, sock: socket.socket, connection: "_Connection", reason: str, more: Mapping[str, object] | None = None
    ) -> None:
        sock.close()
        connection.leave()
        self.gone(connection)
        self.refuse(connection.source, reason, more)

    async def _read_hello(self, sock: socket.socket) -> tuple[bytes, ...]:
        """The protocols that the peer offers; its octets stay in the socket. Raises TimeoutError, OSError."""
        octets = b""
        try:
            async with asyncio.timeout(self.limits.handshake):
                while (names := hello.offered(octets)) is None:
                    before = len(octets)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, before + 1)
                    await _readable(sock)
                    octets = sock.recv(hello.LONGEST, socket.MSG_PEEK)
                    if len(octets) == before:  # it ends here
                        return ()
                return names
        finally:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, lambda: None if readable.done() else readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(sock)


class _Connection(SecuredPeer, asyncio.Protocol):
    """One connection: a client, its packets one after the other, and their responses in any order."""

    def __init__(self, server: Radsec, host: str, port: int) -> None:
        super().__init__(server, host, port)
        self._server = server
        self._number = next(_numbers)
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has its methods and not its class
        if self.enter(tls.certificate_of(transport.get_extra_info("ssl_object"))):
            self._watch_idle()
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        now, arrival = moment()
        self._last = now
        service = self._server.service
        client = self.client
        if client is None:
            return None
        try:
            for packet in self._frames.feed(data):
                dropped = service.receive(packet, client, self, None, self._number, now, arrival)
                if dropped in CLOSING:
                    return self.close(str(dropped))
                if dropped is Drop.NOT_ACCOUNTING:
                    self.decline(packet, None)
        except Malformed as error:
            service.drop(Drop.MALFORMED, self, None, client.name, error)
            return self.close(Drop.MALFORMED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.gone(self)
        self.leave()
        if self._idle is not None:
            self._idle.cancel()  # or it would keep us, and TLS' buffers, for its quarter of an hour

    def pause_writing(self) -> None:
        # It does not read its responses: then we read no more of its requests.
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._paused:
            self._transport.resume_reading()

    def pause(self) -> None:
        """Reads no more, for good."""
        self._paused = True
        if self._transport is not None and self.client is not None:
            self._transport.pause_reading()

    def send(self, response: bytes, where: None) -> None:
        """Sends a response, unless the connection is gone: the peer repeats its request on another one."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(response)

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _watch_idle(self) -> None:
        if self.client is None:
            return
        left = self._last + self._server.limits.idle - time.monotonic()
        if left <= 0:
            self.close("idle")
        else:
            self._idle = asyncio.get_running_loop().call_later(left, self._watch_idle)
