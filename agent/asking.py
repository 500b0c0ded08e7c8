"""`verify`, `why`, `refused`, `metrics` and `forget`: commands that ask the running agent."""

import json
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.clicommon import DEFAULT_CONFIG, FAILED, USAGE, ConfigOption, JsonOption, ask
from agent.control import LONG
from agent.metrics import exposition
from agent.why import parse_address
from radius_bridge.policy.expiry import format_duration


def forget(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As `status` names it: ssh_tcp_22.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Stop protecting SERVICE, which nothing on this host lists any more. Its ports are open to all afterwards.

    Without this, it is forgotten when it has been absent for a day.
    """
    ask(config, f"forget {service}")
    typer.echo(f"{service} is not protected any more")


def verify(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Compare all of the kernel's rules, sets and members with what they should be.

    Exit code 0: they are the same; 1: not, and it says where (the agent puts that back by itself); 3: no agent runs.
    """
    answer = ask(config, "verify", timeout=LONG)
    if as_json:
        typer.echo(json.dumps(answer))
    elif not answer["differences"]:
        typer.echo("the kernel is as desired")
    else:
        for each in answer["differences"]:
            typer.echo(each["text"])
    raise typer.Exit(FAILED if answer["differences"] else 0)


def why(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A client's address.")],
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="ssh_tcp_22, ssh, 22/tcp or 22.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Say why ADDRESS gets into SERVICE on this host, link by link with each one's end, or what is missing.

    Who is behind an address, and by which session, is not known here: `radius-bridge who ADDRESS` says that. Exit code
    0: it gets in; 1: it does not.
    """
    try:
        parse_address(address)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE) from None
    answer = ask(config, f"why {address} {service}")
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        _print_why(address, answer)
    raise typer.Exit(0 if answer["gets_in"] else FAILED)


def refused(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List who tried to reach this host's services and was refused (in observe mode: would have been).

    The kernel tells of some attempts a second (`refused.per_second`): all are counted in `status`, not all are listed.
    """
    answer = ask(config, "refused")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    now = time.time()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("ADDRESS", "USER", "SERVICE", "TIMES", "FIRST", "LAST"):
        table.add_column(column)
    for each in answer["refused"]:
        first, last = (f"{format_duration(now - each[key])} ago" for key in ("first", "last"))
        user = escape(each["user"]) or "-"
        table.add_row(each["address"], user, escape(each["service"]), str(each["count"]), first, last)
    console = _console()
    if answer["observe"]:
        console.print("[yellow]observe[/]: nobody is refused; these would have been")
    console.print(table if answer["refused"] else "nobody was refused")


def metrics(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print the status as metrics for Prometheus.

    For node_exporter's textfile collector: `radius-bridge-agent metrics > FILE.new && mv FILE.new FILE.prom`.
    """
    typer.echo(exposition(ask(config, "status")), nl=False)


def _print_why(address: str, answer: dict[str, Any]) -> None:
    now = time.time()
    console = _console()
    verdict = "[green]gets in[/]" if answer["gets_in"] else "[red]does not get in[/]"
    if answer["observe"] and not answer["gets_in"]:
        verdict = "[yellow]would not get in[/] (observe: nobody is refused)"
    console.print(f"{escape(address)} → {escape(answer['service'])}: {verdict}")
    for reason in answer["reasons"]:
        console.print(f"  {escape(reason)}")
    if answer["users"]:
        users = escape(", ".join(answer["users"]))
        console.print(f"  behind it: {users} (`radius-bridge who {escape(address)}` shows the session)")
    for way in answer["ways"]:
        console.print(f"  way to {escape(answer['of'])}, {_until(way['end'], now)}:")
        for link in way["links"]:
            console.print(f"    {escape(link['member'])} in {escape(link['what'])}, {_until(link['end'], now)}")


def _until(end: float, now: float) -> str:
    if end < 0:
        return "without end"
    return f"for {format_duration(end - now)}" if end > now else f"[red]over since {format_duration(now - end)}[/]"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 400)
