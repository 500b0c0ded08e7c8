"""The port that Prometheus reads: few connections at once, each for a short while, however many strangers come.

In threads, so that a reading waits for no login and no login for it.
"""

import socket
import sys
import time
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any, Final

import structlog
from prometheus_client import REGISTRY, MetricsHandler

CONNECTIONS: Final = 16
"""At the same time; more are closed at once."""

LONGEST: Final = 10.0
"""Seconds that a connection may take; it is for one reading."""

_log = structlog.get_logger(__name__)


class Scraping(ThreadingMixIn, TCPServer):
    """Answers on an address and a port (of 0: any that is free) once `start` was called, until `close`."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 8 * CONNECTIONS

    def __init__(self, listen: tuple[str, int], *, longest: float = LONGEST) -> None:
        """Raises OSError if it cannot listen."""
        self.address_family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self._longest = longest
        self._open: dict[Any, float] = {}
        """Connections, and since when (monotonic)."""
        super().__init__(listen, MetricsHandler.factory(REGISTRY))

    def start(self) -> None:
        """Begins to answer, in a thread of its own."""
        Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Ends that."""
        self.shutdown()
        self.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """False if there are too many connections already."""
        return len(self._open) < CONNECTIONS

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread."""
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: who says nothing, or takes nothing, is cut off."""
        now = time.monotonic()
        for connection, since in list(self._open.items()):
            if now - since > self._longest:
                with suppress(OSError):  # it is gone
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody who goes amid an answer is no error; everything else is one of ours."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("metrics not told")
