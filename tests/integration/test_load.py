"""A controller restarts and 5,000 stations report 50,000 sessions at once; and Consul hangs in the middle."""

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from radius_bridge.radius import status
from tests.lab.burst import Burst
from tests.lab.consul import ConsulServer
from tests.lab.ports import free_ports
from tests.lab.processes import BIN, Process, wait_until
from tests.lab.radius_client import AccountingClient, Status, accounting, is_response, request

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

SECRET = b"lab-bridge-secret"
STATIONS = 5000
SESSIONS = 10
MEMORY = 384 << 20
"""Octets of resident memory that the bridge may have had at most."""


@pytest.fixture
def consul() -> Iterator[ConsulServer]:
    with ConsulServer() as server:
        yield server


class Bridge:
    """`radius-bridge serve` with its counters."""

    def __init__(self, consul: ConsulServer, folder: Path) -> None:
        self.port, self._metrics = free_ports(2)
        config = folder / "bridge.toml"
        config.write_text(
            f'[consul]\nurl = "{consul.url}"\n[radius]\nlisten = ["127.0.0.1:{self.port}"]\n'
            f'[metrics]\nlisten = "127.0.0.1:{self._metrics}"\n'
            f'[[client]]\nname = "lab"\naddress = "127.0.0.1"\nsecret_env = "SECRET"\nnetworks = ["10.0.0.0/8"]\n'
        )
        argv: list[str | Path] = [BIN / "radius-bridge", "serve", "-c", config]
        self.process = Process("bridge", argv, log=folder / "bridge.log", env={"SECRET": SECRET.decode()})
        self.process.start().wait_log("listening")
        self.asked = 0
        """How often Status-Server was asked."""

    def counters(self) -> dict[str, float]:
        """The metrics, by name and labels."""
        connection = http.client.HTTPConnection("127.0.0.1", self._metrics, timeout=2)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return {name: float(value) for name, value in re.findall(r"^([a-z]\S*) (\S+)$", text, re.MULTILINE)}

    def peak_memory(self) -> int:
        """Octets."""
        told = Path("/proc", str(self.process.pid), "status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", told)
        assert match is not None
        return int(match[1]) * 1024

    def nas(self) -> AccountingClient:
        """A NAS."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", self.port))
        return AccountingClient(sock, SECRET)

    def status(self, timeout: float) -> float | None:
        """Asks Status-Server; seconds until the answer, None if there is none."""
        with self.nas() as nas:
            asked = status.request(1, SECRET)
            self.asked += 1
            began = time.monotonic()
            nas.sock.settimeout(timeout)
            nas.sock.send(asked)
            try:
                answer = nas.sock.recv(4096)
            except TimeoutError:
                return None
            assert is_response(answer, asked, SECRET)
            return time.monotonic() - began


@pytest.fixture
def bridge(consul: ConsulServer, tmp_path: Path) -> Iterator[Bridge]:
    made = Bridge(consul, tmp_path)
    yield made
    made.process.kill()


def packet(number: int) -> bytes:
    """The login of one session: a station has several addresses, as IPv6 hosts have."""
    station, session = divmod(number, SESSIONS)
    address = f"10.{session}.{station >> 8}.{station & 255}"
    return request(number % 256, accounting(Status.START, f"user{station}", f"s{number}", address), SECRET)


def test_50_000_packets_at_once_are_all_recorded_and_each_is_accounted_for(
    bridge: Bridge, consul: ConsulServer
) -> None:
    burst = Burst(("127.0.0.1", bridge.port), [packet(number) for number in range(STATIONS * SESSIONS)], SECRET)
    began = time.monotonic()
    consul.pause()  # as if it had not waited for this: more comes than may be in flight
    burst.send()
    overload = 'radius_bridge_dropped_total{reason="overload"}'
    wait_until(lambda: bridge.counters().get(overload, 0) > 0, "more packets than may be in flight")
    consul.resume()
    left = STATIONS * SESSIONS
    while left:
        left = burst.hear(3)
        assert time.monotonic() - began < 90, f"{left} packets are not answered"
        burst.send()
    burst.hear(0.5)
    burst.close()

    wait_until(lambda: bridge.status(1) is not None, "the last drop of the kernel to be told")
    counters = bridge.counters()
    kept = sum(counters.get(f'radius_bridge_packets_total{{outcome="{o}"}}', 0) for o in ("answered", "repeated"))
    dropped = counters.get('radius_bridge_packets_total{outcome="dropped"}', 0)
    by_reason = sum(value for name, value in counters.items() if name.startswith("radius_bridge_dropped_total"))
    kernel = counters["radius_bridge_socket_drops_total"]
    assert dropped == by_reason
    assert kept + dropped + kernel == burst.sent + bridge.asked
    assert bridge.peak_memory() < MEMORY

    recorded = json.loads(consul.command("kv", "export", "befw/$binding$/"))
    assert len(recorded) == STATIONS * SESSIONS
    assert len(bridge.process.read_log().splitlines()) < 50


def test_a_silent_consul_blocks_neither_status_server_nor_metrics_nor_shutdown(
    bridge: Bridge, consul: ConsulServer
) -> None:
    wait_until(lambda: bridge.status(1) is not None, "the first commit")
    consul.pause()
    try:
        burst = Burst(("127.0.0.1", bridge.port), [packet(number) for number in range(3000)], SECRET)
        burst.send()
        took = bridge.status(2)
        assert took is not None
        assert took < 1.5  # behind 3,000 packets
        assert burst.hear(0.1) == 3000
        began = time.monotonic()
        assert bridge.counters()["radius_bridge_requests_in_flight"] == 3000
        assert time.monotonic() - began < 1
        wait_until(lambda: bridge.status(0.2) is None, "Status-Server to fall silent", timeout=8)
        assert bridge.counters()["radius_bridge_recording"] == 0
        began = time.monotonic()
        assert bridge.process.terminate(timeout=15) == 0
        assert time.monotonic() - began < 12
        burst.close()
    finally:
        consul.resume()
