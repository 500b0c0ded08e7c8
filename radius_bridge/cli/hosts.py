"""`hosts` and `confirm`: what hosts say of themselves, and a person's word for what they hold back."""

import asyncio
import re
import time
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
import typer

from radius_bridge.cli.common import consul_settings, expiry_after, fail_at_consul, find_datacenters
from radius_bridge.cli.everywhere import everywhere
from radius_bridge.cli.output import USAGE, JsonOption, ending, fail, print_json, print_table, warn
from radius_bridge.policy.expiry import format_duration, format_expiry, is_over, parse_expiry
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import BadRecord, Conflict, RegistryError
from radius_bridge.registry.hosts import HostRecord, Waiting, decode
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import MAX_OPS, Op
from radius_bridge.registry.notices import announced
from radius_bridge.registry.settings import ConsulSettings

AT_ONCE: Final = 20
"""Digests that one command confirms."""


def hosts(as_json: JsonOption = False) -> None:
    """List the protected hosts: what they enforce, how fresh that is, what they hold back, what is wrong.

    A host tells of itself every few minutes: `stale` is one that has not for ten minutes. Two days after its last word
    the bridges forget it; `consul kv delete 'befw/$host$/NODE'` does so at once.
    """
    found, problems = _read_hosts()
    now = time.time()
    if as_json:
        print_json([_as_json(node, record, now) for node, record in found])
    else:
        rows = [_row(node, record, now) for node, record in found]
        print_table(["NODE", "DC", "STATE", "TOLD", "SERVICES", "MEMBERS", "WHAT"], rows, "no host has told of itself")
    for problem in problems:
        warn(problem)


def confirm(
    digests: Annotated[
        list[str],
        typer.Argument(metavar="DIGEST...", help="As `hosts`, or `radius-bridge-agent status`, names the change."),
    ],
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long the word counts: for hosts that find it later.")
    ] = "1h",
) -> None:
    """Say that a mass change is meant which hosts found in Consul and hold back."""
    wrong = [digest for digest in digests if not re.fullmatch(r"[0-9a-f]{12}", digest)]
    if wrong:
        fail(f"{wrong[0]!r} is no digest; `radius-bridge hosts` shows them", USAGE)
    if len(digests) > AT_ONCE:
        fail(f"{len(digests)} digests are too many at once: {AT_ONCE} at most", USAGE)
    expires = expiry_after(duration)
    found, _ = _read_hosts()
    for digest in digests:
        holding = [(node, each) for node, record in found for each in record.held if each.digest == digest]
        for node, each in holding:
            typer.echo(f"{node}: {each.kind} of {each.members:,} members, {each.of}")
        if not holding:
            warn(f"{digest}: no host has told that it holds this back")

    async def work(consul: Consul, keys: Keys) -> None:
        now = time.time()
        old = [
            Op.delete_cas(entry.key, entry.modify_index)
            for entry in (await consul.read(keys.confirmations)).entries
            if is_over(parse_expiry(entry.value) or 0, now)
            and entry.key.removeprefix(keys.confirmations) not in digests
        ]
        words = [Op.set(f"{keys.confirmations}{digest}", format_expiry(expires)) for digest in digests]
        await consul.transact(announced(keys, words))
        if old:
            with suppress(Conflict):  # somebody else was faster
                await consul.transact(old[:MAX_OPS])

    everywhere(work).tell(f"confirmed {' '.join(digests)}, {ending(expires)}")


def _read_hosts() -> tuple[list[tuple[str, HostRecord]], list[str]]:
    """The records of all hosts in all datacenters by node, and what could not be read."""
    settings = consul_settings()
    keys = Keys(settings.root)
    found: list[tuple[str, HostRecord]] = []
    problems: list[str] = []

    async def read(name: str, place: ConsulSettings) -> None:
        try:
            async with Consul(place) as consul:
                entries = (await consul.read(keys.hosts)).entries
        except RegistryError as error:
            problems.append(f"{name or 'Consul'}: {error}")
            return
        for entry in entries:
            try:
                found.append((entry.key.removeprefix(keys.hosts), decode(entry.key, entry.value)))
            except BadRecord as error:
                problems.append(str(error))

    async def read_all() -> None:
        async with Consul(settings) as consul:
            places = await find_datacenters(consul, keys) or {"": settings}
        async with asyncio.TaskGroup() as tasks:
            for name, place in places.items():
                tasks.create_task(read(name, place))

    try:
        asyncio.run(read_all())
    except RegistryError as error:
        fail_at_consul(settings, error)
    except ValueError as error:
        fail(str(error), USAGE)
    return sorted(found, key=lambda each: (each[1].datacenter, each[0])), problems


def _state(record: HostRecord, now: float) -> str:
    """One word, the worst first."""
    if not record.is_fresh(now):
        return "stale"
    if record.held:
        return "held"
    return "problem" if record.needs_help else "fresh"


def _row(node: str, record: HostRecord, now: float) -> list[str]:
    what = [f"{each.kind} of {each.members} in {each.of} waits for {_way_out(each)}" for each in record.held]
    what += [f"{where}: {why}" for where, why in record.errors.items()]
    what += [f"{limit}: {share:.0%} of what it is made for" for limit, share in record.limits.items()]
    if record.enforcing == "restored":
        what.append("enforces what was so before a reboot")
    elif record.enforcing != "consul":
        what.append("enforces nothing yet")
    what += [f"{name} is listed no more" for name in record.absent]
    members = sum(record.services.values())
    return [
        node,
        record.datacenter,
        _state(record, now),
        f"{format_duration(now - record.at)} ago",
        str(record.service_count),
        str(members),
        "; ".join(what),
    ]


def _way_out(each: Waiting) -> str:
    return f"radius-bridge confirm {each.digest}" if each.waits_for == "confirm" else f"a {each.waits_for}"


def _as_json(node: str, record: HostRecord, now: float) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(record)
    return {"node": node, "state": _state(record, now), **facts}
