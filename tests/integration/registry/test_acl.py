"""The policies in config/consul as they are, on a Consul with ACLs: who may say what, and what a forger gets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from radius_bridge.identity.events import Kind
from radius_bridge.identity.names import Naming
from radius_bridge.registry import meta, notices
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Forbidden
from radius_bridge.registry.feed import Change, Class, brief_record, record_key
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.naming import NamingRecord
from radius_bridge.registry.naming import read as read_naming
from radius_bridge.registry.neighbours import Neighbours
from radius_bridge.registry.publisher import Publisher
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer
from tests.registry.events import ADDRESS, event

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[float]]

POLICIES = Path(__file__).parents[3] / "config" / "consul"
MASTER = "5e1f0000-0000-4000-8000-000000000000"
ACL = {
    "primary_datacenter": "dc1",
    "acl": {
        "enabled": True,
        "default_policy": "deny",
        "enable_key_list_policy": True,
        "tokens": {"master": MASTER, "agent": MASTER},
    },
}
KEYS = Keys()
NOW = float(int(time.time()))


class Site:
    """A Consul with ACLs, and a connection by the name of each policy."""

    def __init__(self, server: ConsulServer, tokens: dict[str, str]) -> None:
        self.server = server
        self.tokens = tokens

    def __call__(self, policy: str) -> Consul:
        return Consul(ConsulSettings(url=self.server.url, token=SecretStr(self.tokens[policy])))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ConsulServer(config=ACL, token=MASTER) as server:
        tokens = {"master": MASTER}
        for policy in ("agent", "bridge", "engineer"):
            server.command("acl", "policy", "create", f"-name={policy}", f"-rules=@{POLICIES / policy}.hcl")
            made = server.command("acl", "token", "create", f"-policy-name={policy}", "-format=json")
            tokens[policy] = json.loads(made)["SecretID"]
        yield Site(server, tokens)


@asynccontextmanager
async def host(site: Site) -> AsyncIterator[Follower]:
    """A follower with an agent's token that has read everything."""
    async with site("bridge") as bridge:
        await meta.ensure(bridge, KEYS)
    async with site("agent") as consul:
        follower = Follower(consul, KEYS, KEYS.access_changes)
        follower.cover([KEYS.groups, KEYS.services, KEYS.sets])
        async with running(follower.run()):
            await asyncio.wait_for(follower.wait_complete(), 10)
            yield follower


async def test_each_side_says_its_half_and_hosts_hear_it(site: Site, eventually: Eventually) -> None:
    grant, member = f"{KEYS.services}ssh_tcp_22/$staff$", f"{KEYS.groups}$user.alice$/{ADDRESS}"
    async with host(site) as follower, site("engineer") as engineer, site("bridge") as bridge:
        async with Lanes(bridge, KEYS) as lanes, running(Neighbours(bridge, KEYS, lanes).run()):
            await lanes.submit(event(Kind.START, "alice", NOW, ADDRESS))
        await engineer.transact(notices.announced(KEYS, [Op.set(grant, b"-1")]))

        async def heard() -> bool:
            return follower.view.get(grant) == b"-1" and follower.view.get(member) is not None

        await eventually(heard, within=2)
        assert follower.counters["forged"] == 0


async def test_the_bridge_says_how_names_are_read_and_engineers_read_it(site: Site, eventually: Eventually) -> None:
    naming = Naming(realms={"corp": ""})
    async with site("bridge") as bridge, site("engineer") as engineer:
        async with running(NamingRecord(bridge, KEYS, naming).run()):

            async def is_told() -> bool:
                return await read_naming(engineer, KEYS) == naming

            await eventually(is_told, within=2)
        with pytest.raises(Forbidden):
            await engineer.transact([Op.set(KEYS.names, b"{}")])


@pytest.mark.parametrize(
    ("policy", "writers", "named"),
    [
        ("bridge", Class.BRIDGE, f"{KEYS.services}ssh_tcp_22/192.0.2.66"),
        ("bridge", Class.BRIDGE, f"{KEYS.sets}rules_allow/192.0.2.66"),
        ("bridge", Class.BRIDGE, f"{KEYS.groups}$staff$/192.0.2.66"),
        ("engineer", Class.ENGINEER, f"{KEYS.groups}$user.alice$/192.0.2.66"),
        ("engineer", Class.ENGINEER, f"{KEYS.groups}$radius.vpn$/192.0.2.66"),
        ("engineer", Class.ENGINEER, f"{KEYS.bindings}192.0.2.66"),
    ],
)
async def test_what_a_token_may_not_write_it_cannot_bring_in_through_the_feed(
    site: Site, policy: str, writers: Class, named: str, eventually: Eventually
) -> None:
    other = Class.ENGINEER if writers is Class.BRIDGE else Class.BRIDGE
    async with host(site) as follower, site(policy) as forger:
        record = brief_record(KEYS, [Change(named, b"-1", 0)], time.time())
        with pytest.raises(Forbidden):
            await forger.transact([Op.set(named, b"-1")])
        with pytest.raises(Forbidden):
            await forger.transact([Op.set(record_key(KEYS, other, "forger"), record)])
        await forger.transact([Op.set(record_key(KEYS, writers, "forger"), record)])

        async def alarmed() -> bool:
            return follower.counters["forged"] == 1

        await eventually(alarmed, within=2)
        assert named.removeprefix("befw/") in follower.alarms[-1]
        assert follower.view.get(named) is None
        assert follower.is_complete
        await forger.transact([Op.delete(record_key(KEYS, writers, "forger"))])


async def test_an_entry_from_the_future_is_forged(site: Site, eventually: Eventually) -> None:
    key = f"{KEYS.groups}$user.alice$/192.0.2.66"
    async with host(site) as follower, site("bridge") as forger:
        record = brief_record(KEYS, [Change(key, b"-1", 1 << 40)], time.time())
        await forger.transact([Op.set(record_key(KEYS, Class.BRIDGE, "forger"), record)])

        async def alarmed() -> bool:
            return follower.counters["forged"] == 1

        await eventually(alarmed, within=2)
        assert follower.view.get(key) is None


async def test_serve_publishes_its_half_and_an_engineers_token_the_other(site: Site, eventually: Eventually) -> None:
    grant, member = f"{KEYS.services}www_tcp_80/$staff$", f"{KEYS.groups}$user.carol$/192.0.2.3"
    async with host(site) as follower, site("engineer") as engineer, site("bridge") as bridge, site("master") as other:
        serve, publish = Publisher(bridge, KEYS), Publisher(engineer, KEYS)

        async def both_read() -> bool:
            return serve.counters["readings"] > 0 and publish.counters["readings"] > 0

        async with running(serve.run()), running(publish.run([Class.ENGINEER])):
            await eventually(both_read, within=10)
            await other.transact([Op.set(grant, b"-1"), Op.set(member, b"-1")])

            async def heard() -> bool:
                return follower.view.get(grant) == follower.view.get(member) == b"-1"

            await eventually(heard, within=15)
        assert follower.counters["reads"] == 3
        assert follower.counters["forged"] == 0
