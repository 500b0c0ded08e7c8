"""Steady datagrams from a client to a server, each counted at both ends."""

import socket
import threading
import time
from types import TracebackType
from typing import Self

from tests.lab.netns import Namespace
from tests.lab.processes import LabError, wait_until

_LEN = 8
_RCVBUFFORCE = 33  # SO_RCVBUFFORCE of <asm-generic/socket.h>


class Flow:
    """Sends `per_s` datagrams a second from `source` to `target` until it is closed.

    A flow `to` another one is heard by that one's socket: both are at the same port.
    """

    def __init__(
        self,
        client: Namespace,
        source: str,
        server: Namespace,
        target: tuple[str, int],
        *,
        per_s: float = 1000.0,
        to: "Flow | None" = None,
    ) -> None:
        self.sent = 0
        self._counts: dict[str, int] = {} if to is None else to._counts
        self._source = source
        self._target = target
        self._per_s = per_s
        self._stop = threading.Event()
        self._client = client.socket(type=socket.SOCK_DGRAM)
        self._client.bind((source, 0))
        self._service: socket.socket | None = None
        if to is None:
            self._service = server.socket(type=socket.SOCK_DGRAM)
            self._service.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 1 << 24)
            self._service.bind(target)
            self._service.settimeout(0.1)
        self._threads = [threading.Thread(target=self._send, daemon=True)]
        if self._service is not None:
            self._threads.append(threading.Thread(target=self._hear, args=(self._service,), daemon=True))
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._closed.set()
        for thread in self._threads:
            thread.join(timeout=5)
        self._client.close()
        if self._service is not None:
            self._service.close()

    @property
    def arrived(self) -> int:
        """Datagrams that the server has got."""
        return self._counts.get(self._source, 0)

    def finish(self) -> None:
        """Sends no more, and waits for what is under way (a second at most)."""
        self._stop.set()
        self._threads[0].join(timeout=5)
        try:
            wait_until(lambda: self.arrived >= self.sent, "what is under way", timeout=1)
        except LabError:
            return  # what is missing is the caller's to judge

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                self._client.sendto(bytes(_LEN), self._target)
            except ConnectionRefusedError:
                continue  # that an earlier one was refused
            self.sent += 1
            due += 1 / self._per_s
            time.sleep(max(0.0, due - time.monotonic()))

    def _hear(self, service: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                _, (source, _) = service.recvfrom(_LEN)
            except TimeoutError:
                continue
            self._counts[source] = self._counts.get(source, 0) + 1
