"""`who`: who is behind an address, and where a user, a device or a session is."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from radius_bridge.cli.common import naming_of, with_consul
from radius_bridge.cli.output import JsonOption, fail, moment, print_json, print_table, until, warn
from radius_bridge.cli.reach import contains
from radius_bridge.identity.bindings import Binding
from radius_bridge.identity.macs import mac_of
from radius_bridge.identity.names import Names, Naming
from radius_bridge.identity.sessions import Session
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import BadRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.records import decode_binding, decode_session

_COLUMNS = ["USER", "ADDRESS", "SINCE", "UNTIL", "NAS", "MAC", "FROM"]


def who(
    whom: Annotated[
        str,
        typer.Argument(
            metavar="[USER|ADDRESS|MAC|NAS|SESSION]",
            help="One user, address or network, MAC address, NAS, or session (its Acct-Session-Id, alone or after "
            "NAS/); else everybody.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show who is logged in where: user, address, since, until, NAS, MAC address, and who says so.

    Exit code 1 if what was asked for is not logged in.
    """
    address = _address(whom)
    now = time.time()

    async def work(consul: Consul, keys: Keys) -> tuple[list[dict[str, Any]], list[str]]:
        if address is not None and address.is_host:
            rows, problems = await _at_address(consul, keys, address, now)
            if rows or problems:
                return rows, problems
        bindings = (await consul.read(keys.bindings)).entries
        sessions = (await consul.read(keys.sessions)).entries
        rows, problems = _everybody(keys, bindings, sessions, now)
        naming = await naming_of(consul, keys) if whom else Naming()
        user = Names(naming).read(whom.encode("utf-8", "surrogateescape")).user
        return [row for row in rows if not whom or _is_meant(row, whom, user, address)], problems

    found, problems = with_consul(work)
    for problem in problems:
        warn(problem)
    if as_json:
        print_json(found)
    elif found or not whom:
        print_table(_COLUMNS, [_cells(row, now) for row in found], "nobody is logged in")
    if whom and not found:
        if as_json:
            raise typer.Exit(1)
        fail(f"{whom}: not logged in")


async def _at_address(
    consul: Consul, keys: Keys, address: Prefix, now: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Reads what concerns one address and nothing else: the same work in any fleet."""
    entry = await consul.get(keys.binding(address))
    if entry is None:
        return [], []
    try:
        holders = decode_binding(entry.key, entry.value).holding(now).sessions
    except BadRecord as error:
        return [], [str(error)]
    sessions = await consul.get_many(keys.session(each) for each in holders)
    rows, problems = _everybody(keys, [entry], sessions.values(), now)
    return [row for row in rows if row["address"] == str(address)], problems


def _everybody(
    keys: Keys, bindings: Iterable[Entry], sessions: Iterable[Entry], now: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each address of each live session, and one for each live session without an address."""
    problems: list[str] = []
    known: dict[str, Session] = {}
    for entry in sessions:
        try:
            known[entry.key.removeprefix(keys.sessions)] = decode_session(entry.key, entry.value)
        except BadRecord as error:
            problems.append(str(error))
    rows: list[dict[str, Any]] = []
    for entry in bindings:
        try:
            address = str(parse_prefix(entry.key.removeprefix(keys.bindings)))
            rows += _holders(address, decode_binding(entry.key, entry.value), known, now)
        except (BadRecord, ValueError) as error:
            problems.append(str(error))
    placed = {row["session"] for row in rows}
    for name, session in known.items():
        if name not in placed and session.is_live(now) and session.user:
            rows.append(_row(name, session, session.user, "", session.since, session.limit, session.mac, ""))
    return sorted(rows, key=lambda row: (row["user"], row["address"], row["session"])), problems


def _holders(address: str, binding: Binding, known: Mapping[str, Session], now: float) -> Iterator[dict[str, Any]]:
    holders = binding.holding(now).sessions
    for standing in binding.standings():
        if standing.session in holders:
            claim = standing.claim
            lease = binding.lease(claim.mac) if claim.mac else None
            session = known.get(standing.session)
            yield _row(
                standing.session,
                session,
                claim.user,
                address,
                claim.since if session is None else session.since,
                standing.expires,
                claim.mac,
                lease.source if lease is not None and lease.is_held else "",
            )


def _row(
    name: str, session: Session | None, user: str, address: str, since: float, expires: float, mac: str, lease: str
) -> dict[str, Any]:
    return {
        "user": user,
        "address": address,
        "since": since,
        "expires": expires,
        "nas": name.partition("/")[0],
        "mac": mac,
        "source": "" if session is None else session.source,
        "lease": lease,
        "session": name,
        "groups": [] if session is None else list(session.groups),
    }


def _cells(row: dict[str, Any], now: float) -> list[str]:
    origin = " + ".join(each for each in (row["source"], row["lease"]) if each)
    where = row["address"] or "no address yet"
    return [row["user"], where, moment(row["since"]), until(row["expires"], now), row["nas"], row["mac"], origin]


def _is_meant(row: dict[str, Any], whom: str, user: str, address: Prefix | None) -> bool:
    if user and user == row["user"]:
        return True
    if whom in (row["user"], row["nas"], row["session"], row["session"].partition("/")[2]):
        return True
    if address is not None:
        return bool(row["address"]) and contains(address, parse_prefix(row["address"]))
    return bool(row["mac"]) and mac_of(whom) == row["mac"]


def _address(whom: str) -> Prefix | None:
    try:
        return parse_prefix(whom)
    except ValueError:
        return None
