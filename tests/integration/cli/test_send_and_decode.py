"""`send` to a real bridge ends in Consul, and `decode` reads a capture as FreeRADIUS' radsniff does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_decode import START
from tests.lab.consul import ConsulServer
from tests.lab.ports import free_port
from tests.lab.processes import BIN, Process, run, wait_until
from tests.radius.test_capture import V4, ethernet, ip, pcap

pytestmark = pytest.mark.integration

SECRET = "a shared secret!"


@pytest.fixture
def consul() -> Iterator[ConsulServer]:
    with ConsulServer() as server:
        yield server


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


def test_a_login_that_was_sent_is_in_consul_and_a_logout_ends_it(
    consul: ConsulServer, tmp_path: Path, secret_file: Path
) -> None:
    server = f"127.0.0.1:{free_port()}"
    config = tmp_path / "bridge.toml"
    config.write_text(
        f'[consul]\nurl = "{consul.url}"\n[radius]\nlisten = ["{server}"]\n'
        f'[[client]]\nname = "lab"\naddress = "127.0.0.1"\nsecret_file = "{secret_file}"\n'
        'networks = ["10.0.0.0/8", "2001:db8::/32"]\n'
        '[[group]]\ngroup = "radius.staff"\nattribute = "Class"\nvalue = "staff"\n'
    )
    bridge = Process("bridge", [BIN / "radius-bridge", "serve", "-c", config], log=tmp_path / "bridge.log")

    def send(*arguments: str) -> None:
        argv: list[str | Path] = [
            BIN / "radius-bridge",
            "send",
            *arguments,
            "--server",
            server,
            "--secret-file",
            secret_file,
        ]
        done = run(argv)
        assert done.returncode == 0, done.stderr
        assert f"answered by {server}" in done.stdout

    def members() -> set[str]:
        env = {"CONSUL_HTTP_ADDR": consul.url}
        return set(run(["consul", "kv", "get", "-keys", "-separator=", "befw/$alias$/"], env=env).stdout.split())

    bridge.start().wait_log("listening")
    try:
        send("login", "alice", "10.1.2.3", "2001:db8::1", "--session-timeout", "8h")
        send("login", "bob", "255.255.255.255", "-a", "Huawei-IPHost-Addr=10.1.2.4 02:00:00:00:00:01")
        both = {"befw/$alias$/$user.alice$/10.1.2.3", "befw/$alias$/$user.alice$/2001:db8::1"}
        assert members() == both | {"befw/$alias$/$user.bob$/10.1.2.4"}
        send("logout", "alice", "10.1.2.3", "2001:db8::1")
        wait_until(lambda: members() == {"befw/$alias$/$user.bob$/10.1.2.4"}, "alice's addresses to go")
        send("login", "carol", "10.1.2.5", "--attribute", "Class=staff")
        assert "befw/$alias$/$radius.staff$/10.1.2.5" in members()
    finally:
        bridge.terminate()


def test_a_capture_reads_as_radsniff_reads_it(tmp_path: Path, secret_file: Path) -> None:
    file = tmp_path / "capture.pcap"
    file.write_bytes(pcap(1, ethernet(ip((V4[1], V4[0]), START))))
    theirs = run(["radsniff", "-x", "-s", SECRET, "-I", file]).stdout
    ours = run([BIN / "radius-bridge", "decode", file, "--secret-file", secret_file]).stdout
    assert "authenticator right" in ours
    lines = {line.strip() for line in theirs.splitlines() if re.match(r"\t[A-Z]", line)}
    assert {line for line in lines if "Authenticator-Field" not in line} == {
        line.strip() for line in ours.splitlines() if line.startswith("  ")
    }
