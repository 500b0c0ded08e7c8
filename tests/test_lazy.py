"""Commands are imported when they are called."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

import agent.cli
from radius_bridge.cli import main
from radius_bridge.lazy import imported, later, lazy_app
from tests.test_lean import loaded

CONSUL = {"aiohttp", "consul", "msgspec"}
KERNEL = {"pyroute2", "pyroute2.ipset", "agent.dataplane.ipset"}


def commands() -> Iterator[tuple[str, str, str]]:
    """Every command: name, where it is, and what the list says of it."""
    yield from ((name, f"radius_bridge.cli.{where}", summary) for name, where, summary, _ in main.COMMANDS)
    yield from ((name, f"agent.{where}", summary) for name, where, summary in agent.cli.COMMANDS)


@pytest.mark.parametrize(("name", "where", "summary"), list(commands()))
def test_the_list_says_of_a_command_what_its_own_help_begins_with(name: str, where: str, summary: str) -> None:
    assert " ".join(imported(name, where).help.split("\n\n")[0].split()) == summary


@pytest.mark.parametrize(
    ("program", "arguments", "unused"),
    [
        ("radius_bridge", ["--help"], CONSUL | {"pydantic", "radius_bridge.cli.serve"}),
        ("radius_bridge", ["decode", "--help"], {"aiohttp", "consul"}),
        ("radius_bridge", ["grant", "--help"], {"aiohttp.web", "prometheus_client", "uvloop", "cryptography"}),
        ("agent", ["--help"], CONSUL | KERNEL | {"pydantic"}),
        ("agent", ["status", "--help"], CONSUL | KERNEL),
        ("agent", ["why", "--help"], CONSUL | KERNEL),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_a_command_loads_only_what_it_needs(program: str, arguments: list[str], unused: set[str]) -> None:
    run = f"import sys; sys.argv[1:] = {arguments}; from {program}.__main__ import main"
    found = loaded(f"{run}\ntry: main()\nexcept SystemExit: print()\nimport sys")
    assert "typer" in found
    assert not found & unused


def test_what_is_not_installed_is_said_when_a_command_needs_it() -> None:
    run = "import sys; sys.modules['msgspec'] = None; sys.argv[1:] = ['who']; from radius_bridge.__main__ import main"
    done = subprocess.run([sys.executable, "-c", f"{run}; main()"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "radius-bridge: msgspec is missing: install radius-bridge[bridge] (requirements/bridge.txt)\n"


def test_a_mistyped_command_is_told_which_may_be_meant() -> None:
    app = lazy_app("For the test.")
    later(app, "grant", "nowhere:grant", "Grants.")
    later(app, "revoke", "nowhere:revoke", "Revokes.")
    result = CliRunner().invoke(app, ["grnt"])
    assert result.exit_code == 2
    assert "'grant'" in result.output
