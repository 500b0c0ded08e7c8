"""A deliberate mass change is confirmed where it is made: with what it hits, against a real Consul."""

import asyncio
import os
import pty
import subprocess
import time
from collections.abc import Iterator

import pytest

from radius_bridge.identity.bindings import Binding, Claim
from radius_bridge.policy.members import GroupRef, parse_prefix, user_group
from radius_bridge.registry import meta
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.hosts import HostRecord, encode
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import MAX_OPS, Op
from radius_bridge.registry.records import encode as encode_binding
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.cli.test_engineer import Engineer
from tests.lab.consul import ConsulServer
from tests.lab.processes import BIN, PROJECT

pytestmark = pytest.mark.integration

KEYS = Keys()
NOW = time.time()


@pytest.fixture(scope="module")
def consul() -> Iterator[ConsulServer]:
    with ConsulServer() as server:
        yield server


@pytest.fixture(scope="module")
def engineer(consul: ConsulServer) -> Engineer:
    """Somebody at a site with two hosts, one login, and a group of 1,200 that is in another group."""
    asyncio.run(_furnish(consul))
    return Engineer(consul, KEYS.root)


async def _furnish(consul: ConsulServer) -> None:
    values: dict[str, bytes] = {
        KEYS.group_member(GroupRef("everybody"), user_group(f"user{number}")): b"-1" for number in range(1200)
    }
    values[KEYS.group_member(GroupRef("site"), GroupRef("everybody"))] = b"-1"
    values[KEYS.group_member(GroupRef("everybody"), GroupRef("site"))] = b"-1"
    values[KEYS.group_member(GroupRef("few"), parse_prefix("192.0.2.0/25"))] = b"-1"
    claim = Claim("alice", since=NOW, seen=NOW, limit=NOW + 3600, fallback=NOW + 3600)
    values[KEYS.binding(parse_prefix("10.1.2.3"))] = encode_binding(Binding({"session": claim}))
    for node, services in {"web1": {"ssh_tcp_22": 1}, "web2": {"web_tcp_80": 0}}.items():
        values[KEYS.host(node)] = encode(HostRecord(NOW, "dc1", "consul", services=services))
    async with Consul(ConsulSettings(url=consul.url)) as connected:
        await meta.ensure(connected, KEYS)
        ops = [Op.set(key, value) for key, value in values.items()]
        for start in range(0, len(ops), MAX_OPS):
            await connected.transact(ops[start : start + MAX_OPS])


@pytest.mark.parametrize(
    ("command", "hits"),
    [
        (
            "grant 10.0.0.0/8 ssh_tcp_22",
            "grant 10.0.0.0/8 ssh_tcp_22 hits 16,777,216 addresses (1 user logged in there now), on 1 host;",
        ),
        ("grant 0.0.0.0/0 web_tcp_80 --for 1h", "4,294,967,296 addresses"),
        ("block group:site --for 1h", "block group:site hits 1,200 users, on 2 hosts;"),
        ("block 2001:db8::/32", "4,294,967,296 addresses"),
        ("group add ops group:everybody", "group add ops group:everybody hits 1,200 users"),
    ],
)
def test_a_program_that_hits_very_many_must_say_that_it_means_it(engineer: Engineer, command: str, hits: str) -> None:
    before = engineer.stored()
    refused = engineer(*command.split())
    assert refused.returncode == 1
    assert hits in refused.stderr
    assert "nothing was written" in refused.stderr
    assert "--yes" in refused.stderr
    assert engineer.stored() == before
    meant = engineer(*command.split(), "--yes")
    assert meant.returncode == 0, meant.stderr
    assert len(engineer.stored()) == len(before) + 1


@pytest.mark.parametrize(
    "command",
    [
        "grant alice ssh_tcp_22",
        "grant 192.0.2.0/24 ssh_tcp_22",
        "grant 2001:db8:1::/64 ssh_tcp_22",
        "grant group:few ssh_tcp_22",
        "block 192.0.2.7",
        "group add ops bob",
    ],
)
def test_what_hits_few_is_done_at_once(engineer: Engineer, command: str) -> None:
    done = engineer(*command.split())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("answer", "written"), [("y\n", 1), ("n\n", 0), ("\n", 0)])
def test_a_person_is_asked(engineer: Engineer, answer: str, written: int) -> None:
    network = {"y\n": "10.32.0.0/11", "n\n": "10.64.0.0/11", "\n": "10.96.0.0/11"}[answer]
    before = len(engineer.stored())
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [BIN / "radius-bridge", "grant", network, "ssh_tcp_22"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"], **engineer.env},
        ) as command:
            os.write(ours, answer.encode())
            said, _ = command.communicate(timeout=20)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "2,097,152 addresses" in said
    assert command.returncode == 1 - written
    assert len(engineer.stored()) == before + written
