"""Our chains and jumps in iptables and ip6tables, changed with one atomic restore per family."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.dataplane.errors import DataplaneError
from agent.dataplane.rules import CHAINS, JUMPS

_TARGET = re.compile(r" -[jg] (\S+)")


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


def read_save(text: str) -> Installed:
    """Reads the output of `iptables-save -t filter`."""
    chains, rules, jumps = [], [], []
    heads: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            name = line[1:].split(" ", 1)[0]
            if name in CHAINS:
                chains.append(name)
        elif line.startswith("-A "):
            chain = line.split(" ", 2)[1]
            heads.setdefault(chain, line)
            target = _TARGET.search(line)
            if chain in CHAINS:
                rules.append(line)
            elif target and target[1] in CHAINS:
                jumps.append(line)
    at_head = sorted(jumps) == sorted(_jumps()) and all(heads[jump.split(" ", 2)[1]] == jump for jump in _jumps())
    return Installed(tuple(chains), tuple(rules), tuple(jumps), at_head)


def install_text(rules: Iterable[str], installed: Installed) -> str:
    """What makes `rules` the content of our chains and puts the jumps at the head, in one transaction."""
    jumps = []
    if not installed.at_head:
        jumps += _deleted(installed.jumps)
        jumps += [f"-I {builtin} 1 -j {ours}" for builtin, ours in JUMPS.items()]
    return _transaction([*rules, *jumps], CHAINS)


def uninstall_text(installed: Installed) -> str:
    """What removes our jumps and chains, in one transaction. Naming a chain empties it."""
    deletions = [*_deleted(installed.jumps), *(f"-X {chain}" for chain in installed.chains)]
    return _transaction(deletions, installed.chains)


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
        self._save = (f"{program}-save", "-t", "filter")
        # -w: another program may hold the lock; five seconds, as long as an engineer would wait.
        self._restore = (f"{program}-restore", "--noflush", "-w", "5")
        self._timeout = timeout

    async def read(self) -> Installed:
        """What is installed of ours. Raises DataplaneError."""
        return read_save(await self._call(self._save, ""))

    async def install(self, rules: Iterable[str]) -> Installed:
        """Makes `rules` the content of our chains, the jumps at the head; gives what the kernel made of it.

        There is no moment without the jumps. Raises DataplaneError.
        """
        await self._call(self._restore, install_text(rules, await self.read()))
        return await self.read()

    async def uninstall(self) -> None:
        """Removes our jumps and chains. Raises DataplaneError."""
        installed = await self.read()
        if installed.chains:
            await self._call(self._restore, uninstall_text(installed))

    async def _call(self, argv: Sequence[str], text: str) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise DataplaneError(f"{argv[0]}: {error}; the agent needs the package iptables") from error
        try:
            async with asyncio.timeout(self._timeout):
                output, errors = await process.communicate(text.encode())
        except TimeoutError:
            raise DataplaneError(f"{argv[0]} did not end within {self._timeout:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            complaint = errors.decode(errors="replace").strip()
            raise DataplaneError(f"{argv[0]}: {complaint or f'exit code {process.returncode}'}{_at(complaint, text)}")
        return output.decode(errors="replace")


def _at(complaint: str, text: str) -> str:
    """The line of `text` that iptables-restore complains about."""
    number = re.search(r"line:? (\d+)", complaint)
    lines = text.splitlines()
    if number and 0 < int(number[1]) <= len(lines):
        return f" ({lines[int(number[1]) - 1]})"
    return ""
