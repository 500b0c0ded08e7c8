"""Our chains and jumps in iptables and ip6tables, changed with one atomic restore per family."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.dataplane.base import call
from agent.dataplane.errors import DataplaneError
from agent.dataplane.rules import CHAINS, JUMPS, is_chain_of_ours

_TARGET = re.compile(r" -[jg] (\S+)")
_COUNTING = re.compile(r'-m comment --comment "?([^" ]+)"?$')
_NFTABLES = "(nf_tables) on "
_INCOMPATIBLE = "is incompatible, use 'nft' tool"
_TRIES = 3
"""How often rules are written again until they are read back twice as the same."""

_COUNTERS = re.compile(r"\[(\d+):\d+\] ")


@dataclass(frozen=True, slots=True)
class Installed:
    """What the kernel has of ours, as iptables-save tells it."""

    chains: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """The rules of our chains."""
    jumps: tuple[str, ...] = ()
    """The rules of other chains that lead into ours."""
    at_head: bool = False
    """True if each built-in chain begins with its jump, and there is no other."""
    in_nftables: bool = field(default=False, compare=False)
    """True if this is iptables-nft."""
    counts: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Packets that our counting rules met, by their comment."""
    is_hidden: bool = field(default=False, compare=False)
    """True if iptables does not list the table, since somebody used nft to put rules there that it does not know. That
    is no news of our rules, and above all not that they are gone."""

    @property
    def is_in_place(self) -> bool:
        """True if packets meet our rules: the jumps are at the head, and no chain that is led to was emptied.

        The chains for what is no service's may be empty: earlier versions led there in any case.
        """
        filled = {rule.split(" ", 2)[1] for rule in self.rules}
        led_to = {target[1] for rule in (*self.rules, *self.jumps) if (target := _TARGET.search(rule))}
        return self.at_head and all(
            chain in filled for chain in self.chains if chain in led_to and not chain.endswith("-REST")
        )

    def shape(self) -> list[tuple[str, str]]:
        """Where each rule stands and where it leads: that iptables writes as we do, whatever its version."""
        return [(rule.split(" ", 2)[1], target[1] if (target := _TARGET.search(rule)) else "") for rule in self.rules]

    def lines(self, version: int) -> tuple[str, ...]:
        """All of it, for one IP version, in an order that does not depend on iptables'."""
        place = () if self.at_head else ("the jumps are not at the head",)
        rules = sorted(self.rules, key=lambda rule: rule.split(" ", 2)[1])
        return tuple(f"ipv{version} {line}" for line in (*sorted(self.chains), *sorted(self.jumps), *place, *rules))


def expected(rules: Sequence[str]) -> str:
    """What iptables-save tells of a host where `rules` are installed and there is nothing else."""
    return "\n".join([*(f":{chain} - [0:0]" for chain in _chains(rules)), *_jumps(), *rules])


def read_save(text: str) -> Installed:
    """Reads the output of `iptables-save -t filter`, with or without -c."""
    chains, rules, jumps = [], [], []
    heads: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for each in text.splitlines():
        packets, line = _without_counters(each)
        if line.startswith(":"):
            name = line[1:].split(" ", 1)[0]
            if is_chain_of_ours(name):
                chains.append(name)
        elif line.startswith("-A "):
            chain = line.split(" ", 2)[1]
            heads.setdefault(chain, line)
            target = _TARGET.search(line)
            if is_chain_of_ours(chain):
                rules.append(line)
                if counting := _COUNTING.search(line):
                    counts[counting[1]] += packets
            elif target and is_chain_of_ours(target[1]):
                jumps.append(line)
    at_head = sorted(jumps) == sorted(_jumps()) and all(heads[jump.split(" ", 2)[1]] == jump for jump in _jumps())
    rules.sort(
        key=lambda rule: rule.split(" ", 2)[1]
    )  # each chain's in its order; iptables-legacy lists chains otherwise
    is_hidden = _INCOMPATIBLE in text
    in_nftables = is_hidden or _NFTABLES in text
    return Installed(tuple(chains), tuple(rules), tuple(jumps), at_head, in_nftables, counts, is_hidden)


def install_text(rules: Sequence[str], installed: Installed) -> str:
    """What makes `rules` the content of our chains and puts the jumps at the head, in one transaction."""
    chains, jumps = _chains(rules), []
    gone = [chain for chain in installed.chains if chain not in chains]
    if not installed.at_head:
        jumps += _deleted(installed.jumps)
        jumps += [f"-I {builtin} 1 -j {ours}" for builtin, ours in JUMPS.items()]
    return _transaction([*rules, *jumps, *(f"-X {chain}" for chain in gone)], [*chains, *gone])


def uninstall_text(installed: Installed) -> str:
    """What removes our jumps and chains, in one transaction. Naming a chain empties it."""
    deletions = [*_deleted(installed.jumps), *(f"-X {chain}" for chain in installed.chains)]
    return _transaction(deletions, installed.chains)


def _without_counters(line: str) -> tuple[int, str]:
    """The packets that a rule met, and the rule."""
    counters = _COUNTERS.match(line)
    return (int(counters[1]), line[counters.end() :]) if counters else (0, line)


def _chains(rules: Iterable[str]) -> dict[str, None]:
    """The chains of these rules, and those that are always there, in order."""
    return dict.fromkeys([*CHAINS, *(chain for rule in rules if is_chain_of_ours(chain := rule.split(" ", 2)[1]))])


def _jumps() -> list[str]:
    return [f"-A {builtin} -j {ours}" for builtin, ours in JUMPS.items()]


def _deleted(rules: Iterable[str]) -> list[str]:
    return [rule.replace("-A ", "-D ", 1) for rule in rules]


def _transaction(lines: Sequence[str], chains: Iterable[str]) -> str:
    return "\n".join(["*filter", *(f":{chain} - [0:0]" for chain in chains), *lines, "COMMIT", ""])


class Iptables:
    """The filter table of one IP version."""

    def __init__(self, version: int, backend: str = "", timeout: float = 20.0) -> None:
        """`backend` is `nft` or `legacy`; if empty, what the host uses. `timeout` (seconds) bounds a call."""
        self.version = version
        program = ("iptables" if version == 4 else "ip6tables") + (f"-{backend}" if backend else "")
        self._save = (f"{program}-save", "-t", "filter", "-c")
        # -w: another program may hold the lock; five seconds, as long as an engineer would wait.
        self._restore = (f"{program}-restore", "--noflush", "-w", "5")
        self._timeout = timeout

    async def read(self) -> Installed:
        """What is installed of ours. Raises DataplaneError."""
        return read_save(await self._call(self._save, ""))

    async def install(self, rules: Sequence[str], before: Installed, *, is_sites: bool = False) -> Installed:
        """Makes `rules` the content of our chains, the jumps at the head; gives what the kernel made of it.

        `before` is what is there now. There is no moment without the jumps. What the kernel has afterwards counts as
        right from then on, so it must not be what somebody else made of it meanwhile: it says what was written, or in
        other words the same, twice. Only a site's template (`is_sites`) may become more rules than it has, or fewer.
        Where iptables can write and not list, it is believed. Raises DataplaneError.
        """
        await self._call(self._restore, install_text(rules, before))
        wanted, found = read_save(expected(rules)), await self.read()
        if found.lines(self.version) == wanted.lines(self.version):
            return found
        for _ in range(_TRIES):
            if found.is_hidden:
                return replace(wanted, in_nftables=True, is_hidden=True)
            await self._call(self._restore, install_text(rules, found))
            known, found = found, await self.read()
            if found == known and found.at_head and (is_sites or found.shape() == wanted.shape()):
                return found
        raise DataplaneError("somebody else changes our rules in the moment in which they are written")

    async def uninstall(self) -> None:
        """Removes our jumps and chains. Raises DataplaneError."""
        installed = await self.read()
        if installed.chains:
            await self._call(self._restore, uninstall_text(installed))

    async def _call(self, argv: Sequence[str], text: str) -> str:
        try:
            return await call(argv, text, self._timeout, "iptables")
        except DataplaneError as error:
            raise DataplaneError(f"{error}{_at(str(error), text)}") from error


def _at(complaint: str, text: str) -> str:
    """The line of `text` that iptables-restore complains about."""
    number = re.search(r"line:? (\d+)", complaint)
    lines = text.splitlines()
    if number and 0 < int(number[1]) <= len(lines):
        return f" ({lines[int(number[1]) - 1]})"
    return ""
