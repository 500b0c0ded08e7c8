"""The bridge as a process: hostile packets, shutdown, reload, and a Consul that is not there."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.consul import ConsulServer
from tests.lab.ports import free_port
from tests.lab.processes import BIN, Process, run, wait_until
from tests.lab.radius_client import AccountingClient, Attributes, Status, accounting, is_response, request

pytestmark = pytest.mark.integration

SECRET = b"lab-bridge-secret"


@pytest.fixture
def consul() -> Iterator[ConsulServer]:
    with ConsulServer() as server:
        yield server


class Bridge(Process):
    """`radius-bridge serve` on a port of its own, and packets to it."""

    def __init__(self, consul: ConsulServer, folder: Path) -> None:
        self.port = free_port()
        self.config = folder / "bridge.toml"
        self._consul = consul
        self.configure("10.0.0.0/8")
        argv: list[str | Path] = [BIN / "radius-bridge", "serve", "-c", self.config]
        super().__init__("bridge", argv, log=folder / "bridge.log", env={"SECRET": SECRET.decode()})

    def configure(self, network: str, more: str = "") -> None:
        """Writes the configuration file; the client may bind addresses of `network`."""
        self.config.write_text(
            f'[consul]\nurl = "{self._consul.url}"\n[radius]\nlisten = ["127.0.0.1:{self.port}"]\n'
            f'{more}\n[[client]]\nname = "lab"\naddress = "127.0.0.1"\nsecret_env = "SECRET"\n'
            f'networks = ["{network}"]\n'
        )

    @contextmanager
    def nas(self) -> Iterator[AccountingClient]:
        """A NAS of this bridge."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", self.port))
        with AccountingClient(sock, SECRET) as client:
            yield client


@pytest.fixture
def bridge(consul: ConsulServer, tmp_path: Path) -> Iterator[Bridge]:
    process = Bridge(consul, tmp_path)
    try:
        yield process
    finally:
        process.kill()


def keys(consul: ConsulServer, prefix: str = "") -> list[str]:
    """All keys below a prefix, as Consul itself tells."""
    shown = run(["consul", "kv", "get", "-keys", "-separator=", prefix], env={"CONSUL_HTTP_ADDR": consul.url})
    return shown.stdout.splitlines()


def start(user: str, address: str, session: str = "s1") -> Attributes:
    return accounting(Status.START, user, session, address)


HOSTILE_NAMES = [
    b"a/b",
    b"$user.alice$",
    b"$alias$/../$service$/ssh_tcp_22",
    b"100%",
    b"%2e%2e%2f",
    b"two words",
    b"tab\there",
    b"nul\0\0",
    b"\xff\xfe\xfd",
    bytes(range(1, 254)),
    b"x" * 253,
    b"/" * 253,
]


def test_no_user_name_writes_outside_its_group(consul: ConsulServer, bridge: Bridge) -> None:
    bridge.start().wait_log("listening")
    with bridge.nas() as nas:
        for number, name in enumerate(HOSTILE_NAMES):
            attributes = [
                (kind, name if kind == 1 else value) for kind, value in start("", f"10.0.0.{number + 1}", f"s{number}")
            ]
            assert nas.send(attributes) is not None, f"{name!r}: acknowledged, bound or not"
    stored = [key.removeprefix("befw/") for key in keys(consul)]
    groups = [key for key in stored if key.startswith("$alias$/")]
    assert len(groups) == 7  # all but the control characters, what is not UTF-8, and a $ at the end: a machine
    for key in groups:
        group, address = key.removeprefix("$alias$/").split("/")
        assert group.startswith("$user.")
        assert group.count("$") == 2
        assert address.startswith("10.0.0.")
    others = {key.split("/")[0] for key in stored} - {"$alias$"}
    assert others <= {"$binding$", "$changes$", "$health$", "$meta$", "$lock$", "$names$", "$session$"}


def test_what_an_engineer_types_is_read_as_what_a_login_says(consul: ConsulServer, bridge: Bridge) -> None:
    env = {"CONSUL_HTTP_ADDR": consul.url}

    def engineer(*arguments: str) -> str:
        done = run([BIN / "radius-bridge", *arguments], env=env)
        return done.stdout or done.stderr

    assert "alice@corp may reach" in engineer("grant", "CORP\\Alice", "ssh_tcp_22"), "no bridge said otherwise yet"
    bridge.configure("10.0.0.0/8", '[names]\nrealms = { CORP = "", "corp.example" = "" }')
    bridge.start().wait_log("listening")
    wait_until(lambda: "befw/$names$" in keys(consul), "the rules to be recorded")
    for number, typed in enumerate(["Alice", "CORP\\ALICE", "alice@Corp.Example"]):
        with bridge.nas() as nas:
            assert nas.send(start(typed, f"10.0.0.{number + 1}", f"s{number}")) is not None
        assert "alice may reach ssh_tcp_22" in engineer("grant", typed, "ssh_tcp_22")
        assert engineer("group", "add", "staff", typed).startswith("alice is in group:staff")
    assert len(keys(consul, "befw/$alias$/$user.alice$/")) == 3
    assert keys(consul, "befw/$alias$/$staff$/") == ["befw/$alias$/$staff$/$user.alice$"]
    assert engineer("grant", "Bob@Other.example", "ssh_tcp_22").startswith("bob@other.example may reach")
    for typed, why in (
        ("host/pc", "for a user write user:host/pc"),
        ("pc$", "is a machine"),
        ("a\\b@c", "either of two realms"),
    ):
        assert why in engineer("grant", typed, "ssh_tcp_22"), typed

    unknown = engineer("revoke", "CORP\\Bob", "ssh_tcp_22")
    assert "'CORP\\\\Bob' is read as bob; group:user.CORP%5CBob is exactly what was typed" in unknown

    bridge.configure("10.0.0.0/8")
    bridge.reload()
    bridge.wait_log("configuration taken")
    wait_until(
        lambda: "alice@corp may" in engineer("grant", "CORP\\Alice", "ssh_tcp_22"), "the new rules to be recorded"
    )
    assert "rules of names differ" in bridge.read_log()
    assert engineer("revoke", "group:user.alice@corp", "ssh_tcp_22").startswith("alice@corp may no longer")


def test_hostile_packets_get_no_response_and_change_nothing(consul: ConsulServer, bridge: Bridge) -> None:
    bridge.start().wait_log("listening")
    good = request(7, start("mallory", "10.0.0.66"), SECRET)
    past_the_end = good[:-5] + bytes([8, 200]) + good[-3:]
    packets = {
        "wrong secret": request(1, start("mallory", "10.0.0.66"), b"not the secret"),
        "truncated": good[:-4],
        "header only, in part": good[:11],
        "attribute past the end": past_the_end,
        "attribute of length 0": good[:-6] + bytes([8, 0, 0, 0, 0, 0]),
        "Access-Request": bytes([1]) + good[1:],
        "zeroes": bytes(4096),
        "empty": b"",
    }
    with bridge.nas() as nas:
        for packet in packets.values():
            nas.sock.send(packet)
        # One good packet behind them: when it is answered, the others were looked at.
        assert nas.send(start("alice", "10.0.0.1")) is not None
        nas.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            nas.sock.recv(4096)
    assert [key for key in keys(consul) if "$alias$" in key] == ["befw/$alias$/$user.alice$/10.0.0.1"]
    assert "Traceback" not in bridge.read_log()
    assert SECRET.decode() not in bridge.read_log()


def test_addresses_outside_the_clients_networks_are_acknowledged_and_not_bound(
    consul: ConsulServer, bridge: Bridge
) -> None:
    bridge.start().wait_log("listening")
    with bridge.nas() as nas:
        for address in ("192.168.1.1", "127.0.0.1", "224.0.0.1", "169.254.1.1", "255.255.255.254", "0.0.0.0"):
            assert nas.send(start("alice", address)) is not None
    assert [key for key in keys(consul) if "$alias$" in key] == []


def test_sigterm_finishes_what_is_in_flight(consul: ConsulServer, bridge: Bridge) -> None:
    bridge.start().wait_log("listening")
    packet = request(1, start("alice", "10.0.0.1"), SECRET)
    with bridge.nas() as nas:
        consul.pause()
        nas.sock.send(packet)
        wait_until(lambda: _all_taken(bridge.port), "the bridge to take the packet")
        os.kill(bridge.pid, signal.SIGTERM)
        consul.resume()
        nas.sock.settimeout(8)
        assert is_response(nas.sock.recv(4096), packet, SECRET)
    assert bridge.terminate() == 0
    assert keys(consul, "befw/$alias$/") == ["befw/$alias$/$user.alice$/10.0.0.1"]


def test_sighup_reads_the_clients_anew_and_a_broken_file_changes_nothing(consul: ConsulServer, bridge: Bridge) -> None:
    bridge.start().wait_log("listening")
    bridge.configure("192.168.0.0/16")
    bridge.reload()
    bridge.wait_log("configuration taken")
    with bridge.nas() as nas:
        assert nas.send(start("alice", "10.0.0.1")) is not None
        assert nas.send(start("alice", "192.168.0.1")) is not None
    assert keys(consul, "befw/$alias$/") == ["befw/$alias$/$user.alice$/192.168.0.1"]
    bridge.config.write_text("[radius\n")
    bridge.reload()
    bridge.wait_log("the old one stays")
    with bridge.nas() as nas:
        assert nas.send(start("bob", "192.168.0.2")) is not None


def test_the_bridge_waits_for_consul_and_then_serves(consul: ConsulServer, bridge: Bridge) -> None:
    consul.kill()
    bridge.start().wait_log("waiting for Consul")
    with bridge.nas() as nas:
        assert nas.send(start("alice", "10.0.0.1"), timeout=0.5) is None
        consul.start()
        bridge.wait_log("listening")
        assert nas.send(start("alice", "10.0.0.1")) is not None


def test_a_stop_without_an_address_ends_the_session(consul: ConsulServer, bridge: Bridge) -> None:
    bridge.start().wait_log("listening")
    with bridge.nas() as nas:
        assert nas.send(start("alice", "10.0.0.1")) is not None
        assert keys(consul, "befw/$alias$/") == ["befw/$alias$/$user.alice$/10.0.0.1"]
        assert nas.send(accounting(Status.STOP, "alice", "s1")) is not None
    assert keys(consul, "befw/$alias$/") == []


def test_a_wrong_configuration_is_refused_by_file_key_and_value(consul: ConsulServer, bridge: Bridge) -> None:
    bridge.config.write_text(bridge.config.read_text().replace("10.0.0.0/8", "10.0.0.1/8"))
    done = run([BIN / "radius-bridge", "check-config", "-c", bridge.config], env=bridge.env)
    assert done.returncode == 2
    for part in (str(bridge.config), "client[0].networks[0]", "10.0.0.1/8"):
        assert part in done.stderr


def _all_taken(port: int) -> bool:
    """True when the kernel holds no datagram for the port any more."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port:
            return int(fields[4].split(":")[1], 16) == 0
    return False
