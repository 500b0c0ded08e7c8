"""Logins at a steady rate until ended: `python -m bench.load HOST PORT PER_SECOND`. Tells each second how it went."""

import itertools
import selectors
import socket
import sys
import time
from ipaddress import IPv4Address

from tests.lab.radius_client import Status, accounting, request
from tests.lab.site import BRIDGE_SECRET

_FIRST = int(IPv4Address("10.66.128.0"))
_ADDRESSES = 32_000
_SOCKETS = 32
"""Each has 256 identifiers, so that none is used again while its request may be open."""


def main(host: str, port: int, per_s: int) -> None:
    """Sends for ever. A request is not repeated: the figures tell what got no answer."""
    sockets = []
    ready = selectors.DefaultSelector()
    for _ in range(_SOCKETS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((host, port))
        sock.setblocking(False)
        ready.register(sock, selectors.EVENT_READ, sock)
        sockets.append(sock)
    run = f"busy-{time.time():.0f}"  # sessions told of once more would be nothing new
    answered = 0
    began = reported = time.monotonic()
    for number in itertools.count():
        due = began + number / per_s
        while True:
            now = time.monotonic()
            for key, _ in ready.select(max(0.0, min(due - now, 0.01))):
                answered += _drain(key.data)
            if now >= due:
                break
        user = number % _ADDRESSES
        attributes = accounting(
            Status.START, f"busy{user}", f"{run}-{number}", str(IPv4Address(_FIRST + user)), event_time=time.time()
        )
        sockets[number % _SOCKETS].send(request(number // _SOCKETS % 256, attributes, BRIDGE_SECRET))
        if now - reported >= 1:
            print(f"sent {number + 1} answered {answered}", flush=True)
            reported = now


def _drain(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            sock.recv(4096)
        except (BlockingIOError, ConnectionRefusedError):
            return count
        count += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
