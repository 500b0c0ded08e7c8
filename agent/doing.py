"""`run`, `restore`, `render`, `takeover` and `uninstall`: commands that do themselves what they say."""

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from agent import befw, control
from agent.clicommon import DEFAULT_CONFIG, FAILED, NOT_RUNNING, ConfigOption, settings_of
from agent.dataplane import choose
from agent.dataplane.errors import DataplaneError
from agent.dataplane.template import built_in
from agent.render import rendered
from agent.run import restore_only
from agent.run import run as run_agent
from agent.statefile import StateFile
from agent.takeover import NotYet
from agent.takeover import takeover as takeover_from
from radius_bridge.process import configure_logging


class Backend(StrEnum):
    """What programs the kernel."""

    IPSET = "ipset"
    NFTABLES = "nftables"


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every detail.")] = False,
) -> None:
    """Enforce until stopped (SIGTERM, Ctrl-C). Stopping leaves the rules in place; SIGHUP looks for services anew."""
    settings = settings_of(config)
    configure_logging(verbose=verbose)
    try:
        asyncio.run(run_agent(settings))
    except (DataplaneError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None


def restore(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Enforce what was enforced before the reboot, minus what is over; for the boot, before the network is up.

    Does nothing where rules are in place. `run` does the same, and goes on with what Consul says.
    """
    settings = settings_of(config)
    configure_logging()
    try:
        restored = asyncio.run(restore_only(settings))
    except (DataplaneError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
    if restored.problem:
        typer.echo(f"error: {restored.problem}; the failsafe stands", err=True)
    if restored.failure:
        typer.echo(f"error: {restored.failure}", err=True)
    if restored.problem or restored.failure:
        raise typer.Exit(FAILED)


def check_config(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Read the configuration and say what is wrong with it."""
    settings_of(config)
    typer.echo(f"{config}: good")


def render(
    config: ConfigOption = DEFAULT_CONFIG,
    backend: Annotated[Backend | None, typer.Option(help="Another backend than the configured one.")] = None,
) -> None:
    """Show the sets and rules that would be programmed now, without touching anything. Needs no privileges."""
    settings = settings_of(config)
    try:
        typer.echo(asyncio.run(rendered(settings, backend or settings.backend)))
    except (DataplaneError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None


def template(backend: Annotated[Backend, typer.Argument(help="Of which backend.")]) -> None:
    """Print the built-in template of rules, to begin one of your own with (`[templates]` in the configuration)."""
    typer.echo(built_in(choose.TEMPLATES[backend]).text, nl=False)


def uninstall(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove our rules and sets from this host, and nothing else. The protected ports are open to all afterwards."""
    settings = settings_of(config)
    try:
        was_enforced = asyncio.run(choose.uninstall(settings.state_dir / "lock"))
        StateFile(settings.state_dir).remove()
    except (DataplaneError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
    if was_enforced:
        typer.echo("removed: this host's services are no longer protected by radius-bridge")
    else:
        typer.echo("this host's services were not protected by radius-bridge; nothing of it is left")
    typer.echo("an agent that is started programs them again: systemctl disable --now radius-bridge-agent{,-restore}")


def takeover(
    config: ConfigOption = DEFAULT_CONFIG,
    chain: Annotated[str, typer.Option(metavar="NAME", help="BEFW's chain in the table filter.")] = befw.CHAIN,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if something is open afterwards.")] = False,
) -> None:
    """Remove what BEFW's agent left in the kernel: its chain, the jumps to it, its sets, its table.

    For a host that moves from BEFW, when BEFW's agent is stopped and ours enforces: ours stands in front, so that
    nobody notices. Refuses if something would be open afterwards that BEFW keeps closed, and says what.
    """
    settings = settings_of(config)
    try:
        removed = asyncio.run(takeover_from(settings, chain, dry_run=dry_run, anyway=anyway))
    except control.NotRunning as error:
        typer.echo(f"error: {error}; nothing was removed", err=True)
        raise typer.Exit(NOT_RUNNING) from None
    except (NotYet, DataplaneError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
    for each in removed:
        typer.echo(f"{'would remove' if dry_run else 'removed'}: {each}")
    if not removed:
        typer.echo("there is nothing of BEFW on this host")
