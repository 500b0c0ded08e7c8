"""`radius-bridge names try`: whom a name means, step by step."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from radius_bridge.cli.main import app

CONFIG = """
[names]
sources = [{ attribute = "Class", pattern = "^user=(.+)$" }, "User-Name"]
realms = { CORP = "corp.example.org" }
[[group]]
group = "radius.staff"
attribute = "Class"
value = "staff"
[[client]]
secret_file = "/not/for/engineers"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "bridge.toml"
    file.write_text(CONFIG)
    return file


def try_(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["names", "try", *map(str, arguments)])


def test_the_chain_is_shown_step_by_step(config: Path) -> None:
    result = try_("CORP\\Alice", "-a", "Class=staff", "-c", config)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "  Class                staff (no match)",
        "  User-Name            CORP\\Alice",
        "  notation             DOMAIN\\user",
        "  case-mapped          alice@corp",
        "  realm                becomes corp.example.org",
        "user                   alice@corp.example.org   (grants name him alice@corp.example.org)",
        "group                  radius.staff   (Class = staff)",
    ]


def test_json_is_for_programs(config: Path) -> None:
    shown = json.loads(
        try_("anonymous@x", "-a", "Class=user=Bob", "--attribute", "Class=0xff", "-c", config, "--json").stdout
    )
    assert (shown["user"], shown["group"], shown["not_bound"], shown["groups"]) == ("bob", "user.bob", None, [])
    assert shown["steps"][-1] == {"what": "case-mapped", "result": "bob"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["host/pc.corp"], "machine"),
        (["00-1b-2c-3d-4e-5f"], "mac"),
        (["001b2c3d4e5f", "-a", "Calling-Station-Id=00:1b:2c:3d:4e:5f"], "mac"),
        (["anonymous"], "never-bound"),
        (["a\x1b[2J"], "bad-name"),
        ([], "no-name"),
    ],
)
def test_what_is_nobody_is_told_with_the_reason_and_code_1(arguments: list[str], why: str) -> None:
    result = try_(*arguments)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == f"user                   none: {why}"
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alice", "-a", "Clas=x"], "'Clas' is no attribute that the dictionaries know"),
        (["alice", "-a", "Class"], "write NAME=VALUE"),
        (["alice", "-c", "/not/there"], "/not/there: cannot be read"),
    ],
)
def test_what_cannot_be_meant_ends_with_code_2(arguments: list[str], message: str) -> None:
    result = try_(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_what_is_wrong_in_the_configuration_is_told(config: Path) -> None:
    config.write_text(CONFIG.replace("Class", "Clas", 1))
    assert f"{config}: names.sources: Clas: the dictionaries know no attribute" in try_("a", "-c", config).stderr
    config.write_text(CONFIG.replace("realms", "realm"))
    assert "names.realm: no such key (did you mean realms?)" in try_("a", "-c", config).stderr
