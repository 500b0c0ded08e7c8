"""The metrics' port: a stranger takes neither descriptors nor threads without bound."""

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from radius_bridge.scraping import CONNECTIONS, Scraping


@pytest.fixture
def server() -> Iterator[Scraping]:
    made = Scraping(("127.0.0.1", 0), longest=0.3)
    made.start()
    yield made
    made.close()


def read(server: Scraping) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def test_the_metrics_are_read(server: Scraping) -> None:
    assert "# TYPE " in read(server)


def test_whoever_says_nothing_holds_little_and_not_for_long(server: Scraping) -> None:
    threads = threading.active_count()
    with ExitStack() as stack:
        for _ in range(4 * CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            assert threading.active_count() <= threads + CONNECTIONS
        deadline = time.monotonic() + 10
        while True:
            try:
                assert "# TYPE " in read(server)
            except OSError:  # it is full
                assert time.monotonic() < deadline
            else:
                return


def test_a_port_that_is_taken_is_an_error(server: Scraping) -> None:
    with pytest.raises(OSError, match="in use"):
        Scraping(("127.0.0.1", server.port))
