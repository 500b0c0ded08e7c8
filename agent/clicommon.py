"""What the commands share: exit codes, the configuration, asking the running agent."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from agent import control
from agent.settings import AgentSettings
from radius_bridge import configfile

OK, FAILED, USAGE, NOT_RUNNING = 0, 1, 2, 3
"""Exit codes: done; not done; the command or a file is wrong; no agent is running."""

DEFAULT_CONFIG = Path("/etc/radius-bridge-agent/agent.toml")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The agent's configuration.")]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def settings_of(path: Path) -> AgentSettings:
    """The configuration; ends the command, saying why, if it cannot be used."""
    from agent.dataplane import choose  # noqa: PLC0415 — commands that only ask need no dataplane

    settings = _read(path)
    try:
        settings.posture()
        choose.site_templates(settings.templates)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(USAGE) from None
    return settings


def _read(path: Path) -> AgentSettings:
    try:
        return configfile.read(path, AgentSettings)
    except configfile.ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(USAGE) from None


def ask(config: Path, question: str, *, timeout: float = control.TIMEOUT) -> dict[str, Any]:
    """What the running agent answers; ends the command if there is none, or if it answers an error.

    An error that `is_usage` says that the question was wrong.
    """
    try:
        answer = asyncio.run(control.ask(_read(config).control_socket, question, timeout))
    except control.NotRunning as error:
        typer.echo(f"error: {error}; rules that it programmed stay in the kernel", err=True)
        typer.echo("`systemctl start radius-bridge-agent` starts it, `systemctl status` says why it ended", err=True)
        raise typer.Exit(NOT_RUNNING) from None
    if answer.get("error"):
        typer.echo(f"error: {answer['error']}", err=True)
        raise typer.Exit(USAGE if answer.get("is_usage") else FAILED)
    return answer
