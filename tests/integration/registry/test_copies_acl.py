"""Copies with ACLs in both datacenters, by the policies in config/consul as they are, through the copy's own Consul."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from radius_bridge.registry import meta, notices
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.copies import Copies
from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import Forbidden
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.leader import Leader
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.registry.running import running
from tests.integration.registry.test_acl import ACL, MASTER, POLICIES
from tests.lab.consul import ConsulServer

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[float]]
KEYS = Keys()
LATER = str(int(time.time()) + 3600).encode()


def elsewhere(home: ConsulServer) -> dict[str, Any]:
    """dc2's configuration: tokens and policies are dc1's, which it must find at its start."""
    tokens = {"agent": MASTER, "replication": MASTER}
    acl = {"enabled": True, "default_policy": "deny", "enable_key_list_policy": True, "tokens": tokens}
    return {"primary_datacenter": "dc1", "retry_join_wan": [home.wan], "acl": acl}


class Sites:
    """dc1, the home, and dc2; connections with the token of each side."""

    def __init__(self, home: ConsulServer, other: ConsulServer) -> None:
        self.other = other
        self._urls = {"dc1": home.url, "dc2": other.url}
        self._tokens = {"master": MASTER}
        policies = {"bridge": "dc1", "copies": "dc2", "agent": "dc2"}
        for policy, where in policies.items():
            rules = f"-rules=@{POLICIES / policy}.hcl"
            home.command("acl", "policy", "create", f"-name={policy}", rules, f"-valid-datacenter={where}")
        for token, names in {"bridge": ("bridge", "copies"), "agent": ("agent",)}.items():
            named = [f"-policy-name={name}" for name in names]
            self._tokens[token] = json.loads(home.command("acl", "token", "create", *named, "-format=json"))["SecretID"]

    def __call__(self, token: str, datacenter: str) -> Consul:
        settings = ConsulSettings(url=self._urls["dc1"], token=SecretStr(self._tokens[token]))
        return Consul(settings.in_datacenter(datacenter, self._urls[datacenter]))


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with (
        ConsulServer(config=ACL, token=MASTER) as home,
        ConsulServer(config=elsewhere(home), token=MASTER, datacenter="dc2", node="lab2") as other,
    ):
        home.federate(other)
        yield Sites(home, other)


async def test_with_acls_a_login_reaches_the_hosts_elsewhere_and_leaves_with_its_end(
    sites: Sites, eventually: Eventually
) -> None:
    alice, bob = (f"{KEYS.groups}$user.{name}$/192.0.2.1" for name in ("alice", "bob"))
    staff = f"{KEYS.groups}$staff$/$user.bob$"
    async with (
        sites("bridge", "dc1") as home,
        sites("bridge", "dc2") as remote,
        sites("agent", "dc2") as agent,
        sites("master", "dc2") as there,
    ):
        await meta.ensure(home, KEYS)
        await there.transact([Op.set(bob, LATER), Op.set(staff, b"1")])  # nobody at home knows bob; staff's is over

        async def is_known() -> bool:  # until dc2 knows the token
            try:
                await remote.get(KEYS.meta)
            except Forbidden:
                return False
            return True

        await eventually(is_known, within=20)
        copies = Copies(home, KEYS, Datacenters("dc1", ("dc2",)), {"dc2": remote})
        async with running(Leader(home, KEYS.lock("copies")).run(copies.work)):
            follower = Follower(agent, KEYS, KEYS.access_changes)
            follower.cover([KEYS.groups])
            async with running(follower.run()):
                await home.transact(notices.announced(KEYS, [Op.set(alice, LATER)]))

                async def heard() -> bool:
                    return follower.view.get(alice) == LATER and follower.view.get(bob) is None

                await eventually(heard, within=20)
                await home.transact(notices.announced(KEYS, [Op.delete(alice)]))

                async def gone() -> bool:
                    return follower.view.get(alice) is None

                await eventually(gone, within=10)
                # What is the engineers' stays theirs, over or not.
                assert (await there.get(staff)) is not None
                assert copies.copies["dc2"].counters["failures"] == 0


@pytest.mark.parametrize("key", [KEYS.bindings + "192.0.2.1", KEYS.services + "ssh_tcp_22/192.0.2.1", KEYS.lock("x")])
async def test_elsewhere_the_bridges_token_can_write_nothing_but_users_groups(sites: Sites, key: str) -> None:
    async with sites("bridge", "dc2") as remote:
        with pytest.raises(Forbidden):
            await remote.transact([Op.set(key, b"1")])
