"""Durable logins a second, and what 200,000 live sessions cost.

Ours is `radius-bridge serve`, which answers a login when Consul has committed and announced it. Beside it, on the same
Consul and in the same run: raw transactions of 64 operations, and FreeRADIUS with rlm_rest, which puts one key for each
packet. Once with Consul in dev mode (in memory) and once on disk. Requests are repeated by nobody. Both servers share
the processors with Consul, and have the weight that our unit gives the bridge.

Each figure has a Consul of its own: the more it holds, the longer it is busy collecting garbage, and the longer the
slowest responses wait. `ack_p99_ms_at_half_after` shows how long: it is taken when the highest rate has just left its
sessions. `ack_p99_ms_at_half_evenly` is without the weight.
"""

import base64
import http.client
import json
import math
import re
import socket
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.drive import SOCKETS, drive
from bench.frame import Bench, Result, percentile, progress
from bench.servers import SECRET, connected, freeradius, serving
from bench.store import cpu_seconds, fill, memory_bytes
from radius_bridge.registry.kv import MAX_OPS
from tests.lab.consul import ConsulServer
from tests.lab.processes import BIN, LabError, Process
from tests.lab.radius_client import AccountingClient, Status, accounting, request

WRITERS = 16
"""Connections of the raw transactions."""

SESSIONS = 200_000

ALONE = 2000
"""Logins that are timed one after the other."""

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
"""1 if the kernel weighs sessions."""

UNIT = Path(__file__).parent.parent / "config/systemd/radius-bridge.service"
"""Says what weight the bridge has in production."""


class Here:
    """The network namespace that we are in, for `bench.store`."""

    name = ""

    def socket(self) -> socket.socket:
        """A TCP socket."""
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def run_bench(quick: bool) -> Result:
    """Measures both kinds of Consul, and the many sessions."""
    rounds, seconds = (1, 3.0) if quick else (3, 8.0)
    figures: dict[str, dict[str, float]] = {}
    peers: dict[str, dict[str, float]] = {}
    for kind, on_disk in (("dev", False), ("disk", True)):
        ours: list[dict[str, float]] = []
        others: list[dict[str, float]] = []
        for number in range(rounds):
            with ConsulServer(on_disk=on_disk) as consul:
                others.append({"raw_ops_per_s": _raw(consul, seconds)})
            with ConsulServer(on_disk=on_disk) as consul, _freeradius(consul) as (server, port):
                _weigh(server, _weight())
                others[-1]["rlm_rest_per_s"] = _highest(port, seconds)
            with _ours(on_disk, _weight()) as (consul, bridge, port):
                ours.append(_logins(consul.pid, bridge, port, seconds))
                half = ours[-1]["per_s"] / 2
                ours[-1]["ack_p99_ms_at_half_after"] = _ack_p99_ms(port, half, seconds)
            for name, weight in (("ack_p99_ms_at_half", _weight()), ("ack_p99_ms_at_half_evenly", 100)):
                with _ours(on_disk, weight) as (_, _, port):
                    ours[-1][name] = _ack_p99_ms(port, half, seconds)
            with ConsulServer(on_disk=on_disk) as consul:
                lots = half * ours[-1]["ops_per_login"] / MAX_OPS
                others[-1]["raw_p99_ms_at_half"] = _raw_p99_ms(consul, lots, seconds)
            progress(f"{kind}, round {number + 1} of {rounds}: {ours[-1]}, {others[-1]}")
        figures[kind] = _medians(ours)
        peers[kind] = _medians(others)
    figures["sessions"] = _many(20_000 if quick else SESSIONS)
    return Result(figures, peers)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}


def _logins(consul: int, bridge: Process, port: int, seconds: float) -> dict[str, float]:
    """The highest rate, and what a login takes then. `consul`: its pid.

    The processors' time of a login says what limits the rate: all of it together is what the machine has.
    """
    packets = _packets(int(seconds * 6000), "a")
    ops, spent = _operations(port), _cpu(consul, bridge.pid)
    took, _ = drive(port, packets)
    per_s = len(packets) / took
    spent = [after - before for before, after in zip(spent, _cpu(consul, bridge.pid), strict=True)]
    ops = (_operations(port) - ops) / len(packets)
    names = ("consul_us_per_login", "bridge_us_per_login", "generator_us_per_login")
    return {
        "per_s": per_s,
        "ops_per_login": ops,
        **{name: each / len(packets) * 1e6 for name, each in zip(names, spent, strict=True)},
    }


def _ack_p99_ms(port: int, per_s: float, seconds: float) -> float:
    """What a login waits for at a steady rate."""
    _, waited = drive(port, _packets(int(seconds * per_s), "b"), per_s=per_s)
    return percentile(waited, 99) * 1000


def _weigh(process: Process, weight: int) -> None:
    """Gives a process the share of the processors that a unit with this CPUWeight has; 100 is as all others.

    Each process of the lab is a session, and the kernel weighs these like processes (sched(7), autogroup). Raises
    LabError where it does not.
    """
    if AUTOGROUP.read_text().strip() != "1":
        raise LabError(f"{AUTOGROUP} is not 1: a process alone cannot be given weight")
    nice = -round(math.log(weight / 100, 1.25))  # one step is a quarter more
    Path(f"/proc/{process.pid}/autogroup").write_text(str(nice))


def _weight() -> int:
    """The CPUWeight that our unit gives."""
    found = re.search(r"^CPUWeight=(\d+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise LabError(f"{UNIT} gives no CPUWeight")
    return int(found[1])


def _cpu(consul: int, bridge: int) -> list[float]:
    return [cpu_seconds(consul), cpu_seconds(bridge), time.process_time()]


def _highest(port: int, seconds: float) -> float:
    packets = _packets(int(seconds * 6000), "a")
    took, _ = drive(port, packets)
    return len(packets) / took


def _packets(count: int, name: str) -> list[bytes]:
    """Logins of as many people, each at an address of its own; one socket has every `SOCKETS`th."""
    return [
        request(
            number // SOCKETS % 256,
            accounting(
                Status.START,
                f"{name}{number}",
                f"{name}-{number}",
                f"10.{number >> 16 & 127 | (128 if name == 'b' else 0)}.{number >> 8 & 255}.{number & 255}",
                event_time=time.time(),
            ),
            SECRET,
        )
        for number in range(count)
    ]


def _raw(consul: ConsulServer, seconds: float) -> float:
    """Operations a second of full transactions: what this Consul can do at all."""
    until = time.monotonic() + seconds

    def write(writer: int) -> int:
        lots = 0
        with _transacting(consul, f"raw/{writer}") as transact:
            while time.monotonic() < until:
                transact(lots)
                lots += 1
        return lots

    with ThreadPoolExecutor(WRITERS) as pool:
        return sum(pool.map(write, range(WRITERS))) * MAX_OPS / seconds


def _raw_p99_ms(consul: ConsulServer, per_s: float, seconds: float) -> float:
    """What one of so many full transactions a second waits for, from the moment at which it was due."""
    began = time.monotonic() + 0.5

    def write(writer: int) -> list[float]:
        waited: list[float] = []
        with _transacting(consul, f"steady/{writer}") as transact:
            for lot in range(max(1, round(per_s * seconds / WRITERS))):
                due = began + (lot * WRITERS + writer) / per_s
                time.sleep(max(0.0, due - time.monotonic()))
                transact(lot)
                waited.append(time.monotonic() - due)
        return waited

    with ThreadPoolExecutor(WRITERS) as pool:
        return percentile([each for waited in pool.map(write, range(WRITERS)) for each in waited], 99) * 1000


@contextmanager
def _transacting(consul: ConsulServer, folder: str) -> Iterator[Callable[[int], None]]:
    """Gives what carries out one full transaction; its number is part of its keys."""
    value = base64.b64encode(b"x" * 200).decode()
    connection = http.client.HTTPConnection(consul.url.removeprefix("http://"), timeout=30)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def transact(lot: int) -> None:
        ops = [{"KV": {"Verb": "set", "Key": f"{folder}/{lot}/{place}", "Value": value}} for place in range(MAX_OPS)]
        connection.request("PUT", "/v1/txn", json.dumps(ops))
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise LabError(f"Consul refused a transaction: {said[:200]!r}")

    try:
        yield transact
    finally:
        connection.close()


def _many(count: int) -> dict[str, float]:
    """What so many live sessions cost the bridge."""
    with ConsulServer() as consul:
        with _bridge(consul) as (_, port):
            empty = _one_after_the_other(port, 0)
        host, _, api = consul.url.removeprefix("http://").partition(":")
        fill(Here(), 0, count, host, int(api))
        began = time.monotonic()
        with _bridge(consul) as (process, port):
            ready = time.monotonic() - began
            full = _one_after_the_other(port, ALONE)
            memory = memory_bytes(process.pid)
    return {
        "count": count,
        "memory_bytes": memory,
        "ready_s": round(ready, 2),
        "login_p50_ms": round(statistics.median(full) * 1000, 3),
        "login_without_sessions_p50_ms": round(statistics.median(empty) * 1000, 3),
    }


def _one_after_the_other(port: int, first: int) -> list[float]:
    """Seconds of each response, one after the other: for longer than a collection of Consul's garbage takes."""
    with AccountingClient(connected(port), SECRET) as client:
        took = [
            client.send(accounting(Status.START, f"c{number}", f"c-{number}", f"10.255.{number >> 8}.{number & 255}"))
            for number in range(first, first + ALONE)
        ]
    if None in took:
        raise LabError("a login got no response")
    return [each for each in took if each is not None]


def _operations(port: int) -> float:
    """Operations of the bridge's lanes so far; its metrics are one port above its RADIUS port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port + 1}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(
        (float(line.split()[-1]) for line in lines if line.startswith('radius_bridge_lanes_total{what="operations"')),
        0.0,
    )


@contextmanager
def _ours(on_disk: bool, weight: int) -> Iterator[tuple[ConsulServer, Process, int]]:
    """A bridge with that weight, and a Consul for itself."""
    with ConsulServer(on_disk=on_disk) as consul, _bridge(consul) as (bridge, port):
        _weigh(bridge, weight)
        yield consul, bridge, port


@contextmanager
def _bridge(consul: ConsulServer) -> Iterator[tuple[Process, int]]:
    def make(folder: Path, port: int) -> Process:
        config = folder / "bridge.toml"
        config.write_text(
            f'[consul]\nurl = "{consul.url}"\n[radius]\nlisten = ["127.0.0.1:{port}"]\n'
            f'[metrics]\nlisten = "127.0.0.1:{port + 1}"\n'
            f'[[client]]\nname = "bench"\naddress = "127.0.0.1"\nsecret_env = "SECRET"\nnetworks = ["10.0.0.0/8"]\n'
        )
        argv: list[str | Path] = [BIN / "radius-bridge", "serve", "-c", config]
        return Process("bridge", argv, log=folder / "log", env={"SECRET": SECRET.decode()})

    with serving(make) as served:
        yield served


@contextmanager
def _freeradius(consul: ConsulServer) -> Iterator[tuple[Process, int]]:
    def make(folder: Path, port: int) -> Process:
        modules = _REST % {"consul": consul.url}
        return freeradius(folder, port, modules=modules, accounting="rest", threads=32, spare=0)

    with serving(make) as served:
        yield served


_REST = """\
	rest {
		connect_uri = "%(consul)s"
		accounting {
			uri = "${..connect_uri}/v1/kv/peer/%%{User-Name}/%%{Framed-IP-Address}"
			method = "put"
			body = "text/plain"
			data = "4000000000"
			force_to = "plain"
		}
		pool {
			start = 32
			min = 32
			max = 32
			spare = 0
			uses = 0
			lifetime = 0
			idle_timeout = 0
		}
	}"""

BENCH = Bench("logins", "durable logins a second; beside raw transactions and FreeRADIUS with rlm_rest", run_bench)
