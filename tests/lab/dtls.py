"""A small RADIUS/DTLS client for tests: pyOpenSSL over a socket that does not block."""

import socket
from pathlib import Path

from OpenSSL import SSL

from tests.lab.pki import Identity


class DtlsPeer:
    """One session with a server. Nothing blocks: call `shake_hands` and `hear` until they tell."""

    def __init__(
        self, server: tuple[str, int], ca: Path, identity: Identity | None, alpn: tuple[bytes, ...] = ()
    ) -> None:
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        if alpn:
            context.set_alpn_protos(list(alpn))
        context.load_verify_locations(str(ca))
        context.set_verify(SSL.VERIFY_PEER, lambda c, x, code, depth, good: bool(good))
        if identity is not None:
            context.use_certificate_chain_file(str(identity.certificate))
            context.use_privatekey_file(str(identity.key))
        self._context = context
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(server)
        self.restart()

    def restart(self) -> None:
        """Forgets the session, as a peer that was restarted does; the port stays."""
        self._connection = SSL.Connection(self._context, None)
        self._connection.set_connect_state()
        self._connection.set_ciphertext_mtu(1400)

    def pump(self) -> None:
        """Carries octets both ways."""
        while True:
            try:
                self._connection.bio_write(self.socket.recv(65536))
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                break
        self.flush()

    def flush(self) -> None:
        """Sends what OpenSSL has to say: a flight in one datagram, which loopback carries."""
        try:
            self.socket.send(self._connection.bio_read(65536))
        except SSL.WantReadError:
            return

    def shake_hands(self) -> bool:
        """One step; True when the handshake is over. Raises SSL.Error when it failed."""
        self.pump()
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self.flush()
            return False
        self.flush()
        return True

    def send(self, packet: bytes) -> None:
        """Sends one packet, in one record."""
        self._connection.send(packet)
        self.flush()

    def hear(self) -> bytes | None:
        """The next packet; None if there is none yet. Raises SSL.ZeroReturnError when the server has closed."""
        self.pump()
        try:
            packet: bytes = self._connection.recv(4096)
        except SSL.WantReadError:
            return None
        return packet

    def close(self) -> None:
        """Closes the socket, without a word to the server."""
        self.socket.close()
