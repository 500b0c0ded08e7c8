"""The agent's configuration: what it means, and what is wrong with it."""

from pathlib import Path

import pytest

from agent.desired import CustomSet, Opening, Posture, RefusedLog, Target
from agent.settings import AgentSettings
from radius_bridge import configfile
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import parse_ports


def _read(tmp_path: Path, text: str) -> AgentSettings:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return configfile.read(path, AgentSettings)


def test_without_a_word_services_are_enforced_and_refusals_logged(tmp_path: Path) -> None:
    settings = _read(tmp_path, "")
    assert settings.backend == "auto"
    assert settings.posture() == Posture(log=RefusedLog(2086, 10))


def test_the_example_configuration_is_good() -> None:
    assert configfile.read(Path("config/agent/agent.toml"), AgentSettings).posture() == AgentSettings().posture()


def test_everything_that_can_be_said_about_the_posture(tmp_path: Path) -> None:
    settings = _read(
        tmp_path,
        """
mode = "observe"
policy = "closed"
set.partners = "ACCEPT"
set.scanners = "drop"
set.others = "NOOP"
refused = { group = 5, per_second = 0 }
[[open]]
networks = ["10.0.0.0/8"]
[[open]]
ports = [80, "53/udp"]
""",
    )
    assert settings.posture() == Posture(
        sets=(
            CustomSet("partners", Target.ACCEPT),
            CustomSet("scanners", Target.DROP),
            CustomSet("others", Target.NONE),
        ),
        closed=True,
        openings=(
            Opening((parse_prefix("10.0.0.0/8"),), ()),
            Opening((), (parse_ports("80"), parse_ports("53/udp"))),
        ),
        observe=True,
        log=None,
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('backend = "pf"', "backend = 'pf'"),
        ('set.rules_deny = "DROP"', "rules_deny is an override: its target is fixed"),
        ('set.ssh_tcp_22 = "DROP"', "no name for a set"),
        ('set."a b" = "DROP"', "no name for a set"),
        ('set.scanners = "LOG"', "set.scanners = 'log'"),
        ('templates.pf = "/tmp/x"', "templates"),
    ],
)
def test_errors_name_the_key_and_the_value(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(configfile.ConfigError, match=complaint):
        _read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[open]]\nports = [22]", 'policy = "closed"'),
        ('policy = "closed"\n[[open]]', "open: name networks or ports"),
    ],
)
def test_exceptions_that_open_nothing_or_everything_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _read(tmp_path, text).posture()
