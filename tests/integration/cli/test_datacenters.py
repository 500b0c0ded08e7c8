"""Engineers' commands with two datacenters: both are written, each result is told, and one that fails fails all.

RADIUS_BRIDGE_DATACENTERS stands in for what the bridge records at `$datacenters$`.
"""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.lab.consul import ConsulServer
from tests.lab.processes import BIN, run

pytestmark = pytest.mark.integration

DENIED = "$ipset$/rules_deny/192.0.2.7"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ConsulServer, ConsulServer]]:
    """dc1, where the engineers are, and dc2."""
    with ConsulServer() as home, ConsulServer(datacenter="dc2", node="lab2") as other:
        home.federate(other)
        yield home, other


class Engineers:
    """Runs `radius-bridge …` in dc1, and looks at both datacenters."""

    def __init__(self, servers: tuple[ConsulServer, ConsulServer], datacenters: str) -> None:
        self._servers = servers
        self._root = f"befw-{time.monotonic_ns()}"
        self._env = {
            "CONSUL_HTTP_ADDR": servers[0].url,
            "RADIUS_BRIDGE_ROOT": self._root,
            "RADIUS_BRIDGE_DATACENTERS": datacenters,
        }

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([BIN / "radius-bridge", *arguments], env=self._env, timeout=60)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, while it runs."""
        argv = [str(BIN / "radius-bridge"), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=os.environ | self._env, stdout=pipe, stderr=pipe, text=True)

    def put(self, key: str, value: str) -> None:
        """Puts a key into dc1, below the root."""
        run(["consul", "kv", "put", f"{self._root}/{key}", value], env=self._env)

    def stored(self) -> tuple[dict[str, str], dict[str, str]]:
        """What stands in dc1 and in dc2, but for the feed and the sentinel."""
        found = []
        for server in self._servers:
            shown = run(["consul", "kv", "get", "-recurse", self._root], env={"CONSUL_HTTP_ADDR": server.url}).stdout
            pairs = (line.removeprefix(f"{self._root}/").rsplit(":", 1) for line in shown.splitlines())
            found.append({key: value for key, value in pairs if key.startswith(("$service$", "$alias$", "$ipset$"))})
        return found[0], found[1]


@pytest.fixture
def engineer(servers: tuple[ConsulServer, ConsulServer]) -> Engineers:
    return Engineers(servers, "dc1,dc2")


def test_every_write_goes_to_both_and_says_so(engineer: Engineers) -> None:
    done = engineer("grant", "alice", "ssh_tcp_22")
    assert done.returncode == 0, done.stderr
    assert "alice may reach ssh_tcp_22 (everywhere), for good; in dc1, dc2" in done.stdout
    assert engineer("group", "add", "staff", "alice").returncode == 0
    assert engineer("block", "192.0.2.7").returncode == 0
    both = {"$service$/ssh_tcp_22/$user.alice$": "-1", "$alias$/$staff$/$user.alice$": "-1", DENIED: "-1"}
    assert engineer.stored() == (both, both)
    for command in (
        ["revoke", "alice", "ssh_tcp_22"],
        ["group", "remove", "staff", "alice"],
        ["unblock", "192.0.2.7"],
    ):
        assert engineer(*command).returncode == 0
        assert engineer(*command).returncode == 1, "there is nothing left to take back"
    assert engineer.stored() == ({}, {})


def test_the_bridges_own_list_counts_where_nobody_says_otherwise(servers: tuple[ConsulServer, ConsulServer]) -> None:
    engineer = Engineers(servers, "")
    engineer("grant", "alice", "ssh_tcp_22")
    assert engineer.stored()[1] == {}, "one datacenter is all there is"
    engineer.put("$datacenters$", '{"home": "dc1", "copies": ["dc2"]}')
    assert "in dc1, dc2" in engineer("grant", "alice", "ssh_tcp_22").stdout
    assert engineer.stored()[1] == engineer.stored()[0] != {}


def test_a_datacenter_can_be_asked_through_its_own_consul(servers: tuple[ConsulServer, ConsulServer]) -> None:
    engineer = Engineers(servers, f"dc1,dc2={servers[1].url}")
    assert "in dc1, dc2" in engineer("grant", "alice", "ssh_tcp_22").stdout
    assert engineer.stored()[1] == engineer.stored()[0] != {}
    wrong = Engineers(servers, "dc1,dc2=consul.dc2")("grant", "alice", "ssh_tcp_22")
    assert wrong.returncode == 2
    assert "RADIUS_BRIDGE_DATACENTERS: dc2: write scheme, host and port only" in wrong.stderr


def test_a_datacenter_that_does_not_answer_fails_the_command_and_not_the_others(
    servers: tuple[ConsulServer, ConsulServer], engineer: Engineers
) -> None:
    servers[1].pause()
    try:
        done = engineer("grant", "alice", "ssh_tcp_22")
    finally:
        servers[1].resume()
    assert done.returncode == 1
    assert "; in dc1" in done.stdout
    assert "error: not in dc2" in done.stderr
    assert "run the same command again" in done.stderr
    assert engineer.stored()[0] == {"$service$/ssh_tcp_22/$user.alice$": "-1"}


def test_a_block_is_tried_until_every_datacenter_has_it(
    servers: tuple[ConsulServer, ConsulServer], engineer: Engineers
) -> None:
    servers[1].pause()
    try:
        with engineer.start("block", "192.0.2.7", "--for", "1h") as block:
            assert block.stderr is not None
            first = block.stderr.readline()
            servers[1].resume()
            _, rest = block.communicate(timeout=60)
    finally:
        servers[1].resume()
    assert block.returncode == 0, rest
    assert first.startswith("dc2: not yet")
    assert "dc2: done" in rest
    here, there = engineer.stored()
    assert here == there
    assert set(here) == {DENIED}


def test_a_block_that_is_given_up_fails_and_says_where(
    servers: tuple[ConsulServer, ConsulServer], engineer: Engineers
) -> None:
    servers[1].pause()
    try:
        done = engineer("block", "192.0.2.7", "--timeout", "3s")
    finally:
        servers[1].resume()
    assert done.returncode == 1
    assert "not in dc2" in done.stderr
    assert engineer.stored()[0] == {DENIED: "-1"}


def test_a_datacenter_that_does_not_exist_is_named(servers: tuple[ConsulServer, ConsulServer]) -> None:
    done = Engineers(servers, "dc1,dc9")("grant", "alice", "ssh_tcp_22")
    assert done.returncode == 1
    assert "not in dc9" in done.stderr
    assert Engineers(servers, "dc1,d/c")("grant", "alice", "ssh_tcp_22").returncode == 2
