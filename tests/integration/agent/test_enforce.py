"""An agent and a real Consul: what it reads, when it programs, and what it does when Consul is gone.

In place of the kernel stands a dataplane that notes what it is told.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.boot import Restored
from agent.dataplane.change import Change as Programmed
from agent.dataplane.errors import DataplaneError
from agent.desired import Desired
from agent.enforce import Enforcer
from agent.settings import AgentSettings
from radius_bridge.policy.members import Prefix, parse_member, parse_prefix, user_group
from radius_bridge.registry import meta
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.feed import Change, Class
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.kv import MAX_OPS, Op
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer
from tests.lab.meter import Meter
from tests.waiting import until

pytestmark = pytest.mark.integration

KEYS = Keys()
SSH = "ssh_tcp_22"
ALICE = user_group("alice")
HERE = Scope("dc1", "web1")
END = b"%d" % (time.time() + 3600)


class Kernel:
    """A dataplane that notes what it was told."""

    name = "noted"
    refused: Mapping[str, int] = {}

    def __init__(self) -> None:
        self.members: dict[str, set[str]] = {}
        self.ends: tuple[float, ...] = ()
        """Until when who is in the service may stay."""
        self.history: list[set[str]] = []
        """Who was in the service, each time that it was told."""
        self.told: list[dict[str, set[str]] | None] = []
        """Of each apply, what it was told had changed; None: compare everything."""
        self.refuses = False
        self.distrusted: set[str] = set()

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Prefix]] | None = None
    ) -> Programmed:
        """Notes it."""
        if self.refuses:
            raise DataplaneError("the kernel is out of order")
        self.told.append(None if changed is None else {name: set(map(str, each)) for name, each in changed.items()})
        before, self.members = self.members, {name: set(map(str, each)) for name, each in desired.members.items()}
        self.ends = tuple(desired.members.get(SSH, {}).values())
        self.history.append(self.members.get(SSH, set()))
        return Programmed(added=int(before != self.members))

    def distrust(self, sets: Collection[str]) -> None:
        """Notes it."""
        self.distrusted.update(sets)

    async def count_refused(self) -> dict[str, int]:
        """Nobody."""
        return {}

    def entries(self) -> int:
        """None."""
        return 0

    def alarms(self) -> list[str]:
        """None."""
        return []

    def next_refresh(self, now: float) -> float:
        """As the real one looks at its rules."""
        return now + 30


class Site:
    """An agent that runs, its Consul behind a meter, and a writer."""

    def __init__(
        self,
        consul: Consul,
        meter: Meter,
        announcer: Announcer,
        kernel: Kernel,
        agent: Enforcer,
        look_again: asyncio.Event,
    ) -> None:
        self.consul = consul
        self.meter = meter
        self.announcer = announcer
        self.kernel = kernel
        self.agent = agent
        self.look_again = look_again

    async def write(self, values: Mapping[str, bytes | None]) -> None:
        """Commits and announces members of users' groups."""
        ops = [Op.delete(key) if value is None else Op.set(key, value) for key, value in values.items()]
        # A transaction that only deletes does not say at which index it was committed.
        committed = await self.consul.transact([*ops, Op.set(f"{KEYS.root}/beside", b"%f" % time.time())])
        await self.announcer.announce([Change(key, value, committed.index) for key, value in values.items()])

    def lets_in(self, *addresses: str) -> Callable[[], bool]:
        """A condition: these and no others are members of the service."""
        return lambda: self.kernel.members.get(SSH) == set(addresses)

    def lets_in_too(self, address: str) -> Callable[[], bool]:
        """A condition: this is a member of the service."""
        return lambda: address in self.kernel.members[SSH]


@pytest.fixture
def server() -> Iterator[ConsulServer]:
    with ConsulServer(on_disk=True) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    """One service: ssh on port 22."""
    (tmp_path / "ssh.json").write_text(json.dumps({"name": "ssh", "port": 22}))
    return AgentSettings(services_dir=tmp_path, state_dir=tmp_path, control_socket=tmp_path / "socket")


@asynccontextmanager
async def site(
    server: ConsulServer,
    settings: AgentSettings,
    *,
    with_meta: bool = True,
    restored: Restored | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Site]:
    kernel = Kernel()
    async with (
        Meter(server.url).serving() as meter,
        Consul(ConsulSettings(url=server.url)) as consul,
        Consul(ConsulSettings(url=meter.url)) as metered,
    ):
        if with_meta:
            await meta.ensure(consul, KEYS)
        announcer = Announcer(consul, KEYS, Class.BRIDGE)
        look_again = asyncio.Event()
        agent = Enforcer(settings, HERE, metered, kernel, lambda: None, look_again, clock, restored)
        async with running(announcer.run()), running(agent.run()):
            yield Site(consul, meter, announcer, kernel, agent, look_again)


async def store(server: ConsulServer, values: Mapping[str, bytes]) -> None:
    """Writes many keys, which nobody announces."""
    async with Consul(ConsulSettings(url=server.url)) as consul:
        await meta.ensure(consul, KEYS)
        ops = [Op.set(key, value) for key, value in values.items()]
        for start in range(0, len(ops), MAX_OPS):
            await consul.transact(ops[start : start + MAX_OPS])


@asynccontextmanager
async def engineer(here: Site) -> AsyncIterator[Announcer]:
    """A writer of the other class."""
    announcer = Announcer(here.consul, KEYS, Class.ENGINEER)
    async with running(announcer.run()):
        yield announcer


def member(user: str, address: str) -> str:
    return KEYS.group_member(user_group(user), parse_prefix(address))


def some_logins(count: int) -> dict[str, bytes]:
    """Users to whom nothing is granted."""
    return {member(f"user{number}", f"10.1.{number // 250}.{number % 250}"): END for number in range(count)}


GRANT = {KEYS.grant(Scope(), SSH, ALICE): b"-1"}


async def test_a_start_reads_what_the_host_enforces_and_nothing_else(
    server: ConsulServer, settings: AgentSettings
) -> None:
    elsewhere = {KEYS.grant(Scope("dc1", "web2"), SSH, user_group("bob")): b"-1", member("bob", "10.0.0.2"): END}
    await store(server, {**GRANT, member("alice", "10.0.0.1"): END, **elsewhere, **some_logins(1000)})
    async with site(server, settings) as here:
        await until(here.lets_in("10.0.0.1"))
        read = {request.split("?")[0].removeprefix("GET /v1/kv/") for request in here.meter.requests}
        folders = [f"{scope}{name}/" for name in ("rules_allow", "rules_deny") for scope in ("", "dc1/", "dc1/web1/")]
        assert read - {"GET /v1/agent/services", KEYS.meta} == {
            KEYS.access_changes,
            *(f"{KEYS.sets}{folder}" for folder in folders),
            *(f"{KEYS.services}{scope}{SSH}/" for scope in ("", "dc1/", "dc1/web1/")),
            KEYS.group(ALICE),
        }
        assert here.meter.octets < 30_000
        assert here.kernel.told == [None], "programmed once, when everything was there"


async def test_when_the_clock_was_set_the_kernel_is_told_all_ends_anew(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, {**GRANT, member("alice", "10.0.0.1"): END})
    set_by = 0.0
    async with site(server, settings, clock=lambda: time.time() + set_by) as here:
        await until(here.lets_in("10.0.0.1"))
        assert not here.kernel.distrusted
        set_by = 600.0
        await here.write({member("alice", "10.0.0.2"): END})
        await until(here.lets_in("10.0.0.1", "10.0.0.2"))
        assert {f"rb4h.{SSH}", "rb6n.rules_deny"} <= here.kernel.distrusted
        assert here.kernel.told == [None, None]
        here.kernel.distrusted.clear()
        await here.write({member("alice", "10.0.0.3"): END})
        await until(here.lets_in_too("10.0.0.3"))
        assert here.kernel.told[2:] == [{SSH: {"10.0.0.3"}}]
        assert not here.kernel.distrusted


@pytest.mark.parametrize("logins", [10, 10_000])
async def test_a_login_costs_one_small_answer_whatever_is_stored(
    server: ConsulServer, settings: AgentSettings, logins: int
) -> None:
    await store(server, GRANT | some_logins(logins))
    async with site(server, settings) as here:
        await until(lambda: len(here.kernel.told) > 0)
        # The first finds no record in the feed yet, and a poll of what is missing wakes for any write.
        await here.write({member("alice", "10.0.0.1"): END})
        await until(here.lets_in("10.0.0.1"))
        here.meter.requests.clear()
        answers = []
        for number in range(2, 7):
            here.meter.octets = 0
            await here.write({member("alice", f"10.0.0.{number}"): END})
            await until(here.lets_in_too(f"10.0.0.{number}"))
            assert here.kernel.told[-1] == {SSH: {f"10.0.0.{number}"}}
            answers.append(here.meter.octets)
        assert sum("/agent/" not in request for request in here.meter.requests) <= 6
        assert min(answers) < 1_000


async def test_many_groups_are_read_by_one_read(server: ConsulServer, settings: AgentSettings) -> None:
    staff = {f"{KEYS.groups}$staff$/{user_group(f'user{number}')}": b"-1" for number in range(200)}
    grant = {KEYS.grant(Scope("dc1"), SSH, parse_member("$staff$")): b"-1"}
    await store(server, grant | staff | some_logins(300))
    async with site(server, settings) as here:
        await until(lambda: len(here.kernel.members.get(SSH, ())) == 200)
        assert here.kernel.told == [None]
        assert sum("$user." in request for request in here.meter.requests) == 0
        assert sum(request.startswith(f"GET /v1/kv/{KEYS.groups}?") for request in here.meter.requests) == 1


async def test_a_group_that_replaces_another_is_read_before_anybody_is_cut_off(
    server: ConsulServer, settings: AgentSettings
) -> None:
    here_now = {member("alice", "10.0.0.1"): END, member("teamlead", "10.0.0.1"): END}
    await store(server, GRANT | here_now)
    async with site(server, settings) as here:
        await until(here.lets_in("10.0.0.1"))
        other = KEYS.grant(Scope(), SSH, user_group("teamlead"))
        committed = await here.consul.transact([Op.delete(next(iter(GRANT))), Op.set(other, b"-1")])
        async with engineer(here) as announcer:
            changes = [Change(next(iter(GRANT)), None, committed.index), Change(other, b"-1", committed.index)]
            await announcer.announce(changes)
            await until(lambda: KEYS.group(user_group("teamlead")) in here.agent.follower.view.covered)
            await until(lambda: here.agent.status()["feed"]["complete"])
            await here.write({member("teamlead", "10.0.0.2"): END})
            await until(here.lets_in("10.0.0.1", "10.0.0.2"))
        assert all("10.0.0.1" in inside for inside in here.kernel.history)


async def test_nothing_is_programmed_before_the_registry_is_one(server: ConsulServer, settings: AgentSettings) -> None:
    async with site(server, settings, with_meta=False) as here:
        await until(lambda: here.agent.follower.counters["failures"] > 1)
        assert here.kernel.told == []
        status = here.agent.status()
        assert not status["enforcing"]
        assert "$meta$" in status["errors"]["feed"]
        assert status["waiting_for"]
        await meta.ensure(here.consul, KEYS)
        await until(here.lets_in())


async def test_a_consul_that_is_gone_changes_nothing_and_what_was_missed_is_made_up(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, {**GRANT, member("alice", "10.0.0.1"): END})
    async with site(server, settings) as here:
        await until(here.lets_in("10.0.0.1"))
        here.meter.cut()
        await here.write({member("alice", "10.0.0.2"): END})
        await here.write({member("alice", "10.0.0.1"): None})
        await until(lambda: here.agent.follower.counters["failures"] > 1)
        assert here.lets_in("10.0.0.1")()
        assert here.agent.status()["errors"].keys() >= {"feed"}
        here.meter.is_cut = False
        await until(here.lets_in("10.0.0.2"))
        assert "feed" not in here.agent.status()["errors"]


async def test_a_consul_that_lost_its_data_takes_nothing_away_until_it_is_a_registry_again(
    settings: AgentSettings,
) -> None:
    with ConsulServer() as server:
        await store(server, {**GRANT, member("alice", "10.0.0.1"): END, **some_logins(100)})
        async with site(server, settings) as here:
            await until(here.lets_in("10.0.0.1"))
            await here.write({member("alice", "10.0.0.1"): b"-1"})
            await until(lambda: here.agent.follower.counters["announced"] == 1)
            await asyncio.to_thread(server.restart)
            contact = here.agent.follower.last_contact
            failures = here.agent.follower.counters["failures"]
            await until(lambda: here.agent.follower.counters["failures"] > failures + 2)
            assert here.lets_in("10.0.0.1")()
            assert here.agent.follower.last_contact == contact
            await store(server, {**GRANT, member("alice", "10.0.0.2"): END})
            await until(here.lets_in("10.0.0.2"), within=30)


async def test_after_an_older_snapshot_was_restored_what_is_enforced_is_what_it_says(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, {**GRANT, member("alice", "10.0.0.1"): END})
    async with site(server, settings) as here:
        await until(here.lets_in("10.0.0.1"))
        await here.write({member("alice", "10.0.0.2"): END})
        await until(here.lets_in("10.0.0.1", "10.0.0.2"))
        saved = f"{server.folder}/saved"
        await asyncio.to_thread(server.command, "snapshot", "save", saved)
        await here.write({member("alice", "10.0.0.1"): None, member("alice", "10.0.0.3"): END})
        await until(here.lets_in("10.0.0.2", "10.0.0.3"))
        await asyncio.to_thread(server.command, "snapshot", "restore", saved)
        seen = len(here.kernel.history)
        await until(here.lets_in("10.0.0.1", "10.0.0.2"), within=60)
        assert all(inside <= {"10.0.0.1", "10.0.0.2", "10.0.0.3"} for inside in here.kernel.history[seen:])


async def test_a_kernel_that_refuses_is_told_everything_when_it_takes_orders_again(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, {**GRANT, member("alice", "10.0.0.1"): END})
    async with site(server, settings) as here:
        await until(here.lets_in("10.0.0.1"))
        here.kernel.refuses = True
        await here.write({member("alice", "10.0.0.2"): END})
        await until(lambda: "kernel" in here.agent.status()["errors"])
        here.kernel.refuses = False
        await until(here.lets_in("10.0.0.1", "10.0.0.2"))
        assert here.kernel.told[-1] is None
        assert "kernel" not in here.agent.status()["errors"]


async def test_a_service_that_appears_is_enforced_with_what_was_granted_before(
    server: ConsulServer, settings: AgentSettings
) -> None:
    await store(server, {KEYS.grant(Scope(), "web_tcp_80", parse_member("10.0.0.3")): b"-1"})
    async with site(server, settings) as here:
        await until(here.lets_in())
        (settings.services_dir / "web.json").write_text(json.dumps({"name": "web", "port": 80}))
        here.look_again.set()
        await until(lambda: here.kernel.members.get("web_tcp_80") == {"10.0.0.3"})
        assert all("web_tcp_80" not in (told or {}) for told in here.kernel.told)


async def test_the_status_tells_what_the_feed_was_like(server: ConsulServer, settings: AgentSettings) -> None:
    await store(server, {**GRANT, member("alice", "10.0.0.1"): END})
    async with site(server, settings) as here:
        await until(here.lets_in("10.0.0.1"))
        forged = KEYS.grant(Scope(), SSH, user_group("bob"))
        await here.announcer.announce([Change(forged, b"-1", 1)])
        await here.write({member("alice", "10.0.0.2"): END})
        await until(here.lets_in("10.0.0.1", "10.0.0.2"))
        status = here.agent.status()
        assert status["enforcing"]
        assert status["feed"]["covered"] == 10
        assert status["feed"]["complete"]
        assert status["feed"]["forged"] == 1
        assert "$user.bob$" in status["alarms"][0]
        assert status["contact_age_s"].keys() == {"feed", "services"}
        assert 0 <= status["last_change"]["programmed"] - status["last_change"]["woken"] < 1
        assert [(each["name"], each["members"]) for each in status["services"]] == [(SSH, 2)]
