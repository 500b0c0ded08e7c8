"""`radius-bridge-agent`: the commands of a protected host."""

import asyncio
import json
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent import asking, befw, control
from agent.clicommon import DEFAULT_CONFIG, FAILED, NOT_RUNNING, OK, ConfigOption, JsonOption, ask, settings_of
from agent.dataplane import choose
from agent.dataplane.errors import DataplaneError
from agent.dataplane.plan import short_name
from agent.dataplane.rules import DENIED, REFUSED
from agent.dataplane.template import built_in
from agent.desired import DENY
from agent.render import rendered
from agent.run import restore_only
from agent.run import run as run_agent
from agent.statefile import StateFile
from agent.takeover import NotYet
from agent.takeover import takeover as takeover_from
from radius_bridge.policy.expiry import format_duration
from radius_bridge.process import configure_logging

app = typer.Typer(
    help="Lets into this host's services whom Consul's groups and grants name, and nobody else.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


class Backend(StrEnum):
    """What programs the kernel."""

    IPSET = "ipset"
    NFTABLES = "nftables"


@app.command()
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


@app.command()
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


@app.command()
def forget(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As `status` names it: ssh_tcp_22.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Stop protecting SERVICE, which nothing on this host lists any more. Its ports are open to all afterwards.

    Without this, it is forgotten when it has been absent for a day.
    """
    ask(config, f"forget {service}")
    typer.echo(f"{service} is not protected any more")


@app.command("check-config")
def check_config(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Read the configuration and say what is wrong with it."""
    settings_of(config)
    typer.echo(f"{config}: good")


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show what this host enforces and how fresh that is.

    Exit code 0: enforcing, nothing wrong; 1: something is wrong; 3: no agent is running (rules that are there stay).
    """
    answer = ask(config, "status")
    good = bool(answer["enforcing"]) and not answer["errors"] and not answer["held"]
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        _print_status(answer)
    raise typer.Exit(OK if good else FAILED)


@app.command()
def render(
    config: ConfigOption = DEFAULT_CONFIG,
    backend: Annotated[Backend | None, typer.Option(help="Another backend than the configured one.")] = None,
) -> None:
    """Show the sets and rules that would be programmed now, without touching anything. Needs no privileges."""
    settings = settings_of(config)
    try:
        typer.echo(asyncio.run(rendered(settings, backend or settings.backend)))
    except DataplaneError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None


@app.command()
def template(backend: Annotated[Backend, typer.Argument(help="Of which backend.")]) -> None:
    """Print the built-in template of rules, to begin one of your own with (`[templates]` in the configuration)."""
    typer.echo(built_in(choose.TEMPLATES[backend]).text, nl=False)


@app.command()
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


@app.command()
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


app.command()(asking.verify)
app.command()(asking.why)
app.command()(asking.refused)
app.command()(asking.metrics)


def _print_status(answer: dict[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 400)
    now = time.time()

    def ago(at: float | None) -> str:
        return f"{format_duration(now - at)} ago" if at else "never"

    state = "[green]enforcing[/]" if answer["enforcing"] else "[red]not enforcing[/]"
    if not answer["enforcing"] and answer["restored"]:
        state = f"[yellow]enforcing what was so {ago(answer['restored'])}[/]"
    console.print(
        f"{escape(answer['datacenter'])}/{escape(answer['node'])}: {state}, kernel checked {ago(answer['applied'])}"
    )
    if answer["waiting_for"]:
        console.print(f"waiting for the first read of: {', '.join(answer['waiting_for'])}")
    if answer["last_change"]:
        change = answer["last_change"]
        took = (change["programmed"] - change["woken"]) * 1000
        console.print(f"last change {ago(change['programmed'])}, in the kernel {took:.1f} ms after it was heard")
    freshness = (f"{source} {age:.0f}s" for source, age in answer["contact_age_s"].items())
    console.print(f"heard from Consul: {', '.join(freshness) or 'nothing yet'} ago")
    feed = answer["feed"]
    console.print(
        f"following {feed['covered']} prefixes of Consul{'' if feed['complete'] else ', not all of them read'}; "
        f"{feed.get('changes', 0)} changes, {feed.get('gaps', 0)} gaps, {feed.get('reads', 0)} reads"
    )
    if answer["mode"] == "observe":
        console.print("[yellow]observe[/]: nothing is refused; below is who would have been")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("SERVICE", "PORTS", "MEMBERS", "NEXT EXPIRY", "REFUSED", "FROM"):
        table.add_column(column, overflow="fold")
    for service in answer["services"]:
        soonest = service["soonest_expiry"]
        left = format_duration(soonest - now) if soonest else "-"
        ports = " ".join(service["ports"])
        refused = answer["refused"].get(REFUSED + short_name(service["name"]), 0)
        table.add_row(service["name"], ports, str(service["members"]), left, str(refused), escape(service["origin"]))
    for name, override in answer["overrides"].items():
        if override["members"]:
            refused = str(answer["refused"].get(DENIED, 0)) if name == DENY else "-"
            table.add_row(name, "all", str(override["members"]), "-", refused, "override")
    console.print(table)
    for source, error in answer["errors"].items():
        console.print(f"[red]error[/] {escape(source)}: {escape(error)}")
    if answer["refused_state"]:
        console.print(f"[red]error[/] {escape(answer['refused_state'])}")
    for held in answer["held"]:
        what = "would go and are kept" if held["kind"] == "removal" else "would come in and are kept out"
        way_out = f"radius-bridge confirm {held['digest']}" if held["waits_for"] == "confirm" else "a second read"
        console.print(
            f"[red]held[/] {escape(held['of'])}: {held['members']} members ({', '.join(held['some'])}, …) {what} "
            f"since {ago(held['since'])}, until: {way_out}"
        )
    for repair in answer["repaired"][-5:]:
        by = repair["by"] or "the kernel does not tell whom"
        console.print(
            f"[yellow]put back[/] {ago(repair['at'])} {escape(repair['what'])} (changed by {escape(by)})",
            soft_wrap=True,
        )
    for alarm in answer["alarms"]:
        console.print(f"[red]alarm[/] {escape(alarm)}")
    for note in answer["notes"]:
        console.print(f"[yellow]note[/] {escape(note)}")
    for problem in answer["problems"]:
        console.print(f"[yellow]ignored[/] {escape(problem)}")
    if answer["problem_count"] > len(answer["problems"]):
        console.print(f"[yellow]ignored[/] {answer['problem_count'] - len(answer['problems'])} more")
    for name, at in answer["absent_services"].items():
        console.print(
            f"[yellow]absent[/] {escape(name)}: listed no more since {ago(at)}, its rules stay for a day "
            f"(radius-bridge-agent forget {escape(name)})"
        )
