"""A protected host, its clients and a container behind it: three namespaces with cables between them."""

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from agent.dataplane import choose
from agent.dataplane.change import Change
from agent.dataplane.interface import Dataplane
from agent.dataplane.ipset import IpsetDataplane
from agent.dataplane.nft_rules import TABLE
from agent.dataplane.nftables import NftablesDataplane
from agent.dataplane.template import RuleTemplate
from agent.desired import ALLOW, DENY, Desired, Failsafe, Posture
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.policy.services import Service, parse_ports
from tests.lab.netns import Namespace, link, unique
from tests.lab.tcp import End, Listener, MakeSocket, connect

ALICE, BOB, SERVER = "192.0.2.10", "192.0.2.20", "192.0.2.1"
ALICE6, BOB6, SERVER6 = "2001:db8::10", "2001:db8::20", "2001:db8::1"
CONTAINER = "198.51.100.2"
PORT, OPEN_PORT, PUBLISHED, CONTAINER_PORT = 2222, 3333, 4444, 5555
SERVICE = Service(f"shell_tcp_{PORT}", tuple(map(parse_ports, (f"{PORT}/tcp", f"{PORT}/udp", str(PUBLISHED)))))

Members = Mapping[str, float]
"""Address or network → seconds from now, or NEVER."""


class Host:
    """The dataplane on `server`, with `client` (alice, bob) on one side and `container` on the other."""

    def __init__(self, directory: Path, backend: str) -> None:
        """`backend` is `nftables`, or which iptables the ipset backend uses: `nft` or `legacy`."""
        self.client, self.server, self.container = (unique("rbe2e", part) for part in ("client", "server", "inner"))
        self.backend = backend
        self.flavour = "legacy" if backend == "legacy" else "nft"
        self._directory = directory
        self._stack = ExitStack()
        self._agent = ExitStack()
        self.desired = Desired((), {ALLOW: {}, DENY: {}})

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for namespace in (self.client, self.server, self.container):
                stack.enter_context(namespace)
            users = [f"{ALICE}/24", f"{BOB}/24", f"{ALICE6}/64", f"{BOB6}/64"]
            link(self.client, "eth0", users, self.server, "eth0", [f"{SERVER}/24", f"{SERVER6}/64"])
            link(self.server, "inner0", ["198.51.100.1/24"], self.container, "eth0", [f"{CONTAINER}/24"])
            self.container.run("ip", "route", "add", "default", "via", "198.51.100.1")
            self.server.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
            self._stack = stack.pop_all()
        self._start_agent()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self.stop_agent()

    def enforce(
        self,
        members: Members | None = None,
        *,
        allow: Members | None = None,
        deny: Members | None = None,
        failsafe: tuple[str, ...] = (),
        services: tuple[Service, ...] = (SERVICE,),
        now: float | None = None,
        posture: Posture = Posture(),  # noqa: B008 — it is immutable
        sets: Mapping[str, Members] | None = None,
    ) -> Change:
        """Applies a policy in which every service has `members`, and custom sets theirs."""
        now = time.time() if now is None else now
        lists = {service.name: members for service in services} | {ALLOW: allow, DENY: deny} | dict(sets or {})
        desired = Desired(
            services,
            {
                name: {
                    parse_prefix(each): NEVER if end == NEVER else now + end for each, end in (entries or {}).items()
                }
                for name, entries in lists.items()
            },
            tuple(Failsafe((parse_prefix(network),), SERVICE.ports) for network in failsafe),
            posture,
        )
        return self.apply(desired, now)

    def apply(
        self, desired: Desired, now: float | None = None, changed: Mapping[str, set[Prefix]] | None = None
    ) -> Change:
        """Applies `desired` in the server's namespace."""
        at = time.time() if now is None else now
        self.desired = desired
        return self.server.call(lambda: asyncio.run(self.dataplane.apply(desired, at, changed)))

    def differences(self, now: float | None = None) -> list[str]:
        """Where the kernel is not as it was last told to be."""
        at = time.time() if now is None else now
        return [str(each) for each in self.server.call(lambda: asyncio.run(self.dataplane.compare(self.desired, at)))]

    def uninstall(self) -> None:
        """Removes what is ours from the server."""
        self.server.call(lambda: asyncio.run(self.dataplane.uninstall()))

    def uninstall_all(self) -> None:
        """Removes what is ours of every backend, with no agent running."""
        self.server.call(lambda: asyncio.run(choose.uninstall(self._directory / "lock")))

    def switch(self, backend: str) -> None:
        """A new agent with another backend; it has not programmed anything yet."""
        self.stop_agent()
        self.backend, self.flavour = backend, "legacy" if backend == "legacy" else "nft"
        name = "nftables" if backend == "nftables" else "ipset"
        self.dataplane = choose.dataplane(name, self._directory / "lock", {}, "" if name == "nftables" else backend)
        self.server.call(lambda: self._agent.enter_context(self.dataplane))

    def is_in_place(self) -> bool:
        """True if the agent finds rules of ours, of whatever backend."""
        return self.server.call(lambda: asyncio.run(self.dataplane.is_in_place()))

    def traces(self) -> list[str]:
        """Of which backends there is anything in the kernel."""
        saved = {flavour: self.server.run(f"iptables-{flavour}-save").stdout for flavour in ("nft", "legacy")}
        sets = "rb4h." in self.server.run("ipset", "list", "-n").stdout
        found = [flavour for flavour, text in saved.items() if "RB-" in text]
        assert bool(found) == sets
        return found + (["nftables"] if TABLE in self.server.run("nft", "list", "tables").stdout else [])

    def stop_agent(self) -> None:
        """From here on nobody helps the kernel."""
        self._agent.close()

    def restart_agent(self, template: RuleTemplate | None = None) -> None:
        """A new agent, which knows nothing of what the one before it did."""
        self.stop_agent()
        self._start_agent(template)

    def sets(self) -> Mapping[str, int]:
        """Our sets with the number of entries."""
        return self.server.call(lambda: asyncio.run(self.dataplane.summary()))

    def saved(self) -> str:
        """The rules of IPv4 as the kernel has them, without counters."""
        if self.backend == "nftables":
            return self.server.run("nft", "-s", "-t", "list", "ruleset").stdout
        return self.server.run(f"iptables-{self.flavour}-save", "-t", "filter").stdout

    def own_rules(self) -> list[str]:
        """All rules of ours, in order."""
        return list(self.server.call(lambda: asyncio.run(self.dataplane.listing())).rules)

    def members(self, set_name: str) -> dict[str, float]:
        """What a set of ours holds: seconds left, infinity if permanent."""
        found = self.server.call(lambda: asyncio.run(self.dataplane.listing())).members[set_name]
        return {str(IPv4Address(first)): left for (first, _), left in found.items()}

    def flush(self, way: str) -> None:
        """Empties one of our chains by hand: INPUT, OUTPUT, FORWARD."""
        if self.backend == "nftables":
            self.server.run("nft", "flush", "chain", "inet", TABLE, way.lower())
        else:
            self.iptables("-F", f"RB-{way}")

    def iptables(self, *argv: str) -> None:
        """Changes IPv4 rules by hand."""
        self.server.run(f"iptables-{self.flavour}", *argv)

    def listen(self, port: int = PORT, family: int = socket.AF_INET, where: Namespace | None = None) -> Listener:
        """A TCP service on the server, or `where`, until the test ends."""
        listener = Listener(tcp(where or self.server), family, port)
        self._stack.callback(listener.close)
        return listener

    def connected(
        self, listener: Listener, source: str = ALICE, port: int = PORT, *, every: tuple[float | None, float | None]
    ) -> tuple[End, End]:
        """A live connection from `source`: its client's and its server's end, each sending that often (seconds)."""
        to = SERVER6 if ":" in source else SERVER
        client = connect(tcp(self.client), source, (to, port), every=every[0])
        return client, listener.accept(every=every[1])

    def _start_agent(self, template: RuleTemplate | None = None) -> None:
        self.dataplane = make(self._directory / "lock", self.backend, template)
        self.server.call(lambda: self._agent.enter_context(self.dataplane))


def make(lock: Path, backend: str, template: RuleTemplate | None = None) -> Dataplane:
    """The dataplane of a backend, as Host calls it."""
    if backend == "nftables":
        return NftablesDataplane(lock, template)
    return IpsetDataplane(lock, backend, template)


def tcp(namespace: Namespace) -> MakeSocket:
    """Makes TCP sockets in a namespace."""
    return partial(namespace.socket, type=socket.SOCK_STREAM)


def reach(namespace: Namespace, source: str, target: str, port: int = PORT, timeout: float = 1.0) -> str:
    """What a TCP connection attempt meets: `open`, `refused` (a reset) or `silence`."""
    sock = namespace.socket(socket.AF_INET6 if ":" in target else socket.AF_INET)
    with sock:
        sock.settimeout(timeout)
        sock.bind((source, 0))
        try:
            sock.connect((target, port))
        except (ConnectionRefusedError, BrokenPipeError):  # the other: it was let in, and cut off in the same moment
            return "refused"
        except TimeoutError:
            return "silence"
        return "open"
