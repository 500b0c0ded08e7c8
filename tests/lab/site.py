"""The whole system on one machine: three network namespaces and the real parts in them.

    client ──── 192.0.2.0/24, 2001:db8:2::/64 ──────── server     users and the service they want
    client ──── 203.0.113.0/24, 2001:db8:3::/64 ────── radius     the NAS (in client) and FreeRADIUS
    server ──── 198.51.100.0/24 ────────────────────── radius     the agent and Consul

In `radius`: Consul (dev mode), the bridge and FreeRADIUS before it. In `server`: the agent and a TCP service.
"""

import json
import os
import re
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from tests.lab import freeradius
from tests.lab.freeradius import Answer, radclient
from tests.lab.netns import Namespace, link
from tests.lab.processes import BIN, LabError, Part, Process, run, wait_until
from tests.lab.radius_client import AccountingClient
from tests.lab.tcp import MakeSocket


@dataclass(frozen=True)
class Person:
    """Where somebody sits in the client namespace."""

    name: str
    address: str
    address6: str


ALICE = Person("alice", "192.0.2.10", "2001:db8:2::10")
BOB = Person("bob", "192.0.2.20", "2001:db8:2::20")

SERVER, SERVER6 = "192.0.2.1", "2001:db8:2::1"
"""The protected host, as users see it."""

NAS, NAS6 = "203.0.113.2", "2001:db8:3::2"
RADIUS, RADIUS6 = "203.0.113.1", "2001:db8:3::1"
CONSUL, CONSUL_FROM = "198.51.100.1", "198.51.100.2"

LOGINS = "10.66.0.0/16"
"""Addresses that may be bound too, for tests and benchmarks with many logins; nobody is there."""

BRIDGE_PORT = 11813
CONSUL_PORT = 8500

SERVICE_PORT = 8080
SERVICE = f"wiki_tcp_{SERVICE_PORT}"
"""The service as grants name it."""

NAS_SECRET = b"lab-nas-secret"
BRIDGE_SECRET = b"lab-bridge-secret"
"""Secrets of a network that exists nowhere else."""


@dataclass(frozen=True)
class Login:
    """The one user whose password FreeRADIUS knows."""

    user: str
    password: str

    @property
    def environment(self) -> dict[str, str]:
        """As config/freeradius/vpn.conf wants it."""
        return {"LOGIN_USER": self.user, "LOGIN_PASSWORD": self.password}


def write_secret(path: Path, secret: bytes) -> None:
    """A secret in a file of root's own."""
    path.touch(mode=0o600)
    path.write_bytes(secret)


def _pids(namespace: Namespace) -> list[int]:
    return [int(pid) for pid in run(["ip", "netns", "pids", namespace.name]).stdout.split()]


def _is_empty(namespace: Namespace) -> bool:
    return not _pids(namespace)


def clear(namespace: Namespace) -> None:
    """Ends whatever runs in a namespace, and deletes it, if it is there."""
    if namespace.exists():
        for pid in _pids(namespace):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(partial(_is_empty, namespace), f"the end of all in {namespace.name}")
        namespace.delete()


class Site(Part):
    """The parts, by name. As a context it starts everything and leaves nothing behind."""

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        forwarder: bool = True,
        ports: tuple[int, ...] = (),
        bridges: int = 1,
        login: Login | None = None,
        more: str = "",
    ) -> None:
        """`name` begins the namespaces' names; logs, configuration and state go to `directory`.

        Without `forwarder` there is no FreeRADIUS, and a NAS talks to the bridge itself. `ports` of the
        server are protected besides SERVICE_PORT. Of several `bridges` all but the first are for NASes only.
        With `login`, FreeRADIUS checks passwords too. `more` is more of the bridges' configuration.
        """
        self.directory = directory
        self.radius = Namespace(f"{name}-radius")
        self.client = Namespace(f"{name}-client")
        self.server = Namespace(f"{name}-server")
        self._extra_ports = ports
        self._more = more
        self.nas_secret_file = directory / "nas.secret"
        self.agent_socket = directory / "agent" / "control.sock"
        self.consul = Process(
            "consul",
            [
                "consul",
                "agent",
                "-dev",
                "-bind",
                CONSUL,
                "-client",
                f"127.0.0.1 {CONSUL}",
                "-log-level",
                "warn",
            ],
            log=directory / "consul.log",
            namespace=self.radius.name,
        )
        self.bridge = Process(
            "bridge",
            [BIN / "radius-bridge", "serve", "-c", directory / "bridge.toml"],
            log=directory / "bridge.log",
            namespace=self.radius.name,
        )
        self.other_bridges = [
            Process(
                f"bridge{number}",
                [BIN / "radius-bridge", "serve", "-c", directory / f"bridge{number}.toml"],
                log=directory / f"bridge{number}.log",
                namespace=self.radius.name,
            )
            for number in range(1, bridges)
        ]
        self.agent = Process(
            "agent",
            [BIN / "radius-bridge-agent", "run", "-c", directory / "agent.toml"],
            log=directory / "agent.log",
            namespace=self.server.name,
        )
        self.service = Process(
            "service",
            [BIN / "python", "-m", "tests.lab.banner", str(SERVICE_PORT)],
            log=directory / "service.log",
            namespace=self.server.name,
        )
        self.freeradius = (
            freeradius.forwarder(
                namespace=self.radius.name,
                directory=directory,
                bridge=("127.0.0.1", BRIDGE_PORT),
                bridge_secret=BRIDGE_SECRET.decode(),
                nas_networks=("203.0.113.0/24", "2001:db8:3::/64"),
                nas_secret=NAS_SECRET.decode(),
                configuration="radiusd" if login is None else "vpn",
                more=None if login is None else login.environment,
            )
            if forwarder
            else None
        )

        self._ready = {self.bridge: "listening", self.agent: '"enforcing"', self.service: "listening"}
        self._ready |= dict.fromkeys(self.other_bridges, "listening")
        if self.freeradius is not None:
            self._ready[self.freeradius] = freeradius.READY

    @classmethod
    def of_this_process(
        cls,
        prefix: str,
        directory: Path,
        *,
        forwarder: bool = True,
        ports: tuple[int, ...] = (),
        bridges: int = 1,
        login: Login | None = None,
        more: str = "",
    ) -> Self:
        """A site that no other process has. Ends what processes that are dead left of theirs."""
        left = run(["ip", "-brief", "netns", "list"]).stdout.split()
        for name, pid in {(m[0], m[1]) for m in map(re.compile(rf"{prefix}-(\d+)(?=-)").match, left) if m}:
            if not Path("/proc", pid).exists():
                cls(name, directory).sweep()
        name = f"{prefix}-{os.getpid()}"
        return cls(name, directory, forwarder=forwarder, ports=ports, bridges=bridges, login=login, more=more)

    @property
    def parts(self) -> list[Process]:
        """All processes, in the order they are started."""
        parts = (self.consul, self.bridge, *self.other_bridges, self.freeradius, self.agent, self.service)
        return [part for part in parts if part is not None]

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """The three namespaces."""
        return (self.radius, self.client, self.server)

    def begin(self) -> None:
        """Makes and starts everything."""
        self.build()
        self.start()

    def build(self) -> None:
        """Makes the namespaces, the links between them, and every part's configuration."""
        for namespace in self.namespaces:
            namespace.create()
        v4, v6 = "/24", "/64"
        persons = [(each.address + v4, each.address6 + v6) for each in (ALICE, BOB)]
        link(
            self.client,
            "users",
            tuple(address for person in persons for address in person),
            self.server,
            "users",
            (SERVER + v4, SERVER6 + v6),
        )
        link(self.client, "radius", (NAS + v4, NAS6 + v6), self.radius, "nas", (RADIUS + v4, RADIUS6 + v6))
        link(self.server, "consul", (CONSUL_FROM + v4,), self.radius, "server", (CONSUL + v4,))
        self._write_configuration()

    def _write_configuration(self) -> None:
        write_secret(self.nas_secret_file, NAS_SECRET)
        bridge_secret_file = self.directory / "bridge.secret"
        write_secret(bridge_secret_file, BRIDGE_SECRET)
        consul = f'[consul]\nurl = "http://{CONSUL}:{CONSUL_PORT}"\n'
        clients = "".join(
            f"""
[[client]]
name = "{name}"
address = "{address}"
secret_file = "{bridge_secret_file}"
networks = ["192.0.2.0/24", "2001:db8:2::/64", "{LOGINS}"]
"""
            for name, address in (("freeradius", "127.0.0.1"), ("nas", NAS))
        )
        (self.directory / "bridge.toml").write_text(
            f"""{consul}
[radius]
listen = ["127.0.0.1:{BRIDGE_PORT}", "{RADIUS}:{BRIDGE_PORT}"]
default_lease = "8h"
{self._more}
{clients}"""
        )
        for number in range(1, len(self.other_bridges) + 1):
            (self.directory / f"bridge{number}.toml").write_text(
                f'{consul}\n[radius]\nlisten = ["{RADIUS}:{BRIDGE_PORT + number}"]\n{self._more}\n{clients}'
            )
        services = self.directory / "services.d"
        services.mkdir()
        ports = [f"{port}/tcp" for port in (SERVICE_PORT, *self._extra_ports)]
        (services / "wiki.json").write_text(json.dumps({"name": "wiki", "ports": ports}))
        (self.directory / "agent.toml").write_text(
            f"""services_dir = "{services}"
state_dir = "{self.directory / "agent"}"
control_socket = "{self.agent_socket}"
node = "server"

{consul}"""
        )

    def restart_agent(self, backend: str) -> None:
        """Ends the agent and starts it anew with this backend; its rules stay meanwhile."""
        self.agent.kill()
        path = self.directory / "agent.toml"
        lines = [line for line in path.read_text().splitlines() if not line.startswith("backend = ")]
        path.write_text("\n".join([f'backend = "{backend}"', *lines]))
        self.start()

    def start(self) -> None:
        """Starts every part that does not run, and waits until all are ready.

        Consul in dev mode keeps nothing over a restart.
        """
        idle = [part for part in self.parts if not part.is_running]
        for part in idle:
            part.start()
            if part is self.consul:
                part.wait_ready(self.consul_has_leader)
        for part in idle:
            if part in self._ready:
                part.wait_log(self._ready[part], timeout=60)  # eight bridges may read 100,000 bindings

    def close(self) -> None:
        """Ends every part and deletes the namespaces; safe to call at any time, and twice."""
        for part in reversed(self.parts):
            part.kill()
        for namespace in self.namespaces:
            namespace.delete()

    def sweep(self) -> None:
        """Ends and removes what a site of this name left behind, whatever became of who started it.

        Nothing else runs in these namespaces, so every process in them is the site's.
        """
        for namespace in self.namespaces:
            clear(namespace)

    def consul_has_leader(self) -> bool:
        """True when Consul can commit."""
        nodes = run(
            ["consul", "catalog", "nodes", "-http-addr", f"{CONSUL}:{CONSUL_PORT}"],
            namespace=self.radius.name,
        )
        return nodes.returncode == 0 and CONSUL in nodes.stdout

    def engineer(self, *arguments: str) -> str:
        """Runs `radius-bridge ARGUMENTS` as an engineer does; gives its output. LabError if it fails."""
        result = run(
            [BIN / "radius-bridge", *arguments],
            namespace=self.radius.name,
            env={"CONSUL_HTTP_ADDR": f"{CONSUL}:{CONSUL_PORT}"},
        )
        if result.returncode != 0:
            raise LabError(f"radius-bridge {' '.join(arguments)}: exit code {result.returncode}\n{result.stderr}")
        return result.stdout

    def agent_status(self) -> dict[str, Any]:
        """What the agent's control socket answers to `status`."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.agent_socket))
            sock.sendall(b"status\n")
            with sock.makefile("rb") as answer:
                status: dict[str, Any] = json.loads(answer.readline())
        return status

    def nas(self, attributes: str, *, server: str = RADIUS, timeout: float = 3.0) -> Answer:
        """A NAS sends accounting to FreeRADIUS; `attributes` as radclient reads them."""
        return radclient(
            attributes,
            namespace=self.client.name,
            server=server,
            secret_file=self.nas_secret_file,
            timeout=timeout,
        )

    def accounting_client(self, secret: bytes = BRIDGE_SECRET, *, bridge: int = 0) -> AccountingClient:
        """A NAS that talks to a bridge (by its number) directly; close it after use."""
        sock = self.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((RADIUS, BRIDGE_PORT + bridge))
        return AccountingClient(sock, secret)

    @property
    def from_client(self) -> MakeSocket:
        """Makes TCP sockets in the client namespace."""
        return self.client.socket

    @property
    def on_server(self) -> MakeSocket:
        """Makes TCP sockets in the server namespace."""
        return self.server.socket
