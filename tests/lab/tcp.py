"""What a user feels: connections through the kernel, and when their last byte passed."""

import errno
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

MakeSocket = Callable[[int], socket.socket]
"""Makes a TCP socket of an address family, in the network namespace that it stands for."""


class Outcome(StrEnum):
    """How an attempt to connect ended."""

    OPEN = "open"
    REFUSED = "refused"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Knock:
    """One attempt to connect. `at` is monotonic seconds."""

    outcome: Outcome
    seconds: float
    at: float


def _connected(make: MakeSocket, source: str, target: tuple[str, int], timeout: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    sock = make(family)
    try:
        sock.settimeout(timeout)
        sock.bind((source, 0))
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


def knock(make: MakeSocket, source: str, target: tuple[str, int], *, timeout: float = 2.0) -> Knock:
    """Connects from `source`, waits for one byte of greeting, and leaves.

    Refused means a reset, as one feels it: at once. A service that lets in but says nothing is a timeout.
    """
    began = time.monotonic()
    try:
        with _connected(make, source, target, timeout) as sock:
            outcome = Outcome.OPEN if sock.recv(1) else Outcome.REFUSED
    except (ConnectionRefusedError, ConnectionResetError):
        outcome = Outcome.REFUSED
    except TimeoutError:
        outcome = Outcome.TIMEOUT
    now = time.monotonic()
    return Knock(outcome, now - began, now)


class End:
    """One end of a TCP connection that a thread keeps alive, and that knows when its last payload byte came.

    With `every` it sends a byte each so many seconds; without, it is silent until `say`. Times are monotonic.
    """

    def __init__(self, sock: socket.socket, *, every: float | None = None) -> None:
        self._sock = sock
        self._every = every
        self._stop = threading.Event()
        self.received = 0
        """Payload bytes that arrived."""
        self.last_received = 0.0
        """When the last of them arrived; 0 if none has."""
        self.ended = ""
        """Why the connection ended: `reset`, `closed`, or empty while it lives."""
        self._thread = threading.Thread(target=self._keep, name="end", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self) -> None:
        """Sends a byte now; on a connection that was reset, nothing happens."""
        # Either the firewall ended it or it holds the bytes back: the receiving end shows which.
        with suppress(BlockingIOError, ConnectionError):
            self._sock.send(b"x")

    def close(self) -> None:
        """Ends the thread and the connection."""
        self._stop.set()
        self._thread.join(timeout=5)
        self._sock.close()

    def _keep(self) -> None:
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        due = time.monotonic()
        while not self._stop.is_set() and not self.ended:
            if self._every is not None and time.monotonic() >= due:
                due = time.monotonic() + self._every
                self.say()
            if poll.poll(5):
                self._receive()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.ended = "reset" if error.errno in {errno.ECONNRESET, errno.ECONNREFUSED} else str(error)
            return
        if not data:
            self.ended = "closed"
            return
        self.received += len(data)
        self.last_received = time.monotonic()


def connect(
    make: MakeSocket,
    source: str,
    target: tuple[str, int],
    *,
    every: float | None = None,
    timeout: float = 2.0,
) -> End:
    """A live connection from `source`. Raises OSError if it is refused or not answered."""
    return End(_connected(make, source, target, timeout), every=every)


class Listener:
    """A service of the test's own, so that it sees what arrives at the server too."""

    def __init__(self, make: MakeSocket, family: int, port: int) -> None:
        self._sock = make(family)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        self._sock.listen(64)
        self._sock.settimeout(5)

    def accept(self, *, every: float | None = None) -> End:
        """The server's end of the next connection."""
        sock, _ = self._sock.accept()
        return End(sock, every=every)

    def close(self) -> None:
        """Stops listening; connections live on."""
        self._sock.close()
