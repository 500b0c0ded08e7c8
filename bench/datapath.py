"""What a packet pays on a protected host: packets a second on one core, and the round trip, by what is programmed.

The sender is a member of the last of the services, so that all others are looked at first. Each way of filtering has
a pair of network namespaces of its own; they are measured in turn, so that what else the machine does meets all alike.
"""

import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from bench import packets
from bench.dataplanes import BACKENDS, FIRST, desired, inside, members, service
from bench.frame import Bench, Figures, Result, percentile, progress
from bench.tidy import namespace
from radius_bridge.policy.members import parse_prefix
from tests.lab.netns import Namespace, link

MEMBERS = (0, 100_000)
"""Besides the sender."""

SERVICES = (1, 200)
RULES = 10_000

CLIENT, SERVER = "192.0.2.2", "192.0.2.1"
FREE_PORT = 9_999
"""A port of no service."""

BASE = "empty_chain_with_conntrack"
"""What shares are taken of: a host that protects nothing but tracks connections, as the agent's rules need."""

Program = Callable[[Namespace, Path], None]
"""Programs a host's filter; the folder is for its files."""


def run_bench(quick: bool) -> Result:
    """Some 10 s, or a minute and a half."""
    return measure(3, 0.3, 3_000) if quick else measure(9, 0.7, 10_000)


def measure(rounds: int, seconds: float, trips: int) -> Result:
    """Rounds over all ways, in each so many seconds of packets and so many round trips; the median round counts."""
    ours: dict[str, tuple[Program, int]] = {}
    for backend in BACKENDS:
        for services in SERVICES:
            for count in MEMBERS:
                name = f"{backend}_{count}_members_{services}_services"
                ours[name] = partial(_protect, backend, count, services), _port(services)
        ours[f"{backend}_free_port_{SERVICES[-1]}_services"] = partial(_protect, backend, 0, SERVICES[-1]), FREE_PORT
    without: dict[str, tuple[Program, int]] = {
        "empty_chain": (_empty, FREE_PORT),
        BASE: (_tracking, FREE_PORT),
        f"iptables_{RULES}_rules": (_rule_per_address, FREE_PORT),
    }
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder, ExitStack() as stack:
        ways: dict[str, _Way] = {}
        for number, (name, (program, port)) in enumerate({**without, **ours}.items()):
            progress(f"programming {name}")
            place = Path(folder) / str(number)
            place.mkdir()
            ways[name] = _Way(stack, number, program, place, port)
        progress(f"{rounds} rounds over {len(ways)} ways to filter")
        with _one_core():
            for _ in range(rounds):
                for way in ways.values():
                    way.measure(seconds, trips)
        return Result(_figures(ways, list(ours)), _figures(ways, list(without)))


class _Way:
    """One way to filter, between a client and a host of its own."""

    def __init__(self, stack: ExitStack, number: int, program: Program, folder: Path, port: int) -> None:
        client = stack.enter_context(namespace(f"d{number}-client"))
        host = stack.enter_context(namespace(f"d{number}-host"))
        link(client, "users", (f"{CLIENT}/24",), host, "users", (f"{SERVER}/24",))
        program(host, folder)
        self._client = stack.enter_context(client.socket(type=socket.SOCK_DGRAM))
        self._host = stack.enter_context(host.socket(type=socket.SOCK_DGRAM))
        self._client.bind((CLIENT, 0))
        self._client.connect((SERVER, port))
        self._host.bind((SERVER, port))
        self._host.connect(self._client.getsockname())
        self._client.send(b"")  # finds the neighbour
        self._host.settimeout(5)
        self._host.recv(1)
        self._client.setblocking(False)
        self._host.setblocking(False)
        self.rates: list[float] = []
        self.trips: list[list[float]] = []

    def measure(self, seconds: float, trips: int) -> None:
        """One round."""
        self.rates.append(packets.rate(self._client, self._host, seconds))
        self.trips.append(packets.round_trips(self._client, self._host, trips))

    def share(self, of: "_Way") -> float:
        """How many packets pass, of those that pass another way: the median of the rounds' shares."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates, of.rates, strict=True))

    def trip(self, percent: int) -> float:
        """That percentile of the round trip (seconds), in the middle one of the rounds."""
        return statistics.median(percentile(trips, percent) for trips in self.trips)


_WHAT: dict[str, Callable[[_Way, _Way], float]] = {
    "packets_per_s": lambda way, _: round(statistics.median(way.rates)),
    "share_of_empty_chain": lambda way, base: round(way.share(base), 3),
    "round_trip_p50_us": lambda way, _: round(way.trip(50) * 1e6, 2),
    "round_trip_p99_us": lambda way, _: round(way.trip(99) * 1e6, 2),
}


def _figures(ways: dict[str, _Way], names: list[str]) -> Figures:
    return {what: {name: figure(ways[name], ways[BASE]) for name in names} for what, figure in _WHAT.items()}


def _port(services: int) -> int:
    """The port of the last service."""
    return service(services - 1).ports[0].first


def _protect(backend: str, count: int, services: int, host: Namespace, folder: Path) -> None:
    """Services, the last with the sender and many others as its members."""
    held = {**members(count), parse_prefix(CLIENT): time.time() + 86_400}
    want = desired(tuple(map(service, range(services))), held)

    async def work() -> None:
        with BACKENDS[backend](folder / "lock") as dataplane:
            await dataplane.apply(want, time.time())

    inside(host, work)


def _restore(host: Namespace, *rules: str) -> None:
    host.run("iptables-restore", text="\n".join(["*filter", *rules, "COMMIT", ""]))


_BOTH_WAYS = (":OURS - [0:0]", "-A INPUT -j OURS", "-A OUTPUT -j OURS")


def _empty(host: Namespace, folder: Path) -> None:
    """A chain without rules, both ways."""
    _restore(host, *_BOTH_WAYS)


def _tracking(host: Namespace, folder: Path) -> None:
    """The same, and a chain that is never entered makes the kernel track connections."""
    _restore(host, *_BOTH_WAYS, ":UNUSED - [0:0]", "-A UNUSED -m conntrack --ctstate INVALID -j RETURN")


def _rule_per_address(host: Namespace, folder: Path) -> None:
    """One rule for each address; the sender's is the middle one, as it is on average."""
    addresses = [str(IPv4Address(FIRST + number)) for number in range(RULES)]
    addresses[RULES // 2] = CLIENT
    _restore(host, ":OURS - [0:0]", "-A INPUT -j OURS", *(f"-A OURS -s {address} -j ACCEPT" for address in addresses))


@contextmanager
def _one_core() -> Iterator[None]:
    """Keeps this thread on one core: the kernel then works for a packet on the same one."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


BENCH = Bench(
    "datapath",
    "packets a second and round trip, by members and services, beside an empty chain and a rule per address",
    run_bench,
    means="UDP between two namespaces on one core, sending and receiving included; the sender is a member of the "
    "*last* service (the most rules to pass), or sends to a port of no service. Shares are of the empty chain with "
    "connection tracking, which most hosts have on anyway.",
)
