"""config/consul/bridge.hcl is all that the bridge needs: it records, and it answers Status-Server."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from radius_bridge.radius import status
from tests.lab.consul import ConsulServer
from tests.lab.ports import free_port
from tests.lab.processes import BIN, PROJECT, Process, wait_until
from tests.lab.radius_client import AccountingClient, Status, accounting

pytestmark = pytest.mark.integration

SECRET = b"lab-bridge-secret"
MASTER = "00000000-0000-0000-0000-000000000001"
ACL = {"acl": {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}}}


@pytest.fixture
def consul() -> Iterator[ConsulServer]:
    with ConsulServer(config=ACL, token=MASTER) as server:
        yield server


def test_the_bridges_policy_lets_it_record_and_prove_that_it_can(consul: ConsulServer, tmp_path: Path) -> None:
    consul.command("acl", "policy", "create", "-name=bridge", f"-rules=@{PROJECT / 'config/consul/bridge.hcl'}")
    made = consul.command("acl", "token", "create", "-policy-name=bridge", "-format=json")
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(json.loads(made)["SecretID"])
    address = "127.0.0.1", free_port()
    config = tmp_path / "bridge.toml"
    config.write_text(
        f'[consul]\nurl = "{consul.url}"\ntoken_file = "{token}"\n[radius]\nlisten = ["127.0.0.1:{address[1]}"]\n'
        f'[[client]]\nname = "lab"\naddress = "127.0.0.1"\nsecret_env = "SECRET"\nnetworks = ["10.0.0.0/8"]\n'
    )
    argv: list[str | Path] = [BIN / "radius-bridge", "serve", "-c", config]
    bridge = Process("bridge", argv, log=tmp_path / "bridge.log", env={"SECRET": SECRET.decode()})
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(address)
    with AccountingClient(sock, SECRET) as nas:
        try:
            bridge.start().wait_log("listening")

            def is_recording() -> bool:
                sock.send(status.request(200, SECRET))
                sock.settimeout(0.5)
                try:
                    return sock.recv(4096)[1] == 200
                except TimeoutError:
                    return False

            wait_until(is_recording, "Status-Server to be answered")
            assert nas.send(accounting(Status.START, "alice", "s1", "10.1.2.3")) is not None
        finally:
            bridge.kill()
    assert "lacks" not in bridge.read_log()
    assert '"level": "error"' not in bridge.read_log()
    assert "alice" in consul.command("kv", "get", "befw/$binding$/10.1.2.3")
