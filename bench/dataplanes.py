"""The agent's dataplanes as benchmarks use them: the real ones, in a network namespace of their own."""

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from agent.dataplane.change import Change
from agent.dataplane.ipset import IpsetDataplane
from agent.dataplane.nftables import NftablesDataplane
from agent.dataplane.plan import size
from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Ports, Service
from radius_bridge.policy.services import Protocol as Transport
from tests.lab.netns import Namespace
from tests.lab.processes import LabError

T = TypeVar("T")

Members = MutableMapping[Prefix, float]
"""Addresses with their end (epoch seconds)."""


class Dataplane(Protocol):
    """What is measured of a dataplane."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Prefix]] | None = None
    ) -> Change: ...


BACKENDS: dict[str, Callable[[Path], Dataplane]] = {"ipset": IpsetDataplane, "nftables": NftablesDataplane}
"""By the name that its figures carry; each gets its lock file. The figures of the first have no name in their keys."""

FIRST = int(IPv4Address("10.0.0.0"))
_LASTS = 86_400.0

_WITHOUT = "without"
"""The set that is filled without us."""


def members(count: int) -> Members:
    """So many addresses, with a day to go."""
    end = time.time() + _LASTS
    return {Prefix(4, FIRST + number, 32): end for number in range(count)}


def service(number: int = 0) -> Service:
    """One UDP port."""
    port = 10_000 + number
    return Service(f"bench_udp_{port}", (Ports(Transport.UDP, port, port),))


def desired(services: tuple[Service, ...], of_last: Mapping[Prefix, float]) -> Desired:
    """These services; the last one has members, which are looked into and not copied."""
    nobody: dict[str, Mapping[Prefix, float]] = {name: {} for name in (*(each.name for each in services), ALLOW, DENY)}
    return Desired(services, {**nobody, services[-1].name: of_last})


def inside(namespace: Namespace, work: Callable[[], Awaitable[T]]) -> T:
    """Does asynchronous work in a thread of the namespace."""

    async def main() -> T:
        return await work()

    return namespace.call(lambda: asyncio.run(main()))


class Restore:
    """The same members as a file of `ipset restore`, which fills a set of the same size aside and swaps it in.

    Used in the network namespace of the calling thread.
    """

    def __init__(self, file: Path, held: Mapping[Prefix, float]) -> None:
        room = size(len(held))
        create = f"hash:ip family inet hashsize {room.hashsize} maxelem {room.maxelem} timeout 0"
        self._create = f"create {_WITHOUT} {create}\n"
        seconds = int(_LASTS)
        aside = f"{_WITHOUT}~"
        with file.open("w") as out:
            out.write(f"create {aside} {create}\n")
            out.writelines(f"add {aside} {prefix} timeout {seconds}\n" for prefix in held)
            out.write(f"swap {aside} {_WITHOUT}\ndestroy {aside}\n")
        self._file = file

    def prepare(self) -> None:
        """Makes the set that is then filled again and again."""
        _ipset("restore", text=self._create)

    def seconds(self) -> float:
        """Fills it; how long that took."""
        with self._file.open("rb") as content:
            began = time.perf_counter()
            done = subprocess.run(["ipset", "restore"], stdin=content, capture_output=True, check=False, timeout=60)
            took = time.perf_counter() - began
        if done.returncode:
            raise LabError(f"ipset restore: {done.stderr.decode(errors='replace')}")
        return took

    @staticmethod
    def change(address: str, *, add: bool) -> float:
        """One change by a process of its own; how long that took."""
        began = time.perf_counter()
        _ipset("add" if add else "del", _WITHOUT, address)
        return time.perf_counter() - began


def _ipset(*argv: str, text: str | None = None) -> None:
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        ["ipset", *argv], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise LabError(f"ipset {' '.join(argv)}: {done.stderr}")
