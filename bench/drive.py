"""A generator of accounting requests that are repeated by nobody: as fast as they are answered, or at a steady rate."""

import selectors
import time
from collections.abc import Sequence

from bench.servers import connected
from radius_bridge.radius.batches import Receiver, Sender
from tests.lab.processes import LabError

SOCKETS = 16
"""One sends every `SOCKETS`th packet: of these, 256 after each other have identifiers of their own."""

WINDOW = 128
"""Requests in flight on each socket at the highest rate: 2,048 in all."""

LARGEST_WINDOW = 250
"""The same at a steady rate, if responses are late."""

TIMEOUT = 120.0


def drive(port: int, packets: Sequence[bytes], *, per_s: float = 0.0) -> tuple[float, list[float]]:
    """Sends all packets, as fast as they are answered or at a steady rate; gives seconds, and those of each response.

    At a steady rate a response is late from the moment at which its request was due. Raises LabError after two minutes.
    """
    sender, receiver = Sender(), Receiver()
    sockets = [connected(port) for _ in range(SOCKETS)]
    queues = [packets[place::SOCKETS] for place in range(SOCKETS)]
    sent = [0] * SOCKETS
    open_: list[dict[int, float]] = [{} for _ in range(SOCKETS)]
    waited: list[float] = []
    window = LARGEST_WINDOW if per_s else WINDOW
    with selectors.DefaultSelector() as selector:
        for place, sock in enumerate(sockets):
            selector.register(sock, selectors.EVENT_READ, place)
        began = time.perf_counter()
        while len(waited) < len(packets):
            now = time.perf_counter()
            if now - began > TIMEOUT:
                raise LabError(
                    f"the server on port {port} answered {len(waited)} of {len(packets)} within {TIMEOUT:g} s"
                )
            for place, sock in enumerate(sockets):
                lot: list[tuple[bytes, bytes, bytes]] = []
                while sent[place] < len(queues[place]) and len(open_[place]) < window and len(lot) < 64:
                    due = began + (sent[place] * SOCKETS + place) / per_s if per_s else now
                    packet = queues[place][sent[place]]
                    if due > now or packet[1] in open_[place]:
                        break
                    open_[place][packet[1]] = due
                    lot.append((packet, b"", b""))
                    sent[place] += 1
                if lot:
                    sender.send(sock.fileno(), lot)
            for key, _ in selector.select(0.001):
                heard = time.perf_counter()
                for response, _, _ in receiver.receive(key.fd):
                    waited.append(heard - open_[key.data].pop(response[1]))
        seconds = time.perf_counter() - began
    for sock in sockets:
        sock.close()
    return seconds, waited
