"""Accounting-Requests a second, without Consul in the path: ours, FreeRADIUS and pyrad behind the same generator.

Each server checks every packet, reads its attributes and answers it; ours makes an event of it, "recorded" at once.
FreeRADIUS runs twice: with an empty `accounting` section, and with `detail`, which writes each packet to a file.
The generator keeps `LOT` packets of each of `SOCKETS` sockets in flight and repeats what is not answered.
"""

import selectors
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench.frame import Bench, Result, progress
from bench.servers import SECRET, Make, freeradius, serving
from radius_bridge.radius.batches import Receiver, Sender
from tests.lab.processes import BIN, LabError, Process
from tests.lab.radius_client import Status, accounting, request

SOCKETS = 8
LOT = 16
"""Packets that a socket has in flight: 128 in all, which every server's socket buffer holds."""

REPEAT_AFTER = 0.2
"""Seconds."""


STATIONS = 10_000
USERS = 8_000
"""Some have two stations."""
ACCESS_POINTS = 200


def run_bench(quick: bool) -> Result:
    """Measures all of them, in turn, several times; the median of each counts."""
    rounds, packets = (3, 30_000) if quick else (5, 100_000)
    loads = {
        "per_s": [_packet(number, packets) for number in range(packets)],
        "new_users": [_new_user(number) for number in range(packets)],
    }
    servers: dict[str, Make] = {
        "per_s": lambda folder, port: _python("ours", folder, port),
        "freeradius_null_per_s": lambda folder, port: _freeradius(folder, port, detail=False),
        "freeradius_detail_per_s": lambda folder, port: _freeradius(folder, port, detail=True),
        "pyrad_per_s": lambda folder, port: _python("pyrad", folder, port),
    }
    rates: dict[str, dict[str, list[float]]] = {load: {name: [] for name in servers} for load in loads}
    repeated = dict.fromkeys(servers, 0)
    for number in range(rounds):
        for name, make in servers.items():
            with serving(make) as (_, port):
                for load, made in loads.items():
                    # pyrad is an order slower: fewer packets say the same.
                    some = made if name != "pyrad_per_s" else made[: packets // 10]
                    seconds, again = _drive(port, some)
                    rates[load][name].append(len(some) / seconds)
                    repeated[name] += again
        latest = ", ".join(f"{load} {n} {v[-1]:,.0f}" for load, found in rates.items() for n, v in found.items())
        progress(f"round {number + 1} of {rounds}: {latest}")
    if any(repeated.values()):
        progress(f"repeated: {repeated}")
    usual, new = ({n: float(round(statistics.median(v))) for n, v in found.items()} for found in rates.values())
    return Result(
        {"per_s": usual.pop("per_s"), "new_users": {"per_s": new.pop("per_s")}},
        {**usual, "new_users": new},
    )


def _packet(number: int, packets: int) -> bytes:
    """What a controller sends: all its stations come, are told of again and again, and go."""
    turn, station = divmod(number, STATIONS)
    station = station * 7919 % STATIONS  # they come in no order
    last = (packets - 1) // STATIONS
    status = Status.START if turn == 0 else Status.STOP if turn == last else Status.INTERIM
    octets = turn * 1_000_003 % (1 << 32)
    attributes = accounting(
        status,
        f"user{station % USERS}",
        f"5E2A{station:08X}",
        f"10.{station >> 16 & 255}.{station >> 8 & 255}.{station & 255}",
        session_time=turn * 600,
        event_time=time.time(),
    )
    attributes += [
        (32, b"ap-%d" % (station % ACCESS_POINTS)),
        (5, station.to_bytes(4)),
        (61, (19).to_bytes(4)),
        (31, b"02-00-00-%02X-%02X-%02X" % (station >> 16, station >> 8 & 255, station & 255)),
        (30, b"02-AA-00-00-00-%02X:campus" % (station % ACCESS_POINTS)),
        (25, b"staff"),
        (41, bytes(4)),
        *((kind, octets.to_bytes(4)) for kind in (42, 43, 47, 48)),
    ]
    return request(number % 256, attributes, SECRET)


def _new_user(number: int) -> bytes:
    """The least that a NAS sends, every time of a user and a session that were never heard of."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return request(number % 256, accounting(Status.START, f"user{number}", f"session-{number}", address), SECRET)


def _python(which: str, folder: Path, port: int) -> Process:
    argv: list[str | Path] = [BIN / "python", "-m", "bench.ingest_servers", which, str(port), SECRET.decode()]
    return Process(which, argv, log=folder / "log")


def _freeradius(folder: Path, port: int, *, detail: bool) -> Process:
    modules = _DETAIL % {"folder": folder}
    return freeradius(folder, port, modules=modules, accounting="detail" if detail else "ok", threads=32, spare=5)


class _Sender:
    """One NAS: sends its packets in lots, and the next lot when every packet of the one before is answered."""

    def __init__(self, port: int, lots: Iterator[list[bytes]], sender: Sender, receiver: Receiver) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(("127.0.0.1", port))
        self._lots = lots
        self._sender = sender
        self._receiver = receiver
        self._open: dict[int, bytes] = {}
        self._due = 0.0
        self.repeated = 0

    def next_lot(self) -> bool:
        """Sends the next lot; False if there is none."""
        lot = next(self._lots, None)
        if lot is None:
            return False
        self._open = {packet[1]: packet for packet in lot}
        self._send()
        return True

    def read(self) -> bool:
        """Reads responses; True if the lot is done."""
        for response, _, _ in self._receiver.receive(self.sock.fileno()):
            self._open.pop(response[1], None)
        return not self._open

    def repeat(self) -> None:
        """Sends again what has waited too long."""
        if self._open and time.monotonic() > self._due:
            self.repeated += len(self._open)
            self._send()

    def _send(self) -> None:
        self._sender.send(self.sock.fileno(), [(packet, b"", b"") for packet in self._open.values()])
        self._due = time.monotonic() + REPEAT_AFTER


def _drive(port: int, packets: list[bytes]) -> tuple[float, int]:
    """Sends all packets and waits for all responses: seconds, and how many had to be repeated."""
    lots = (packets[first : first + LOT] for first in range(0, len(packets), LOT))
    sender, receiver = Sender(), Receiver()
    senders = [_Sender(port, lots, sender, receiver) for _ in range(SOCKETS)]
    with selectors.DefaultSelector() as selector:
        for each in senders:
            selector.register(each.sock, selectors.EVENT_READ, each)
        began = time.perf_counter()
        busy = {each for each in senders if each.next_lot()}
        deadline = began + 60
        while busy:
            if time.perf_counter() > deadline:
                raise LabError(f"the server on port {port} did not answer {len(packets)} packets within 60 s")
            for key, _ in selector.select(REPEAT_AFTER):
                if key.data.read() and not key.data.next_lot():
                    busy.discard(key.data)
            for each in busy:
                each.repeat()
        seconds = time.perf_counter() - began
    for each in senders:
        each.sock.close()
    return seconds, sum(each.repeated for each in senders)


_DETAIL = """\
	detail {
		filename = %(folder)s/detail
		permissions = 0600
	}
	always ok {
		rcode = ok
	}"""

BENCH = Bench(
    "ingest",
    "Accounting-Requests a second without Consul; beside FreeRADIUS and pyrad",
    run_bench,
    means="One process of ours checks, reads and answers; FreeRADIUS with its threads checks and answers (null), or "
    f"writes each packet to a file (detail). {STATIONS:,} stations of {USERS:,} users come, are told of and go, with "
    "the attributes that a controller sends; *new users*: five attributes, and every name is a new one. The generator "
    "runs on the same cores.",
)
