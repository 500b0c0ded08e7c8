"""`status`: what the running agent enforces, and how fresh that is."""

import json
import sys
import time
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.clicommon import DEFAULT_CONFIG, FAILED, OK, ConfigOption, JsonOption, ask
from agent.dataplane.kinds import short_name
from agent.dataplane.rules import DENIED, REFUSED
from agent.desired import DENY
from radius_bridge.policy.expiry import format_duration


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
