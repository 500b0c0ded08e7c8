"""`notify` and `publish`, run as engineers run them, against a real Consul."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.consul import ConsulServer
from tests.lab.processes import BIN, run, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def consul() -> Iterator[ConsulServer]:
    with ConsulServer() as server:
        yield server


@pytest.fixture
def env(consul: ConsulServer) -> dict[str, str]:
    root = f"befw-{time.monotonic_ns()}"
    return {"CONSUL_HTTP_ADDR": consul.url.removeprefix("http://"), "RADIUS_BRIDGE_ROOT": root}


@pytest.fixture
def announced(env: dict[str, str]) -> Callable[[], list[str]]:
    """The keys that engineers' records name."""

    def read() -> list[str]:
        folder = f"{env['RADIUS_BRIDGE_ROOT']}/$changes$/access/engineer/"
        lines = run(["consul", "kv", "get", "-recurse", folder], env=env).stdout.splitlines()
        records = [json.loads(value) for key, _, value in (line.partition(":") for line in lines) if value]
        return [entry[0] for record in records for entry in record.get("entries", [])]

    return read


def test_notify_announces_what_another_program_put(env: dict[str, str], announced: Callable[[], list[str]]) -> None:
    run(["consul", "kv", "put", f"{env['RADIUS_BRIDGE_ROOT']}/$service$/ssh_tcp_22/$staff$", "-1"], env=env)
    done = run([BIN / "radius-bridge", "notify", "$service$/ssh_tcp_22/"], env=env)
    assert (done.returncode, done.stdout) == (0, "1 entry announced\n")
    assert announced() == ["$service$/ssh_tcp_22/$staff$"]


def test_notify_of_nothing_fails_and_says_when_deletions_are_heard_of(env: dict[str, str]) -> None:
    done = run([BIN / "radius-bridge", "notify", "$service$/ssh_tcp_22/"], env=env)
    assert done.returncode == 1
    assert "15 seconds" in done.stderr


def test_a_grant_is_announced_with_it(env: dict[str, str], announced: Callable[[], list[str]]) -> None:
    assert run([BIN / "radius-bridge", "grant", "alice", "ssh_tcp_22"], env=env).returncode == 0
    assert announced() == ["$service$/ssh_tcp_22/$user.alice$"]


def test_publish_announces_what_is_put_while_it_runs_and_stops_on_sigterm(
    env: dict[str, str], announced: Callable[[], list[str]]
) -> None:
    root = env["RADIUS_BRIDGE_ROOT"]
    mark = f"{root}/$lock$/published-engineer"
    with subprocess.Popen(
        [BIN / "radius-bridge", "publish"], env={**os.environ, **env}, stderr=subprocess.DEVNULL
    ) as publish:
        try:
            wait_until(
                lambda: run(["consul", "kv", "get", mark], env=env).returncode == 0, "the first look", timeout=20
            )
            run(["consul", "kv", "put", f"{root}/$service$/ssh_tcp_22/$staff$", "-1"], env=env)
            wait_until(lambda: announced() == ["$service$/ssh_tcp_22/$staff$"], "the announcement", timeout=15)
        finally:
            publish.terminate()
            assert publish.wait(10) == 0
