"""A host tells of itself in Consul, with a token that may do nothing else; engineers see it."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agent.enforce import Enforcer
from agent.settings import AgentSettings
from radius_bridge.registry import meta
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Forbidden
from radius_bridge.registry.feed import Class, record_key
from radius_bridge.registry.hosts import FRESH, HostRecord, Waiting, decode, encode
from radius_bridge.registry.kv import Op
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.agent.test_enforce import GRANT, HERE, KEYS, SSH, Kernel, member
from tests.integration.registry.running import running
from tests.integration.registry.test_acl import ACL, MASTER, POLICIES
from tests.lab.consul import ConsulServer
from tests.lab.processes import BIN, run
from tests.waiting import until

pytestmark = pytest.mark.integration

NODE = "web1"


@pytest.fixture(scope="module")
def server() -> Iterator[ConsulServer]:
    with ConsulServer(config=ACL, token=MASTER) as server:
        yield server


@pytest.fixture(scope="module")
def tokens(server: ConsulServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tokens: of a host with its own policy, of a host that has none, of an engineer."""
    own = tmp_path_factory.mktemp("policy") / "own.hcl"
    own.write_text((POLICIES / "agent-host.hcl").read_text().replace("NODE", NODE))
    policies = {"agent": POLICIES / "agent.hcl", "own": own, "engineer": POLICIES / "engineer.hcl"}
    for name, path in policies.items():
        server.command("acl", "policy", "create", f"-name={name}", f"-rules=@{path}")
    made = {}
    for name, of in {"host": ["agent", "own"], "agent": ["agent"], "engineer": ["engineer"]}.items():
        chosen = [f"-policy-name={each}" for each in of]
        made[name] = json.loads(server.command("acl", "token", "create", *chosen, "-format=json"))["SecretID"]
    return made


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    (tmp_path / "ssh.json").write_text(json.dumps({"name": "ssh", "port": 22}))
    return AgentSettings(services_dir=tmp_path, state_dir=tmp_path / "state", control_socket=tmp_path / "socket")


def connect(server: ConsulServer, token: str) -> Consul:
    return Consul(ConsulSettings(url=server.url, token=SecretStr(token)))


def engineer(server: ConsulServer, tokens: dict[str, str], *arguments: str) -> Any:
    env = {"CONSUL_HTTP_ADDR": server.url, "CONSUL_HTTP_TOKEN": tokens["engineer"]}
    return run([BIN / "radius-bridge", *arguments], env=env)


async def test_a_host_tells_what_it_enforces_and_engineers_list_it(
    server: ConsulServer, tokens: dict[str, str], settings: AgentSettings
) -> None:
    async with connect(server, MASTER) as master, connect(server, tokens["host"]) as consul:
        await meta.ensure(master, KEYS)
        login = {member("alice", "10.0.0.1"): b"-1"}
        await master.transact([Op.set(key, value) for key, value in (GRANT | login).items()])
        agent = Enforcer(settings, HERE, consul, Kernel(), lambda: None, asyncio.Event())
        async with running(agent.run()), running(agent.telling.run()):
            await until(lambda: agent.telling.counters["writes"] == 1)
            entry = await master.get(KEYS.host(NODE))
            assert entry is not None
            told = decode(entry.key, entry.value)
            assert (told.enforcing, told.services, told.datacenter) == ("consul", {SSH: 1}, "dc1")
            assert not told.needs_help
            assert len(entry.value) < 1000
    shown = await asyncio.to_thread(engineer, server, tokens, "hosts", "--json")
    (listed,) = json.loads(shown.stdout)
    assert (listed["node"], listed["state"], listed["services"]) == (NODE, "fresh", {SSH: 1})


async def test_a_token_that_may_not_tell_is_counted_and_enforcement_goes_on(
    server: ConsulServer, tokens: dict[str, str], settings: AgentSettings
) -> None:
    kernel = Kernel()
    async with connect(server, MASTER) as master, connect(server, tokens["agent"]) as consul:
        await meta.ensure(master, KEYS)
        agent = Enforcer(settings, HERE, consul, kernel, lambda: None, asyncio.Event())
        async with running(agent.run()), running(agent.telling.run()):
            await until(lambda: agent.telling.counters["failures"] == 1 and bool(kernel.told))
            assert "may not" in agent.status()["told"]["error"]
            assert agent.status()["errors"] == {}


@pytest.mark.parametrize(
    "key",
    [
        KEYS.host("web2"),
        f"{KEYS.host(NODE)}/below",
        f"{KEYS.host(NODE)}2",
        KEYS.hosts,
        next(iter(GRANT)),
        member("alice", "10.0.0.66"),
        f"{KEYS.sets}rules_allow/10.0.0.66",
        f"{KEYS.confirmations}0123456789ab",
        record_key(KEYS, Class.BRIDGE, "forger"),
        record_key(KEYS, Class.ENGINEER, "forger"),
        KEYS.meta,
        KEYS.lock("sweeper"),
    ],
)
async def test_a_hosts_token_may_write_its_own_key_and_nothing_else(
    server: ConsulServer, tokens: dict[str, str], key: str
) -> None:
    async with connect(server, tokens["host"]) as consul:
        await consul.transact([Op.set(KEYS.host(NODE), b"{}")])
        with pytest.raises(Forbidden):
            await consul.transact([Op.set(key, b"-1")])
        with pytest.raises(Forbidden):
            await consul.transact([Op.delete(key)])


async def test_hosts_that_are_silent_hold_something_or_are_in_trouble_are_told_apart(
    server: ConsulServer, tokens: dict[str, str]
) -> None:
    now = time.time()
    fine = HostRecord(now, "dc1", "consul", services={SSH: 3}, service_count=1)
    held = (Waiting("0123456789ab", "removal", SSH, 145, now, "confirm"),)
    records = {
        "fine": fine,
        "gone": HostRecord(now - FRESH - 60, "dc1", "consul"),
        "careful": HostRecord(now, "dc1", "consul", held=held),
        "broken": HostRecord(now, "dc1", "consul", errors={"kernel": "out of order"}),
        "booted": HostRecord(now, "dc1", "restored"),
    }
    async with connect(server, MASTER) as master:
        await meta.ensure(master, KEYS)
        await master.transact([Op.set(KEYS.host(node), encode(record)) for node, record in records.items()])
        await master.transact([Op.set(KEYS.host("odd"), b"nonsense")])
    shown = await asyncio.to_thread(engineer, server, tokens, "hosts", "--json")
    states = {each["node"]: each["state"] for each in json.loads(shown.stdout) if each["node"] in records}
    assert states == {"fine": "fresh", "gone": "stale", "careful": "held", "broken": "problem", "booted": "problem"}
    assert "$host$/odd" in shown.stderr
    table = (await asyncio.to_thread(engineer, server, tokens, "hosts")).stdout
    assert "removal of 145 in ssh_tcp_22 waits for radius-bridge confirm 0123456789ab" in table
    said = await asyncio.to_thread(engineer, server, tokens, "confirm", "0123456789ab", "--for", "10m")
    assert said.returncode == 0, said.stderr
    assert "careful: removal of 145 members, ssh_tcp_22" in said.stdout
    async with connect(server, tokens["agent"]) as consul:
        word = await consul.get(f"{KEYS.confirmations}0123456789ab")
        assert word is not None
        assert now + 600 <= int(word.value) + 1 <= time.time() + 601
