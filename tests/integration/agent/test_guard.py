"""An agent, a real Consul, and mistakes: what a host finds when it reads again is not believed at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from agent.boot import Restored
from agent.desired import Posture
from agent.enforce import Enforcer
from agent.settings import AgentSettings
from agent.state import State
from agent.statefile import StateFile
from radius_bridge.policy.members import GroupRef, parse_member
from radius_bridge.registry import meta, notices
from radius_bridge.registry.announcer import READ_ALL
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Scope
from radius_bridge.registry.kv import Op
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.agent.test_enforce import (
    END,
    GRANT,
    HERE,
    KEYS,
    SSH,
    Kernel,
    Site,
    member,
    site,
    store,
)
from tests.integration.registry.running import running
from tests.integration.registry.test_acl import ACL, MASTER, POLICIES
from tests.lab.consul import ConsulServer
from tests.lab.processes import BIN, run
from tests.waiting import until

pytestmark = pytest.mark.integration

STAFF = GroupRef("staff")
LINK = {KEYS.group_member(STAFF, parse_member("$user.alice$")): b"-1"}


@pytest.fixture
def server() -> Iterator[ConsulServer]:
    with ConsulServer(on_disk=True) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    """One service: ssh on port 22."""
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "ssh.json").write_text(json.dumps({"name": "ssh", "port": 22}))
    return AgentSettings(
        services_dir=tmp_path / "services", state_dir=tmp_path / "state", control_socket=tmp_path / "socket"
    )


def addresses(count: int) -> set[str]:
    return {f"10.1.{number // 250}.{number % 250}" for number in range(count)}


def logins(count: int, value: bytes = END) -> dict[str, bytes]:
    """Alice, at many addresses."""
    return {member("alice", address): value for address in addresses(count)}


def has(here: Site, count: int) -> Callable[[], bool]:
    return lambda: len(here.kernel.members.get(SSH, ())) == count


async def look_again(here: Site) -> None:
    """Somebody tells all hosts that what they know may be wrong."""
    await here.announcer.announce([READ_ALL])


async def test_a_restored_snapshot_takes_few_away_at_once_and_many_only_with_a_persons_word(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, GRANT | logins(5))
    saved = f"{server.folder}/saved"
    await asyncio.to_thread(server.command, "snapshot", "save", saved)
    await store(server, logins(150))
    async with site(server, settings) as here:
        await until(has(here, 150))
        await asyncio.to_thread(server.command, "snapshot", "restore", saved)

        def waits_for_a_word() -> bool:
            held = here.agent.status()["held"]
            return bool(held) and held[0]["waits_for"] == "confirm"

        await until(waits_for_a_word, within=60)  # a restore may leave a poll blind until its half minute is over
        assert has(here, 150)()
        (held,) = here.agent.status()["held"]
        assert (held["kind"], held["of"], held["members"]) == ("removal", SSH, 145)
        env = {"CONSUL_HTTP_ADDR": server.url}
        said = await asyncio.to_thread(run, [BIN / "radius-bridge", "confirm", held["digest"]], env=env)
        assert said.returncode == 0, said.stderr
        await until(has(here, 5))
        assert here.agent.status()["held"] == []
        assert min(map(len, here.kernel.history)) == 5, "all at once"


async def test_what_somebody_deleted_behind_everybodys_back_goes_when_a_second_read_says_the_same(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, GRANT | logins(30))
    async with site(server, settings) as here:
        await until(has(here, 30))
        await asyncio.to_thread(server.command, "kv", "delete", "-recurse", f"{KEYS.services}{SSH}/")
        await look_again(here)
        await until(lambda: bool(here.agent.status()["held"]), within=15)
        assert has(here, 30)()
        await until(has(here, 0), within=15)
        assert not here.agent.status()["held"]
        assert {len(inside) for inside in here.kernel.history} == {30, 0}


async def test_what_is_announced_passes_at_once_and_so_does_what_is_said_of_somebody_held(
    server: ConsulServer, settings: AgentSettings
) -> None:
    bob = KEYS.grant(HERE, SSH, parse_group("bob"))
    staff = {KEYS.group_member(STAFF, parse_group(user)): b"-1" for user in ("bob", "carol")}
    await store(server, GRANT | logins(150) | staff | {bob: b"-1", member("bob", "10.2.0.1"): END})
    async with site(server, settings) as here:
        everybody = addresses(150) | {"10.2.0.1"}
        await until(has(here, 151))
        for user in ("alice", "bob"):
            await asyncio.to_thread(server.command, "kv", "delete", "-recurse", KEYS.group(parse_group(user)))
        await look_again(here)
        await until(lambda: bool(here.agent.status()["held"]), within=15)
        await here.write({member("alice", "10.1.0.7"): None})
        await until(lambda: here.kernel.members[SSH] == everybody - {"10.1.0.7"}, within=2)
        beside = [KEYS.group_member(STAFF, parse_group("carol")), KEYS.grant(Scope("dc2"), SSH, parse_group("alice"))]
        await here.consul.transact(notices.announced(KEYS, [Op.delete(key) for key in (*beside, bob)]))
        await until(lambda: here.kernel.members[SSH] == everybody - {"10.1.0.7", "10.2.0.1"}, within=2)
        await here.consul.transact(notices.announced(KEYS, [Op.delete(next(iter(GRANT)))]))
        await until(has(here, 0), within=2)


async def test_who_is_held_is_held_no_longer_than_somebody_says(server: ConsulServer, settings: AgentSettings) -> None:
    await store(server, GRANT | logins(150))
    async with site(server, settings) as here:
        await until(has(here, 150))
        await asyncio.to_thread(server.command, "kv", "delete", "-recurse", KEYS.group(parse_group("alice")))
        await look_again(here)
        await until(lambda: bool(here.agent.status()["held"]), within=15)
        (grant,) = GRANT
        soon = int(time.time() + 600)
        await here.consul.transact(notices.announced(KEYS, [Op.set(grant, b"%d" % soon)]))
        await until(lambda: set(here.kernel.ends) == {soon}, within=15)
        assert has(here, 150)()


async def test_a_mass_change_that_somebody_announced_is_meant(server: ConsulServer, settings: AgentSettings) -> None:
    await store(server, logins(200) | LINK | {KEYS.grant(HERE, SSH, STAFF): b"-1"})
    everybody = KEYS.grant(HERE, SSH, parse_member("0.0.0.0/0"))
    async with site(server, settings) as here:
        await until(has(here, 200))
        await here.consul.transact(notices.announced(KEYS, [Op.delete(next(iter(LINK)))]))
        await until(has(here, 0), within=2)
        await here.consul.transact(notices.announced(KEYS, [Op.set(next(iter(LINK)), b"-1"), Op.set(everybody, b"-1")]))
        await until(has(here, 201), within=2)
        assert not here.agent.status()["held"]


async def test_a_network_that_opens_to_everybody_in_a_reread_stays_out(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, GRANT | logins(3))
    async with site(server, settings) as here:
        await until(has(here, 3))
        await store(server, {KEYS.grant(HERE, SSH, parse_member(each)): b"-1" for each in ("0.0.0.0/0", "10.2.0.0/24")})
        await look_again(here)
        await until(lambda: here.kernel.members[SSH] == addresses(3) | {"10.2.0.0/24"}, within=15)
        await until(lambda: here.agent.status()["held"][0]["waits_for"] == "confirm", within=15)
        assert "0.0.0.0/0" not in here.kernel.members[SSH]


async def test_after_a_restart_the_first_read_is_compared_with_what_was_enforced(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, GRANT | logins(150))
    async with site(server, settings) as here:
        await until(has(here, 150))
        await until(lambda: here.agent.saver.written > 0)
    kept = StateFile(settings.state_dir).read()
    assert kept is not None
    assert set(map(str, kept.members[SSH])) == addresses(150)
    await asyncio.to_thread(server.command, "kv", "delete", "-recurse", KEYS.group(parse_group("alice")))
    await store(server, {member("bob", "10.3.0.1"): END, KEYS.grant(HERE, SSH, parse_group("bob")): b"-1"})
    async with site(server, settings, restored=Restored(kept)) as here:
        await until(has(here, 151))
        await until(lambda: here.agent.status()["held"][0]["waits_for"] == "confirm", within=15)
        assert here.kernel.members[SSH] == addresses(150) | {"10.3.0.1"}
        await here.consul.transact(notices.announced(KEYS, [Op.delete(next(iter(GRANT)))]))
        await until(lambda: here.kernel.members[SSH] == {"10.3.0.1"}, within=2)


async def test_what_was_restored_is_kept_up_until_consul_answers(settings: AgentSettings) -> None:
    kept = State("befw", HERE, time.time(), (), {}, {}, time.time())
    restored = Restored(kept, "", kept.desired((), Posture(), time.time()))
    kernel = Kernel()
    async with Consul(ConsulSettings(url="http://127.0.0.1:9")) as nobody:
        agent = Enforcer(settings, HERE, nobody, kernel, lambda: None, asyncio.Event(), restored=restored)
        async with running(agent.run()):
            await until(lambda: "feed" in agent.status()["errors"])
            status = agent.status()
            assert not status["enforcing"]
            assert status["restored"] == kept.written
            assert agent.saver.written == 0, "it is on disk already"


async def test_a_directory_that_cannot_be_written_is_told_and_enforcement_goes_on(
    server: ConsulServer, settings: AgentSettings
) -> None:
    settings.state_dir.write_text("a file where the directory should be")
    await store(server, GRANT | logins(1))
    async with site(server, settings) as here:
        await until(has(here, 1))
        await until(lambda: "state" in here.agent.status()["errors"])
        await here.write({member("alice", "10.9.9.9"): END})
        await until(has(here, 2))
        assert here.agent.status()["state"]["failures"] == 1


async def test_a_service_that_is_gone_keeps_its_rules_over_a_restart_until_it_is_forgotten(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, GRANT | logins(1))
    async with site(server, settings) as here:
        await until(has(here, 1))
        assert "still listed" in here.agent.watching.forget(SSH)["error"]
        (settings.services_dir / "ssh.json").unlink()
        here.look_again.set()
        await until(lambda: SSH in here.agent.status()["absent_services"])
        since = here.agent.status()["absent_services"][SSH]
        await here.agent.saver.save()
    kept = StateFile(settings.state_dir).read()
    async with site(server, settings, restored=Restored(kept)) as here:
        await until(has(here, 1))
        assert here.agent.status()["absent_services"] == {SSH: since}
        assert here.agent.watching.forget(SSH) == {"forgotten": SSH}
        await until(lambda: SSH not in here.kernel.members)
        assert here.agent.status()["absent_services"] == {}


@asynccontextmanager
async def liar(target: str, prefix: str) -> AsyncIterator[tuple[str, dict[str, bool]]]:
    """A Consul in an election: asked for less than consistency, it says that there is nothing below `prefix`."""
    switch = {"lies": False, "lied": False}
    async with aiohttp.ClientSession() as session:

        async def answer(request: web.Request) -> web.StreamResponse:
            if switch["lies"] and request.path.startswith(f"/v1/kv/{prefix}") and "consistent" not in request.query:
                switch["lied"] = True
                return web.Response(status=404, headers={"X-Consul-Index": "1000000", "X-Consul-KnownLeader": "true"})
            body = await request.read()
            async with session.request(request.method, f"{target}{request.raw_path}", data=body) as reply:
                headers = {name: value for name, value in reply.headers.items() if name.startswith("X-Consul")}
                return web.Response(status=reply.status, body=await reply.read(), headers=headers)

        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site_ = web.TCPSite(runner, "127.0.0.1", 0)
        await site_.start()
        try:
            port = runner.addresses[0][1]
            yield f"http://127.0.0.1:{port}", switch
        finally:
            await runner.cleanup()


async def test_a_stale_server_that_answers_empty_takes_nobody_away(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, GRANT | logins(30))
    kernel = Kernel()
    async with (
        liar(server.url, KEYS.groups) as (url, switch),
        Consul(ConsulSettings(url=server.url)) as consul,
        Consul(ConsulSettings(url=url)) as lied_to,
    ):
        agent = Enforcer(settings, HERE, lied_to, kernel, lambda: None, asyncio.Event())
        async with running(agent.run()):
            await until(lambda: len(kernel.members.get(SSH, ())) == 30)
            switch["lies"] = True
            again = [Op.set(f"{KEYS.access_changes}bridge/liar", record())]
            await consul.transact(again)
            await until(lambda: switch["lied"] and agent.follower.is_complete, within=15)
            await agent.saver.save()
            assert {len(inside) for inside in kernel.history} == {30}


def record() -> bytes:
    return json.dumps({"first": 0, "clock": time.time(), "entries": [["", None, 0]]}).encode()


def parse_group(user: str) -> GroupRef:
    return GroupRef(f"user.{user}")


def _fails_more_often_than(agent: Enforcer, times: int) -> Callable[[], bool]:
    return lambda: agent.follower.counters["failures"] > times


async def test_a_token_that_loses_its_policy_and_then_itself_changes_nothing(settings: AgentSettings) -> None:
    kernel = Kernel()
    with ConsulServer(config=ACL, token=MASTER) as server:
        server.command("acl", "policy", "create", "-name=agent", f"-rules=@{POLICIES / 'agent.hcl'}")
        made = json.loads(server.command("acl", "token", "create", "-policy-name=agent", "-format=json"))
        async with (
            Consul(ConsulSettings(url=server.url, token=SecretStr(MASTER))) as master,
            Consul(ConsulSettings(url=server.url, token=SecretStr(made["SecretID"]))) as consul,
        ):
            await meta.ensure(master, KEYS)
            await master.transact([Op.set(key, value) for key, value in (GRANT | logins(30)).items()])
            agent = Enforcer(settings, HERE, consul, kernel, lambda: None, asyncio.Event())
            async with running(agent.run()):
                await until(lambda: len(kernel.members.get(SSH, ())) == 30)
                for take_away in (
                    ("acl", "token", "update", "-id", made["AccessorID"], "-description=nothing left"),
                    ("acl", "token", "delete", "-id", made["AccessorID"]),
                ):
                    await asyncio.to_thread(server.command, *take_away)
                    # Somebody else's announcement wakes the poll that is blocked.
                    await master.transact([Op.set(f"{KEYS.access_changes}bridge/other", record())])
                    await until(_fails_more_often_than(agent, agent.follower.counters["failures"] + 1), within=30)
                    assert any(word in agent.status()["errors"]["feed"] for word in ("right", "ACL not found"))
                assert {len(inside) for inside in kernel.history} == {30}
                assert kernel.members[SSH] == addresses(30)
