"""`radius-bridge send`: test traffic as a NAS sends it."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from radius_bridge.cli.main import app
from radius_bridge.radius.attributes import unpack
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import accounting_response, is_genuine, parse
from tests.lab.ports import free_port

SECRET = b"a shared secret!"


class Server:
    """Answers requests as `answer` says, and remembers them."""

    def __init__(self, family: socket.AddressFamily, host: str) -> None:
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.settimeout(20)
        self.requests: list[bytes] = []
        self.answer: Callable[[bytes], bytes | None] = lambda data: accounting_response(parse(data), SECRET)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self.sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def attributes(self) -> list[dict[str, str]]:
        """Of each request, its attributes by name."""
        return [
            {standard().name(leaf.path): leaf.show() for leaf in unpack(parse(data).attributes, standard())}
            for data in self.requests
        ]

    def close(self) -> None:
        with socket.socket(self.sock.family, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.sock.getsockname())
        self._thread.join(10)
        self.sock.close()

    def _serve(self) -> None:
        while True:
            data, peer = self.sock.recvfrom(4096)
            if not data:
                return
            self.requests.append(data)
            answer = self.answer(data)
            if answer is not None:
                self.sock.sendto(answer, peer)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(socket.AF_INET, "127.0.0.1")
    yield made
    made.close()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    file.chmod(0o600)
    return file


def send(server: str, secret_file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["send", *arguments, "--server", server, "--secret-file", str(secret_file)])


def test_a_login_is_a_start_with_all_its_addresses(server: Server, secret_file: Path) -> None:
    arguments = ["login", "alice", "10.1.2.3", "2001:db8::1", "--session-timeout", "8h", "--mac", "02-00-00-00-00-01"]
    result = send(server.address, secret_file, *arguments, "-a", "Cisco-AVPair=a=b", "--nas", "switch-1")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"login: answered by {server.address} after ")
    (request,) = server.requests
    assert is_genuine(parse(request), SECRET)
    (attributes,) = server.attributes()
    assert (
        attributes.items()
        >= {
            "Acct-Status-Type": "Start",
            "User-Name": "alice",
            "NAS-Identifier": "switch-1",
            "Framed-IP-Address": "10.1.2.3",
            "Framed-IPv6-Address": "2001:db8::1",
            "Session-Timeout": "28800",
            "Calling-Station-Id": "02-00-00-00-00-01",
            "Cisco-AVPair": "a=b",
        }.items()
    )
    assert "Event-Timestamp" in attributes


def test_login_interim_and_logout_of_the_same_are_one_session(server: Server, secret_file: Path) -> None:
    for what, addresses in (("login", ["10.0.0.1", "10.0.0.2"]), ("interim", ["10.0.0.2", "10.0.0.1"])):
        assert send(server.address, secret_file, what, "alice", *addresses).exit_code == 0
    assert send(server.address, secret_file, "logout", "alice", "10.0.0.1", "10.0.0.2").exit_code == 0
    assert send(server.address, secret_file, "login", "bob", "10.0.0.1", "10.0.0.2").exit_code == 0
    assert send(server.address, secret_file, "logout", "bob", "--session", "S1").exit_code == 0
    sent = server.attributes()
    assert [each["Acct-Status-Type"] for each in sent] == ["Start", "Interim-Update", "Stop", "Start", "Stop"]
    sessions = [each["Acct-Session-Id"] for each in sent]
    assert sessions[0] == sessions[1] == sessions[2] != sessions[3]
    assert sessions[4] == "S1"


def test_on_and_off_are_about_the_nas(server: Server, secret_file: Path) -> None:
    assert send(server.address, secret_file, "on").exit_code == 0
    assert send(server.address, secret_file, "off").exit_code == 0
    assert [each["Acct-Status-Type"] for each in server.attributes()] == ["Accounting-On", "Accounting-Off"]
    result = send(server.address, secret_file, "on", "alice")
    assert (result.exit_code, "leave USER and ADDRESS out" in result.stderr) == (2, True)


def test_it_is_repeated_unchanged_until_it_is_answered(server: Server, secret_file: Path) -> None:
    right = server.answer
    server.answer = lambda data: right(data) if len(server.requests) > 1 else None
    result = send(server.address, secret_file, "login", "alice", "10.0.0.1", "--wait", "0.2", "--json")
    told = json.loads(result.stdout)
    assert (told["server"], told["tries"]) == (server.address, 2)
    assert told["milliseconds"] >= 200
    assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda data: None, "nothing came in 2 times 0.1 s. Is the secret right"),
        (lambda data: accounting_response(parse(data), b"another"), "no answer made with this secret"),
        (lambda data: b"nonsense", "no answer made with this secret"),
    ],
)
def test_without_an_answer_the_exit_code_is_1(
    server: Server, secret_file: Path, answer: Callable[[bytes], bytes | None], message: str
) -> None:
    server.answer = answer
    result = send(server.address, secret_file, "login", "alice", "10.0.0.1", "--wait", "0.1", "--tries", "2")
    assert result.exit_code == 1
    assert f"no answer from {server.address}: " in result.stderr
    assert message in result.stderr


def test_where_nobody_listens_it_says_so(secret_file: Path) -> None:
    result = send(f"127.0.0.1:{free_port()}", secret_file, "login", "alice", "10.0.0.1")
    assert (result.exit_code, "nobody listens there" in result.stderr) == (1, True)


def test_it_speaks_ipv6(secret_file: Path) -> None:
    server = Server(socket.AF_INET6, "::1")
    try:
        assert send(server.address, secret_file, "login", "alice", "10.0.0.1").exit_code == 0
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["login"], "login: say who"),
        (["login", "alice", "nowhere"], "'nowhere'"),
        (["login", "alice", "10.0.0.0/8"], "10.0.0.0/8 is a network: write addresses"),
        (["login", "alice", "10.0.0.1", "-a", "Nobody=1"], "'Nobody' is no attribute"),
        (["login", "alice", "10.0.0.1", "-a", "Session-Timeout=soon"], "write a number from 0 to 4294967295"),
        (["login", "alice", "10.0.0.1", "--session-timeout", "soon"], "soon"),
        (["login", "a" * 254, "10.0.0.1"], "a value of 254 octets does not fit"),
    ],
)
def test_what_cannot_be_sent_ends_with_code_2(secret_file: Path, arguments: list[str], message: str) -> None:
    result = send("127.0.0.1:9", secret_file, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(("server", "message"), [("127.0.0.1:0", "'0' is no port"), ("127.0.0.1:x", "'x' is no port")])
def test_a_server_that_cannot_be_meant_ends_with_code_2(secret_file: Path, server: str, message: str) -> None:
    result = send(server, secret_file, "on")
    assert (result.exit_code, message in result.stderr) == (2, True)


def test_a_secret_is_needed() -> None:
    result = CliRunner().invoke(app, ["send", "login", "alice", "10.0.0.1"])
    assert (result.exit_code, "the server's shared secret is missing" in result.stderr) == (2, True)
