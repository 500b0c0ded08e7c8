"""`kill -9` of the bridge in the middle of 1,000 logins: what was answered is in Consul, what was not is repeated."""

import random
import socket
import threading
from collections.abc import Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.lab.consul import ConsulServer
from tests.lab.ports import free_port
from tests.lab.processes import BIN, Process, run, wait_until
from tests.lab.radius_client import AccountingClient, Status, accounting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SECRET = b"lab-bridge-secret"
LOGINS = 1000
NASES = 16
KILLS = 6


@pytest.fixture
def consul() -> Iterator[ConsulServer]:
    with ConsulServer() as server:
        yield server


class Bridge:
    """`radius-bridge serve` on a port of its own."""

    def __init__(self, consul: ConsulServer, folder: Path) -> None:
        self.port = free_port()
        config = folder / "bridge.toml"
        config.write_text(
            f'[consul]\nurl = "{consul.url}"\n[radius]\nlisten = ["127.0.0.1:{self.port}"]\n'
            f'[[client]]\nname = "lab"\naddress = "127.0.0.1"\nsecret_env = "SECRET"\nnetworks = ["10.0.0.0/8"]\n'
        )
        argv: list[str | Path] = [BIN / "radius-bridge", "serve", "-c", config]
        self.process = Process("bridge", argv, log=folder / "bridge.log", env={"SECRET": SECRET.decode()})

    def start(self) -> None:
        self.process.start().wait_log("listening")


def user(number: int) -> str:
    return f"user{number}"


def address(number: int) -> str:
    return f"10.1.{number >> 8}.{number & 255}"


class Nas(threading.Thread):
    """Sends the logins of its users, a logout for every third, and each again until it is answered."""

    def __init__(self, port: int, numbers: range, answered: dict[int, Status], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._numbers = numbers
        self._answered = answered
        self._stop_sending = stop

    def run(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", self._port))
        with AccountingClient(sock, SECRET) as nas:
            for number in self._numbers:
                kinds = [Status.START, Status.STOP] if number % 3 == 0 else [Status.START]
                for kind in kinds:
                    self._send(nas, kind, number)

    def _send(self, nas: AccountingClient, kind: Status, number: int) -> None:
        attributes = accounting(kind, user(number), f"s{number}", address(number))
        while not self._stop_sending.is_set():
            if nas.send(attributes, timeout=0.5) is not None:
                self._answered[number] = kind
                return
            self._stop_sending.wait(0.02)


def members(consul: ConsulServer) -> set[str]:
    """The keys of all users' groups, as Consul itself tells."""
    shown = run(["consul", "kv", "get", "-keys", "-separator=", "befw/$alias$/"], env={"CONSUL_HTTP_ADDR": consul.url})
    return set(shown.stdout.split())


def key(number: int) -> str:
    return f"befw/$alias$/$user.{user(number)}$/{address(number)}"


def _has(answered: Sized, enough: int) -> bool:
    return len(answered) >= enough


def test_every_answered_login_survives_and_repeats_end_in_the_same_state(consul: ConsulServer, tmp_path: Path) -> None:
    bridge = Bridge(consul, tmp_path)
    bridge.start()
    answered: dict[int, Status] = {}
    stop = threading.Event()
    nases = [Nas(bridge.port, range(first, LOGINS, NASES), answered, stop) for first in range(NASES)]
    try:
        for nas in nases:
            nas.start()
        for kill in range(1, KILLS + 1):
            enough = int(LOGINS * kill / (KILLS + 1)) + random.randint(-20, 20)
            wait_until(partial(_has, answered, enough), f"{enough} answers", timeout=60, every=0.0005)
            bridge.process.kill()
            promised = dict(answered)
            stored = members(consul)
            # A third of the users log out again, and a logout may be stored although its answer was lost.
            lost = [n for n, kind in promised.items() if n % 3 and kind is Status.START and key(n) not in stored]
            revived = [n for n, kind in promised.items() if kind is Status.STOP and key(n) in stored]
            assert not lost, f"answered and lost by kill {kill}: {lost}"
            assert not revived, f"logged out and still there after kill {kill}: {revived}"
            bridge.start()
        with ThreadPoolExecutor(NASES) as pool:
            list(pool.map(lambda nas: nas.join(60), nases))
    finally:
        stop.set()
        if bridge.process.is_running:
            bridge.process.terminate()
    assert len(answered) == LOGINS
    assert members(consul) == {key(number) for number in range(LOGINS) if number % 3}
