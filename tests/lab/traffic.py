"""Datagrams through a host's filter as fast as one core sends them: which arrive, and which must not."""

import socket
import threading
import time
from types import TracebackType
from typing import Self

from bench.packets import Batch
from tests.lab.netns import Namespace

_PATIENCE = 1.0
"""Seconds after which a datagram is lost."""


class Flood:
    """Batches of datagrams to one service, in turn of somebody who may and of somebody who may not reach it.

    On a cable (veth) of its own a datagram is through the other side's filter when it has been sent, so that each batch
    is awaited before the next one, and nothing is lost but what the filter takes.
    """

    def __init__(
        self,
        client: Namespace,
        allowed: str,
        refused: str,
        server: Namespace,
        target: tuple[str, int],
        *,
        pause: float = 0.0,
    ) -> None:
        """`pause` is in seconds between two batches."""
        self.passed = self.lost = 0
        """Of whom may: how many arrived, and how many did not."""
        self.tried = self.leaked = 0
        """Of whom may not: how many were sent, and how many arrived."""
        self.seconds = 0.0
        self.error: BaseException | None = None
        """What ended it too early."""
        self._pause = pause
        self._pairs = [self._pair(client, source, server, target) for source in (allowed, refused)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flood", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        for sock in (each for pair in self._pairs for each in pair):
            sock.close()

    def has_begun(self) -> bool:
        """True if a thousand have arrived."""
        return self.passed > 1000

    def rate(self) -> float:
        """Datagrams a second, of both."""
        return (self.passed + self.lost + self.tried) / self.seconds if self.seconds else 0.0

    @staticmethod
    def _pair(
        client: Namespace, source: str, server: Namespace, target: tuple[str, int]
    ) -> tuple[socket.socket, socket.socket]:
        """A client's socket, and one of the server's that hears it alone."""
        sender, receiver = (each.socket(type=socket.SOCK_DGRAM) for each in (client, server))
        sender.bind((source, 0))
        sender.connect(target)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        receiver.bind(target)
        receiver.connect(sender.getsockname())
        for sock in (sender, receiver):
            sock.setblocking(False)
        return sender, receiver

    def _run(self) -> None:
        try:
            batch, began = Batch(), time.monotonic()
            (allowed, hears), (refused, must_not_hear) = self._pairs
            while not self._stop.is_set():
                waiting, since = batch.send(allowed), time.monotonic()
                while waiting and time.monotonic() < since + _PATIENCE:
                    came = batch.receive(hears)
                    self.passed += came
                    waiting -= came
                self.lost += waiting
                try:
                    self.tried += batch.send(refused)
                except ConnectionRefusedError:
                    self.tried += 1  # that an earlier one was refused
                self.leaked += batch.receive(must_not_hear)
                self.seconds = time.monotonic() - began
                self._stop.wait(self._pause)
        except BaseException as error:  # a test looks at it
            self.error = error
