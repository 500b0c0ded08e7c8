"""What is fuzzed over real sockets: the reader of batches, and DTLS from its first datagram to a client's packets."""

import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from OpenSSL import SSL

from radius_bridge.radius import tls
from radius_bridge.radius.batches import Receiver
from radius_bridge.radius.clients import Clients
from radius_bridge.radius.dtls import Dtls
from radius_bridge.radius.packet import MAX_LENGTH
from radius_bridge.radius.secured import Limits
from radius_bridge.radius.service import Service
from soak.targets import CLIENT
from tests.lab.pki import Authority

_FLIGHTS = 3
"""After so many of the peer's flights the handshake is over: hello, hello with the cookie, certificate."""

_STEPS = 8


class Batches:
    """Two sockets: what goes into one comes out of the other, by the reader of batches."""

    def __init__(self) -> None:
        self._here, self._there = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self._here.bind(("127.0.0.1", 0))
        self._here.setblocking(False)
        self._there.bind(("127.0.0.1", 0))
        self._there.connect(self._here.getsockname())
        self._receiver = Receiver()

    def carry(self, datagrams: list[bytes]) -> None:
        """Sends a few datagrams. Raises AssertionError if they come out as others."""
        for datagram in datagrams:
            self._there.send(datagram)
        received = self._receiver.receive(self._here.fileno())
        assert [data for data, _, _ in received] == [datagram[:MAX_LENGTH] for datagram in datagrams]
        port = self._there.getsockname()[1]
        assert all(int.from_bytes(name[2:4]) == port for _, name, _ in received)

    def close(self) -> None:
        """Closes both."""
        self._here.close()
        self._there.close()


class Sessions:
    """A DTLS listener, and a peer whose datagrams are changed at some point of its handshake or after it."""

    def __init__(self, service: Service, random: Random, change: Callable[[bytes], bytes]) -> None:
        """`change` is what happens to a datagram. Needs a running event loop; a context leaves nothing behind."""
        self._random = random
        self._change = change
        self._folder = tempfile.TemporaryDirectory(prefix="rb-fuzz-")
        authority = Authority(Path(self._folder.name))
        ours, peers = authority.issue("ours", "bridge.example.org"), authority.issue("peer", "peer.example.org")
        files = tls.Files(ours.certificate, ours.key, authority.certificate, authority.crl)
        clients = Clients([replace(CLIENT, address=None, certificate_name="peer.example.org")])
        self._server = Dtls("127.0.0.1", 0, tls.load(files), clients, service, Limits(connections=64))
        self._context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        self._context.use_certificate_file(str(peers.certificate))
        self._context.use_privatekey_file(str(peers.key))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        host, port = self._socket.getsockname()
        name = socket.AF_INET.to_bytes(2, sys.byteorder) + port.to_bytes(2) + socket.inet_aton(host) + bytes(8)
        self._where = (name, b"")
        self.established = 0
        """Sessions whose handshake was over before something was changed."""

    def attack(self, packets: list[bytes]) -> None:
        """One session: a handshake up to some point as it should be, then changed datagrams; then it is forgotten."""
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        connection.set_ciphertext_mtu(1400)
        with suppress(SSL.Error):
            for step in range(self._random.randrange(_STEPS)):
                self._shake(connection, as_it_is=True)
                if step >= _FLIGHTS and self._server.open:
                    self.established += 1
                    self._talk(connection, packets)
                    break
            for _ in range(3):
                self._shake(connection, as_it_is=False)
        for session in list(self._server.sessions.values()):
            session.leave()

    def _shake(self, connection: SSL.Connection, *, as_it_is: bool) -> None:
        with suppress(SSL.WantReadError):
            connection.do_handshake()
        self._pass_on(connection, as_it_is=as_it_is)
        with suppress(BlockingIOError):
            while True:
                connection.bio_write(self._socket.recv(1 << 16))

    def _talk(self, connection: SSL.Connection, packets: list[bytes]) -> None:
        for packet in packets:
            connection.send(packet[:MAX_LENGTH] or b"\0")
            self._pass_on(connection, as_it_is=self._random.random() < 0.5)

    def _pass_on(self, connection: SSL.Connection, *, as_it_is: bool) -> None:
        try:
            flight = connection.bio_read(1 << 16)
        except SSL.WantReadError:
            flight = b""
        self._server.take(flight if as_it_is else self._change(flight), self._where)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._server.shut()
        self._socket.close()
        self._folder.cleanup()
