"""Before Consul is heard of: the last good state, if it can be relied on; else the failsafe, or nothing at all."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.boot import keep_up, restore
from agent.dataplane.change import Change
from agent.dataplane.errors import DataplaneError
from agent.desired import ALLOW, DENY, Desired, fingerprint
from agent.run import place, stay_here
from agent.saving import Saver
from agent.settings import AgentSettings
from agent.state import State, encode
from agent.statefile import StateFile
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import Service, parse_ports
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Scope
from radius_bridge.registry.settings import ConsulSettings

SSH = Service("ssh_tcp_22", (parse_ports("22"),), "consul")
ALICE = parse_prefix("10.0.0.1")


class Kernel:
    """A dataplane that notes what it is told."""

    def __init__(self, *, in_place: bool = False, refuses: bool = False) -> None:
        self.told: list[Desired] = []
        self.told_at = 0.0
        self._in_place = in_place
        self.refuses = refuses

    async def apply(self, desired: Desired, now: float) -> Change:
        if self.refuses:
            raise DataplaneError("the kernel is out of order")
        self.told.append(desired)
        self.told_at = now
        return Change()

    async def is_in_place(self) -> bool:
        return self._in_place

    def next_refresh(self, now: float) -> float:
        return now if now - self.told_at > 30 else self.told_at + 30


async def nothing() -> None:
    """What is enforced: not known."""


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    """A host with one service of its own files, web, and a failsafe."""
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "web.json").write_text(json.dumps({"name": "web", "port": 80}))
    given: dict[str, Any] = {
        "services_dir": tmp_path / "services",
        "state_dir": tmp_path / "state",
        "failsafe": [{"networks": ["10.9.0.0/16"], "ports": ["22/tcp"]}],
    }
    return AgentSettings(**given)


def keep(settings: AgentSettings, **other: Any) -> State:
    """Alice may reach ssh; that is on disk."""
    members = {SSH.name: {ALICE: NEVER}, ALLOW: {}, DENY: {}}
    state = State("befw", Scope("dc1", "web1"), time.time(), (SSH,), members, {}, time.time())
    state = replace(state, **other)
    StateFile(settings.state_dir).write(encode(state))
    return state


async def test_after_a_reboot_what_was_enforced_is_enforced_again(settings: AgentSettings) -> None:
    state, kernel = keep(settings), Kernel()
    restored = await restore(settings, kernel)
    assert restored.state == state
    (desired,) = kernel.told
    assert restored.desired == desired
    assert desired.services == (SSH,)
    assert desired.members == state.members
    assert [str(network) for each in desired.failsafe for network in each.networks] == ["10.9.0.0/16"]


async def test_a_clock_that_is_not_set_yet_gives_nobody_more_time_than_was_left(
    settings: AgentSettings,
) -> None:
    state, kernel = keep(settings, written=time.time() + 3 * 86400), Kernel()
    ends = {ALICE: state.written + 60, parse_prefix("10.0.0.2"): state.written - 60}
    keep(settings, written=state.written, members={SSH.name: ends, ALLOW: {}, DENY: {}})
    await restore(settings, kernel)
    assert kernel.told_at == state.written
    assert kernel.told[0].members[SSH.name] == {ALICE: state.written + 60}


async def test_rules_in_place_are_left_and_what_was_enforced_is_known(settings: AgentSettings) -> None:
    state, kernel = keep(settings), Kernel(in_place=True)
    restored = await restore(settings, kernel)
    assert (restored.state, restored.desired, kernel.told) == (state, None, [])


async def test_a_changed_failsafe_does_not_wait_for_consul(settings: AgentSettings) -> None:
    in_force = fingerprint(tuple(each.failsafe() for each in settings.failsafe), settings.posture())
    state = keep(settings, fingerprint=in_force)
    assert (await restore(settings, Kernel(in_place=True))).desired is None
    for changed in (settings.model_copy(update={"failsafe": ()}), settings.model_copy(update={"mode": "observe"})):
        kernel = Kernel(in_place=True)
        restored = await restore(changed, kernel)
        assert kernel.told == [restored.desired]
        assert kernel.told[0].members == state.members


async def test_a_new_host_is_left_as_it_is(settings: AgentSettings) -> None:
    kernel = Kernel()
    restored = await restore(settings, kernel)
    assert (restored.state, restored.problem, kernel.told) == (None, "", [])


@pytest.mark.parametrize(
    ("mine", "named"),
    [
        ({"node": "web2"}, "node 'web1', not 'web2'"),
        ({"datacenter": "dc2"}, "datacenter 'dc1', not 'dc2'"),
        ({"consul": ConsulSettings(root="other")}, "root 'befw', not 'other'"),
    ],
)
async def test_the_state_of_another_host_or_registry_is_refused_and_the_failsafe_stands(
    settings: AgentSettings, mine: dict[str, Any], named: str
) -> None:
    keep(settings)
    kernel = Kernel()
    restored = await restore(settings.model_copy(update=mine), kernel)
    assert restored.state is None
    assert named in restored.problem
    (desired,) = kernel.told
    assert [service.name for service in desired.services] == ["web_tcp_80"]
    assert not any(desired.members.values())
    assert desired.failsafe
    assert not StateFile(settings.state_dir).path.exists()


async def test_a_kernel_that_refuses_is_told_again_later(settings: AgentSettings) -> None:
    keep(settings)
    restored = await restore(settings, Kernel(refuses=True))
    assert restored.failure == "the kernel is out of order"
    assert restored.desired is not None


async def test_while_nobody_says_where_a_host_is_a_kernel_that_refused_is_told_again(settings: AgentSettings) -> None:
    StateFile(settings.state_dir).write([b"no state"])
    kernel, stop = Kernel(refuses=True), asyncio.Event()
    restored = await restore(settings, kernel)
    assert restored.failure

    async def meanwhile() -> None:
        kernel.refuses = False
        await keep_up(kernel, restored)
        await keep_up(kernel, restored)  # not so soon
        stop.set()

    async with Consul(ConsulSettings(url="http://127.0.0.1:9")) as nobody:
        assert await place(settings, nobody, stop, meanwhile) is None
    assert kernel.told == [restored.desired]


async def test_a_host_that_has_moved_starts_anew_without_what_it_enforced_elsewhere(settings: AgentSettings) -> None:
    state = keep(settings)
    moved = settings.model_copy(update={"node": "web2", "datacenter": "dc1"})
    saver = Saver(StateFile(settings.state_dir), nothing)
    async with Consul(ConsulSettings(url="http://127.0.0.1:9")) as nobody:
        with pytest.raises(OSError, match="this host is dc1/web2 now and was dc1/web1"):
            await stay_here(moved, nobody, state.scope, asyncio.Event(), saver.forget)
    assert StateFile(settings.state_dir).read() is None
