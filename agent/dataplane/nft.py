"""Our table in nftables: read and written with `nft`, each write one transaction. Members are not its business."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from agent.dataplane.base import call
from agent.dataplane.nft_rules import TABLE

BASE_CHAINS = {"input", "output", "forward"}
"""Those of our chains that packets come to by themselves."""

_OBJECT = re.compile(r"\t(\S+(?: \S+)?) (\S+) \{")
_EMPTY = re.compile(r"\t(\S+(?: \S+)?) (\S+) \{ \}")
_COUNTED = re.compile(r"packets (\d+) bytes \d+")


@dataclass(frozen=True, slots=True)
class Installed:
    """What the kernel has of our table, as nft lists it; members and counts left out."""

    objects: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """By kind (`chain`, `set`, `counter` …) and name: its lines."""
    flags: tuple[str, ...] = ()
    """Lines about the table itself: there should be none."""
    counts: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Packets that our named counters met."""

    def names(self, kind: str) -> list[str]:
        """The objects of a kind, in order."""
        return [name for each, name in self.objects if each == kind]

    @property
    def is_in_place(self) -> bool:
        """True if packets meet our rules: the chains that have a hook are there, and no chain was emptied.

        A flag of the table (dormant) would switch all of it off.
        """
        chains = {name: lines for (kind, name), lines in self.objects.items() if kind == "chain"}
        return (
            not self.flags
            and chains.keys() >= BASE_CHAINS
            and all(any(not line.startswith("type ") for line in lines) for lines in chains.values())
        )

    def wrong_sets(self, declarations: Mapping[str, str]) -> dict[str, str]:
        """Those of these sets that are there, but declared otherwise: what somebody else made."""
        found = {name: lines for (kind, name), lines in self.objects.items() if kind == "set"}
        return {
            name: declared
            for name, declared in declarations.items()
            if name in found and found[name] != tuple(each.strip() for each in declared.split(";") if each.strip())
        }

    def lines(self) -> tuple[str, ...]:
        """Everything but the sets, in a canonical order."""
        chains = (f"{kind} {name}: {line}" for (kind, name), lines in self._sorted() for line in lines or ("",))
        return (*self.flags, *chains)

    def _sorted(self) -> list[tuple[tuple[str, str], tuple[str, ...]]]:
        return sorted((key, lines) for key, lines in self.objects.items() if key[0] != "set")


def read_listing(text: str) -> Installed:
    """Reads our table from the output of `nft -t list ruleset`."""
    objects: dict[tuple[str, str], tuple[str, ...]] = {}
    counts: dict[str, int] = {}
    flags, lines, ours = [], list[str](), False
    key: tuple[str, str] | None = None
    for line in text.splitlines():
        if not line:
            continue
        if not line.startswith("\t"):
            ours = line == f"table inet {TABLE} {{"
        elif not ours:
            continue
        elif key is None:
            if empty := _EMPTY.fullmatch(line):
                objects[empty[1], empty[2]] = ()
            elif head := _OBJECT.fullmatch(line):
                key, lines = (head[1], head[2]), []
            else:
                flags.append(line.strip())
        elif line == "\t}":
            objects[key] = tuple(lines)
            key = None
        elif key[0] == "counter":
            counts[key[1]] = int(counted[1]) if (counted := _COUNTED.search(line)) else 0
        elif line.strip():
            lines.append(_COUNTED.sub("", line).strip())
    return Installed(objects, tuple(flags), counts)


def install_text(rules: Iterable[str], before: Installed, anew: Mapping[str, str] | None = None) -> str:
    """What makes `rules` (the whole table but its sets) the content of our chains, in one transaction.

    Sets stay as they are, but for those that are made `anew`, empty; chains that `rules` do not have, and everything
    else that is not ours, go.
    """
    lines = list(rules)
    wanted = {
        (head[1], head[2]): following.strip()
        for line, following in pairwise([*lines, ""])
        if (head := _OBJECT.match(line))
    }
    gone = [
        (kind, name)
        for (kind, name), content in before.objects.items()
        if kind != "set" and ((kind, name) not in wanted or _hook(content[:1]) != _hook([wanted[kind, name]]))
    ]
    commands = [f"flush chain inet {TABLE} {name}" for name in before.names("chain")]
    # Chains first: their rules were what used the others.
    for kind, name in sorted(gone, key=lambda key: key[0] != "chain"):
        commands.append(f"delete {kind} inet {TABLE} {name}")
    for name, declared in (anew or {}).items():
        commands += [f"delete set inet {TABLE} {name}", f"add set inet {TABLE} {name} {{ {declared} }}"]
    return "\n".join([*commands, *lines, ""])


def _hook(first: Iterable[str]) -> str:
    """Where a chain hangs, from its first line; empty if nowhere. A chain cannot be moved, only made anew."""
    return next((line.partition(" policy")[0] for line in first if line.startswith("type ")), "")


def sets_text(declarations: Mapping[str, str]) -> str:
    """What makes these empty sets."""
    lines = [f"add set inet {TABLE} {name} {{ {declared} }}" for name, declared in declarations.items()]
    return "\n".join([f"add table inet {TABLE}", *lines, ""])


class Nft:
    """Our table in this network namespace."""

    def __init__(self, timeout: float = 20.0) -> None:
        """`timeout` (seconds) bounds a call."""
        self._timeout = timeout

    async def read(self) -> Installed:
        """What is there of ours; nothing, if there is no table. Raises DataplaneError."""
        # Only the whole rule set: nft 1.0.6 reads all members of all sets to list one table, without showing them.
        return read_listing(await self._call("-t", "list", "ruleset", "inet"))

    async def run(self, text: str) -> None:
        """Does what `text` says, in one transaction. Raises DataplaneError."""
        await self._call("-f", "-", text=text)

    async def delete_sets(self, names: Collection[str]) -> None:
        """Deletes sets that no rule mentions any more. Raises DataplaneError."""
        if names:
            await self.run("".join(f"delete set inet {TABLE} {name}\n" for name in names))

    async def uninstall(self) -> None:
        """Removes our table. Raises DataplaneError."""
        # First the rules: packets under way would be looked up in sets that are taken away at once, and refused.
        if chains := (await self.read()).names("chain"):
            await self.run("".join(f"flush chain inet {TABLE} {name}\n" for name in chains))
        # Adding first makes this right whether it is there or not.
        await self.run(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")

    async def _call(self, *argv: str, text: str = "") -> str:
        return await call(("nft", *argv), text, self._timeout, "nftables")
