"""A controller that restarts: all its stations' packets at once, and each again until it is answered."""

import itertools
import selectors
import socket
import time
from collections.abc import Sequence

from tests.lab.radius_client import is_response

BUFFER = 8 << 20


class Burst:
    """Sends packets from as many ports as 256 identifiers each need. Close it after use."""

    def __init__(self, server: tuple[str, int], packets: Sequence[bytes], secret: bytes) -> None:
        """`packets` are Accounting-Requests whose identifiers count up from 0, modulo 256."""
        self._server = server
        self._secret = secret
        self._sockets: list[socket.socket] = []
        self._open: list[dict[int, bytes]] = []
        for first in range(0, len(packets), 256):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            sock.setblocking(False)
            sock.connect(server)
            self._sockets.append(sock)
            self._open.append({packet[1]: packet for packet in packets[first : first + 256]})
        self.sent = 0
        """Packets sent, repetitions included."""
        self.responses = 0
        """Genuine responses, those to repetitions included."""

    def send(self) -> None:
        """Sends all that is not answered, as fast as it goes."""
        for sock, left in zip(self._sockets, self._open, strict=True):
            for packet in left.values():
                sock.send(packet)
                self.sent += 1

    def hear(self, seconds: float) -> int:
        """Reads responses until all are there or the time is over; gives the number of packets not answered."""
        with selectors.DefaultSelector() as selector:
            for sock, left in zip(self._sockets, self._open, strict=True):
                selector.register(sock, selectors.EVENT_READ, left)
            end = time.monotonic() + seconds
            while (left_over := end - time.monotonic()) > 0 and any(self._open):
                for key, _ in selector.select(min(left_over, 0.1)):
                    self._read(key.fileobj, key.data)
        return sum(map(len, self._open))

    def _read(self, sock: object, left: dict[int, bytes]) -> None:
        assert isinstance(sock, socket.socket)
        for _ in itertools.count():
            try:
                response = sock.recv(4096)
            except BlockingIOError:
                return
            request = left.get(response[1])
            if request is not None and is_response(response, request, self._secret):
                del left[response[1]]
            self.responses += 1

    def close(self) -> None:
        """Closes the sockets."""
        for sock in self._sockets:
            sock.close()
