"""The services of a host are asked for again and again; what cannot be read changes nothing."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.services import Found, find_in_files
from agent.state import State
from agent.watching import Watching
from radius_bridge.policy.services import Service, parse_ports
from radius_bridge.registry.answers import AgentService
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Scope
from tests.integration.registry.running import running
from tests.waiting import until

NOW = 1_800_000_000.0
SSH = "ssh_tcp_22"
WEB = "web_tcp_80"


class Watched:
    """A host whose Consul agent lists what the test says, and whose time stands still."""

    def __init__(self, directory: Path, state: State | None = None) -> None:
        self.directory = directory
        self.listed: dict[str, AgentService] | None = {"ssh": AgentService("", "", ("befw",), 22)}
        """None: the Consul agent does not answer."""
        self.asked = 0
        self.told: list[tuple[list[str], tuple[str, ...]]] = []
        """Names of what to protect, and problems."""
        self.look_again = asyncio.Event()
        self.watching = Watching(directory, self._ask, self._found, self.look_again, lambda: NOW, state)

    async def _ask(self) -> dict[str, AgentService]:
        self.asked += 1
        if self.listed is None:
            raise RegistryError("Consul is away")
        return self.listed

    def _found(self, services: tuple[Service, ...], problems: tuple[str, ...]) -> None:
        self.told.append(([service.name for service in services], problems))

    def write(self, name: str, port: int) -> None:
        """A service file."""
        (self.directory / f"{name}.json").write_text(json.dumps({"name": name, "port": port}))

    async def looks(self) -> None:
        """Has it look, until that is over."""
        asked = self.asked
        self.look_again.set()
        await until(lambda: self.asked > asked)


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks when it is told to, and not in between."""
    monkeypatch.setattr("agent.watching.EVERY", 3600.0)


async def test_what_is_found_is_told_when_it_changes_and_only_then(tmp_path: Path) -> None:
    host = Watched(tmp_path)
    async with running(host.watching.run()):
        await until(lambda: host.told == [([SSH], ())])
        await host.looks()
        await host.looks()
        host.write("web", 80)
        await host.looks()
        await until(lambda: len(host.told) > 1)
        assert host.told[1:] == [([SSH, WEB], ())]
        (tmp_path / "web.json").write_text("{")
        await host.looks()
        await until(lambda: len(host.told) > 2)
        names, (problem,) = host.told[-1]
        assert names == [SSH, WEB]
        assert "web.json" in problem


async def test_a_consul_that_does_not_answer_changes_nothing_and_is_told(tmp_path: Path) -> None:
    host = Watched(tmp_path)
    async with running(host.watching.run()):
        await until(lambda: host.told == [([SSH], ())])
        contact = host.watching.last_contact
        assert contact > 0
        host.listed = None
        host.write("web", 80)
        await host.looks()
        await until(lambda: host.watching.error == "Consul is away")
        assert len(host.told) == 1
        assert host.watching.last_contact == contact
        host.listed = {}
        await host.looks()
        await until(lambda: len(host.told) > 1)
        assert host.told[1:] == [([SSH, WEB], ())], "what is listed no more stays, what is new comes"
        assert host.watching.absent == {SSH: NOW}
        assert not host.watching.error


async def test_what_was_protected_before_a_restart_still_is_though_nobody_lists_it(tmp_path: Path) -> None:
    ssh = Service(SSH, (parse_ports("22"),))
    state = State("befw", Scope("dc1", "web1"), NOW - 30, (ssh,), {SSH: {}}, {SSH: NOW - 3600}, NOW - 30)
    host = Watched(tmp_path, state)
    host.listed = {}
    assert host.watching.looked == NOW - 30
    async with running(host.watching.run()):
        await until(lambda: host.told == [([SSH], ())])
        assert host.watching.absent == {SSH: NOW - 3600}
        assert host.watching.looked == NOW


async def test_what_nobody_lists_is_forgotten_on_demand_and_nothing_else(tmp_path: Path) -> None:
    host = Watched(tmp_path)
    host.write("web", 80)
    async with running(host.watching.run()):
        await until(lambda: host.told == [([SSH, WEB], ())])
        assert "still listed" in host.watching.forget(SSH)["error"]
        host.listed = {}
        await host.looks()
        await until(lambda: host.watching.absent == {SSH: NOW})
        assert host.watching.forget(SSH) == {"forgotten": SSH}
        assert host.told[-1] == ([WEB], ())
        assert not host.watching.absent


async def test_to_be_told_to_look_while_looking_is_to_look_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Watched(tmp_path)
    loop = asyncio.get_running_loop()

    def find(directory: Path) -> Found:
        found = find_in_files(directory)
        if not host.asked:
            # As with SIGHUP after a file was written, in the moment after the directory was read.
            host.write("web", 80)
            loop.call_soon_threadsafe(host.look_again.set)
        return found

    monkeypatch.setattr("agent.watching.find_in_files", find)
    async with running(host.watching.run()):
        await until(lambda: bool(host.told) and host.told[-1] == ([SSH, WEB], ()))
