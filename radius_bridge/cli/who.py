"""`who`: who is behind an address, and where a user is."""

import time
from typing import Annotated, Any

import typer

from radius_bridge.cli.common import JsonOption, fail, moment, print_json, print_table, until, with_consul
from radius_bridge.identity.bindings import Binding
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import BadRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.records import decode_binding


def who(
    whom: Annotated[
        str, typer.Argument(metavar="[USER|ADDRESS]", help="One user or one address; else everybody.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show who is logged in where: user, address, since, until, NAS.

    Exit code 1 if the user or the address asked for is not logged in.
    """
    try:
        address = parse_prefix(whom) if whom else None
    except ValueError:
        address = None
    now = time.time()

    async def work(consul: Consul, keys: Keys) -> tuple[list[dict[str, Any]], list[str]]:
        if address is not None and address.is_host:
            entry = await consul.get(keys.binding(address))
            entries = [entry] if entry else []
        else:
            entries = list((await consul.read(keys.bindings)).entries)
        rows: list[dict[str, Any]] = []
        problems: list[str] = []
        for entry in entries:
            try:
                bound = parse_prefix(entry.key.removeprefix(keys.bindings))
                rows += _sessions(bound, decode_binding(entry.key, entry.value), now)
            except (BadRecord, ValueError) as error:
                problems.append(str(error))
        return rows, problems

    found, problems = with_consul(work)
    for problem in problems:
        typer.echo(f"warning: {problem}", err=True)
    if whom and address is None:
        found = [row for row in found if row["user"] == whom]
    elif address is not None and not address.is_host:
        found = [row for row in found if _within(parse_prefix(row["address"]), address)]
    if as_json:
        print_json(found)
    elif found or not whom:
        rows = [
            [
                row["user"],
                row["address"],
                moment(row["since"]),
                until(row["expires"], now),
                row["nas"],
                row["mac"],
            ]
            for row in found
        ]
        print_table(["USER", "ADDRESS", "SINCE", "UNTIL", "NAS", "MAC"], rows, "nobody is logged in")
    if whom and not found:
        if as_json:
            raise typer.Exit(1)
        fail(f"{whom}: not logged in")


def _sessions(address: Prefix, binding: Binding, now: float) -> list[dict[str, Any]]:
    return [
        {
            "user": claim.user,
            "address": str(address),
            "since": claim.since,
            "expires": claim.expires,
            "nas": claim.nas,
            "mac": claim.mac,
            "source": claim.source,
            "session": session,
        }
        for session, claim in binding.live(now).items()
    ]


def _within(host: Prefix, network: Prefix) -> bool:
    if host.version != network.version:
        return False
    shift = (32 if host.version == 4 else 128) - network.length
    return host.number >> shift == network.number >> shift
