"""Which backend works on this host. When another one was here before, the new one stands before the old one goes."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from agent.dataplane import nft_rules, rules
from agent.dataplane.base import Leftovers, Lock, call
from agent.dataplane.errors import DataplaneError
from agent.dataplane.interface import Dataplane
from agent.dataplane.ipset import IpsetDataplane
from agent.dataplane.iptables import Iptables
from agent.dataplane.nft import Nft
from agent.dataplane.nftables import NftablesDataplane
from agent.dataplane.sets import open_sets
from agent.dataplane.template import RuleTemplate, site_template

TEMPLATES = {"ipset": rules.TEMPLATE, "nftables": nft_rules.TEMPLATE}
"""By backend: what its built-in template is called."""

_FLAVOURS = ("nft", "legacy")
_FAMILIES = {4: ("iptables", "ip_tables"), 6: ("ip6tables", "ip6_tables")}


def choose(backend: str) -> str:
    """The backend for `auto`: ipset if the host has iptables, else nftables; any other is taken as it is.

    Raises DataplaneError if the host has neither.
    """
    if backend != "auto":
        return backend
    for program, found in (("iptables-restore", "ipset"), ("nft", "nftables")):
        if shutil.which(program):
            return found
    raise DataplaneError("neither iptables-restore nor nft is on PATH: install the package iptables or nftables")


def dataplane(backend: str, lock: Path, templates: Mapping[str, RuleTemplate], iptables: str = "") -> Dataplane:
    """The dataplane of a backend (`auto`, `ipset`, `nftables`), which removes what others left once it stands itself.

    `templates` are a site's own, by backend; `iptables` is as for IpsetDataplane. Raises DataplaneError.
    """
    name = choose(backend)
    if name == "nftables":
        leftovers = Leftovers([*map(_Chains, _FLAVOURS), _Sets()])
        return NftablesDataplane(lock, templates.get(name), leftovers)
    return IpsetDataplane(lock, iptables, templates.get(name), Leftovers([_Table(), _OtherChains(iptables)]))


def site_templates(paths: Mapping[Literal["ipset", "nftables"], Path]) -> dict[str, RuleTemplate]:
    """A site's templates by backend. Raises TemplateError."""
    return {backend: site_template(path, TEMPLATES[backend]) for backend, path in paths.items()}


async def uninstall(lock: Path) -> bool:
    """Removes what any backend has programmed, and nothing else; True if it was enforced. Raises DataplaneError."""
    held = Lock(lock)
    held.take()
    try:
        ours = Leftovers([_Table(), *map(_Chains, _FLAVOURS), _Sets()])
        was_enforced = await ours.enforce()
        await ours.remove()
    finally:
        held.release()
    return was_enforced


class _Table:
    """Our table of nftables."""

    async def enforces(self) -> bool:
        return shutil.which("nft") is not None and (await Nft().read()).is_in_place

    async def remove(self) -> None:
        if shutil.which("nft") and (await Nft().read()).objects:
            await Nft().uninstall()


def in_use(flavours: Iterable[str] = _FLAVOURS) -> dict[str, int]:
    """The kinds of iptables that there may be rules of, with their IP version: `iptables-nft`, `ip6tables-legacy` …"""
    found = {}
    for flavour in flavours:
        for version, (program, module) in _FAMILIES.items():
            # Asking iptables-legacy would load its modules into the kernel: only if it is in use.
            if (flavour == "nft" or has_filter(module)) and shutil.which(f"{program}-{flavour}-save"):
                found[f"{program}-{flavour}"] = version
    return found


def has_filter(module: str, processes: Path = Path("/proc")) -> bool:
    """True if iptables-legacy's table `filter` may be in this network namespace; `module` is `ip_tables` or the like.

    The kernel tells which tables there are to root only. Other users must ask for the table itself if its module is
    loaded, or if that is not known because the kernel has it built in: at worst an empty table is there afterwards.
    """
    names = processes / "thread-self" / "net" / f"{module}_names"
    try:
        return "filter" in names.read_text().split()
    except FileNotFoundError:
        return False
    except PermissionError:
        try:
            lines = (processes / "modules").read_text().splitlines()
        except OSError:
            return True
        loaded = {line.split(" ", 1)[0] for line in lines}
        return module not in loaded or f"{module.replace('_tables', 'table')}_filter" in loaded


class _Chains:
    """Our chains of one kind of iptables."""

    def __init__(self, flavour: str) -> None:
        self._flavour = flavour

    async def enforces(self) -> bool:
        return any([(await table.read()).is_in_place for table in self._tables()])

    async def remove(self) -> None:
        for table in self._tables():
            await table.uninstall()

    def _tables(self) -> list[Iptables]:
        return [Iptables(version, self._flavour) for version in in_use([self._flavour]).values()]


class _OtherChains:
    """Our chains of the kinds of iptables that are not `used` (empty: what the host uses)."""

    def __init__(self, used: str) -> None:
        self._used = used

    async def enforces(self) -> bool:
        return any([await each.enforces() for each in await self._others()])

    async def remove(self) -> None:
        for each in await self._others():
            await each.remove()

    async def _others(self) -> list[_Chains]:
        used = self._used
        if not used:
            used = "nft" if "nf_tables" in await call(("iptables", "--version"), "", 20.0, "iptables") else "legacy"
        return [_Chains(flavour) for flavour in _FLAVOURS if flavour != used]


class _Sets:
    """Our sets of ipset: without rules they do nothing."""

    async def enforces(self) -> bool:
        return False

    async def remove(self) -> None:
        if not Path("/sys/module/ip_set").exists():
            return
        async with open_sets() as sets:
            for name in await sets.entries():
                await sets.destroy(name)
