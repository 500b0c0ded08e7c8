"""Engineers' writes where Consul is away, or the command is wrong."""

import pytest
from typer.testing import CliRunner

from radius_bridge.cli import common
from radius_bridge.cli import everywhere as module
from radius_bridge.cli.everywhere import everywhere
from radius_bridge.cli.main import app
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Forbidden, RegistryError
from radius_bridge.registry.keys import Keys
from tests.registry.fake_consul import FakeConsul


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[RegistryError]:
    """What Consul answers first, when it is asked for the datacenters."""
    pending: list[RegistryError] = []

    async def find(*_: object) -> dict[str, object]:
        if pending:
            raise pending.pop(0)
        return {}

    monkeypatch.setattr(module, "AGAIN", 0.001)
    monkeypatch.setattr(module, "Consul", lambda _: FakeConsul())
    monkeypatch.setattr(module, "find_datacenters", find)
    monkeypatch.setattr(module, "ensure", find)
    return pending


async def _work(consul: Consul, keys: Keys) -> int:
    return 1


def test_a_block_waits_for_a_consul_that_does_not_even_say_where_to_write(failures: list[RegistryError]) -> None:
    failures += [RegistryError("no leader")] * 3
    assert everywhere(_work, patience=30).done == {"": 1}


def test_who_may_not_write_is_told_at_once(failures: list[RegistryError]) -> None:
    failures += [RegistryError("no leader"), Forbidden("no")]
    result = CliRunner().invoke(app, ["block", "192.0.2.1"])
    assert (result.exit_code, failures) == (1, [])


def test_a_command_that_does_not_wait_fails_at_once(failures: list[RegistryError]) -> None:
    failures += [RegistryError("no leader")] * 2
    result = CliRunner().invoke(app, ["revoke", "alice", "ssh_tcp_22"])
    assert (result.exit_code, len(failures)) == (1, 1)


@pytest.mark.parametrize("whom", ["alice@corp.example.org", "group:staff", "10.0.0.0/8"])
def test_a_block_needs_neither_the_rules_of_names_nor_who_is_in_a_group(
    whom: str, failures: list[RegistryError], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(*_: object) -> dict[str, object]:
        raise RegistryError("no leader")

    monkeypatch.setattr(common, "Consul", lambda _: FakeConsul())
    monkeypatch.setattr(common, "find_datacenters", find)
    result = CliRunner().invoke(app, ["block", whom])
    assert (result.exit_code, "hits 16,777,216 addresses" in result.output) in [(0, False), (1, True)], result.output


@pytest.mark.parametrize("command", ["grant", "revoke"])
def test_a_scope_that_cannot_be_is_told_in_one_line_before_anything_is_asked(command: str) -> None:
    result = CliRunner().invoke(app, [command, "alice", "ssh_tcp_22", "--dc", "a/b"])
    assert result.exit_code == 2
    assert result.output.count("error") == 1
    assert "--dc: 'a/b'" in result.output
