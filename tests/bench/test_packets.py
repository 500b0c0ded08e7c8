"""The generator of packets, on loopback."""

import socket
from collections.abc import Iterator

import pytest

from bench import packets


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two UDP sockets that are connected to each other."""
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
            each.setblocking(False)
        one.connect(other.getsockname())
        other.connect(one.getsockname())
        yield one, other


def test_whole_batches_pass_and_nothing_is_left(pair: tuple[socket.socket, socket.socket]) -> None:
    assert packets.rate(*pair, seconds=0.02) >= packets.BATCH / 0.02 / 100
    with pytest.raises(BlockingIOError):
        pair[1].recv(packets.OCTETS)


def test_a_packet_comes_back(pair: tuple[socket.socket, socket.socket]) -> None:
    took = packets.round_trips(*pair, count=5)
    assert len(took) == 5
    assert min(took) > 0


def test_what_does_not_arrive_is_no_rate(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    with socket.socket(type=socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        one.connect(elsewhere.getsockname())
        with pytest.raises(TimeoutError, match="did not arrive"):
            packets.rate(one, other, seconds=0.02)
        with pytest.raises(TimeoutError, match="did not arrive"):
            packets.round_trips(one, other, count=1)
