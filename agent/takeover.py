"""`radius-bridge-agent takeover`: removes what BEFW's agent left in the kernel, once our own rules stand before it."""

import shutil
from pathlib import Path
from typing import Any

from agent import befw, control
from agent.dataplane.base import call
from agent.dataplane.choose import in_use
from agent.dataplane.errors import DataplaneError
from agent.dataplane.sets import open_sets
from agent.desired import ALLOW, DENY
from agent.run import dataplane_of
from agent.settings import AgentSettings
from radius_bridge.policy.services import parse_ports

_PROCESS = "befw-firewalld"
_TIMEOUT = 20.0


class NotYet(Exception):
    """BEFW's rules must stay; the message says why, and what to do."""


async def takeover(settings: AgentSettings, chain: str, *, dry_run: bool, anyway: bool) -> list[str]:
    """Removes BEFW's chain and its jumps, its sets and its table; gives what was (with `dry_run`: would be) removed.

    Our agent must be enforcing, and its rules be in place: then BEFW's are asked after ours have decided, and
    nobody notices that they go. Raises NotYet if not, if BEFW's agent still runs, or (unless `anyway`) if something
    would be open afterwards that BEFW keeps closed; DataplaneError.
    """
    if is_running():
        raise NotYet(f"{_PROCESS} is running and would put its rules back: stop and disable it; its rules stay")
    ours = _closed(settings, await control.ask(settings.control_socket, "status"))
    if not await dataplane_of(settings).is_in_place():
        raise NotYet("the agent's rules are not in place: see `radius-bridge-agent status`")
    found = [
        (program, kept)
        for program in in_use()
        if (kept := befw.read_save(await call((f"{program}-save", "-t", "filter"), "", _TIMEOUT, "iptables"), chain))
    ]
    table = await _table()
    opened = [each for _, kept in found for each in kept.only_there(ours)]
    opened += befw.only_in_table(table, ours)
    if opened and not anyway:
        raise NotYet(
            "would be open afterwards:\n  " + "\n  ".join(opened) + "\nMake them services of ours (services_dir, the "
            'tag befw), overrides, sets in the configuration, or policy = "closed"; or use --anyway'
        )
    removed = []
    for program, kept in found:
        if not dry_run:
            await call((f"{program}-restore", "--noflush", "-w", "5"), kept.removal(), _TIMEOUT, "iptables")
        removed.append(f"{program}: chain {chain} with {len(kept.rules)} rules, {len(kept.jumps)} jumps to it")
    if table:
        if not dry_run:
            await call(("nft", "delete", "table", "inet", befw.TABLE), "", _TIMEOUT, "nftables")
        removed.append(f"nft: table inet {befw.TABLE}")
    sets = dict.fromkeys(name for _, kept in found for name in kept.sets)
    return removed + (list(map(_set, sets)) if dry_run else await _destroy(list(sets)))


def is_running(processes: Path = Path("/proc")) -> bool:
    """True if BEFW's agent runs in this network namespace, or in one that we may not know."""
    ours = (processes / "thread-self" / "ns" / "net").readlink()
    for comm in processes.glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() == _PROCESS and (comm.parent / "ns" / "net").readlink() == ours:
                return True
        except PermissionError:
            return True
        except OSError:
            continue  # it has just ended
    return False


def _closed(settings: AgentSettings, status: dict[str, Any]) -> befw.Closed:
    """What our agent keeps closed, as it says itself. Raises NotYet if it does not enforce."""
    if settings.mode != "enforce" or status["mode"] != "enforce":
        raise NotYet('the agent only observes: set mode = "enforce" and restart it first')
    if not status["enforcing"] or "kernel" in status["errors"]:
        raise NotYet("the agent does not enforce yet: see `radius-bridge-agent status`")
    ports = [parse_ports(each) for service in status["services"] for each in service["ports"]]
    return befw.Closed(ports, {ALLOW, DENY, *settings.set}, settings.policy == "closed")


async def _table() -> str:
    """BEFW's table of nftables, empty if there is none."""
    if not shutil.which("nft"):
        return ""
    tables = await call(("nft", "list", "tables"), "", _TIMEOUT, "nftables")
    if f"table inet {befw.TABLE}" not in tables.splitlines():
        return ""
    return await call(("nft", "list", "table", "inet", befw.TABLE), "", _TIMEOUT, "nftables")


async def _destroy(names: list[str]) -> list[str]:
    """Destroys sets; one that somebody else uses stays, which is told."""

    async def destroy(name: str) -> str:
        try:
            await sets.destroy(name)
        except DataplaneError as error:
            return f"{_set(name)}: stays ({error})"
        return _set(name)

    if not names:
        return []
    async with open_sets() as sets:
        return [await destroy(name) for name in names]


def _set(name: str) -> str:
    return f"ipset: set {name}"
