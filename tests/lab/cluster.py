"""Real Consul clusters: every server and host in a network namespace of its own, at a switch that can fail.

    dc1: s1 s2 s3 hosts … ─ switch ──── WAN ──── switch ─ s1 s2 s3 hosts … :dc2

A switch is a namespace with a Linux bridge and the router of its datacenter. A partitioned machine's port drops every
frame and a cut WAN drops every packet; nobody is told, so that whoever waits waits for his own timeout.
"""

import http.client
import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.netns import Namespace, link
from tests.lab.processes import LabError, Part, Process, pause, run, wait_until

PORT = 8500
"""Where Consul's HTTP API is on every machine, at 127.0.0.1."""

NETWORK = "198.18"
"""Networks for measurements (RFC 2544): the third octet is the datacenter's number, 0 the WAN."""

_BRIDGE = "lan"

_FAST = {
    "performance": {"raft_multiplier": 1},
    "retry_interval": "300ms",
    "retry_interval_wan": "300ms",
    "limits": {"http_max_conns_per_client": 1000},
    "ports": {"dns": -1, "grpc": -1},
    "disable_update_check": True,
    "log_level": "warn",
}


class Machine:
    """A host at a datacenter's switch, with a Consul agent: a server or a client."""

    def __init__(self, name: str, dc: "Datacenter", number: int, config: Mapping[str, Any]) -> None:
        """`number` is the last octet of its address; `config` more of Consul's configuration."""
        self.name = name
        self.address = f"{NETWORK}.{dc.number}.{number}"
        self.namespace = Namespace(f"{dc.prefix}-{name}")
        self.folder = dc.folder / name
        self.folder.mkdir(parents=True)
        self._switch = dc.switch
        self._dc = dc
        file = self.folder / "consul.json"
        file.write_text(
            json.dumps(
                {
                    **_FAST,
                    "datacenter": dc.name,
                    "node_name": f"{dc.name}-{name}",
                    "bind_addr": self.address,
                    "client_addr": "127.0.0.1",
                    "data_dir": str(self.folder / "data"),
                    **config,
                }
            ),
            encoding="utf-8",
        )
        argv: list[str | Path] = ["consul", "agent", "-config-file", file]
        self.consul = Process(
            f"consul {dc.name}-{name}", argv, log=self.folder / "consul.log", namespace=self.namespace.name
        )

    def build(self) -> None:
        """Makes the namespace and plugs it in."""
        self.namespace.create()
        link(self.namespace, "lan", (f"{self.address}/24",), self._switch, self.name, ())
        self._switch.run("ip", "link", "set", self.name, "master", _BRIDGE)
        self.namespace.run("ip", "route", "add", "default", "via", self._dc.gateway)

    def get(self, path: str, *, timeout: float = 2.0) -> Any:
        """What this machine's Consul agent answers to `GET <path>`, as JSON. Raises OSError or ValueError."""
        with closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)) as connection:
            connection.sock = self.namespace.socket()
            connection.sock.settimeout(timeout)
            connection.sock.connect(("127.0.0.1", PORT))
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise OSError(f"{path}: {answer.status} {body[:200]!r}")
            return json.loads(body)

    def leader(self) -> str:
        """The address of the leader as this machine knows it; empty if it knows none."""
        try:
            return str(self.get("/v1/status/leader") or "").partition(":")[0]
        except (OSError, ValueError, http.client.HTTPException):
            return ""

    def run(self, *argv: str | Path, env: Mapping[str, str] | None = None, timeout: float = 20.0) -> str:
        """Runs a command here; gives its output. LabError if it fails."""
        done = run(argv, namespace=self.namespace.name, env=env, timeout=timeout)
        if done.returncode:
            raise LabError(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def kill(self) -> None:
        """Ends Consul as a power cut would (SIGKILL)."""
        self.consul.kill()

    def start(self) -> None:
        """Starts Consul."""
        self.consul.start()

    def pause(self) -> None:
        """Keeps Consul from running (SIGSTOP): connections stay open, nothing is answered."""
        pause(self.consul.pid)

    def resume(self) -> None:
        """Lets it run on after `pause`."""
        os.kill(self.consul.pid, signal.SIGCONT)

    def partition(self) -> None:
        """The switch drops every frame from and to this machine."""
        self._switch.run("bridge", "link", "set", "dev", self.name, "state", "0")

    def heal(self) -> None:
        """Ends `partition`."""
        self._switch.run("bridge", "link", "set", "dev", self.name, "state", "3")


class Datacenter(Part):
    """The machines of one datacenter; a context manager that starts its servers and leaves nothing behind."""

    def __init__(
        self,
        prefix: str,
        folder: Path,
        *,
        name: str = "dc1",
        number: int = 1,
        servers: int = 3,
        wan: Sequence[str] = (),
    ) -> None:
        """`prefix` begins the namespaces' names (see `of_this_process`); `number` is its place in NETWORK.

        `wan`: addresses of servers of other datacenters to join.
        """
        self.name = name
        self.number = number
        self.prefix = f"{prefix}-{name}"
        self.folder = folder / name
        self.network = f"{NETWORK}.{number}.0/24"
        self.gateway = f"{NETWORK}.{number}.254"
        self.switch = Namespace(f"{self.prefix}-switch")
        addresses = server_addresses(number, servers)
        config = {"server": True, "bootstrap_expect": servers, "retry_join": addresses, "retry_join_wan": wan}
        self.servers = [Machine(f"s{last}", self, last, config) for last in range(1, servers + 1)]
        self.hosts: list[Machine] = []

    def begin(self) -> None:
        """Makes and starts everything."""
        self.build()
        self.start()

    @property
    def machines(self) -> list[Machine]:
        """Servers and hosts."""
        return [*self.servers, *self.hosts]

    def build(self) -> None:
        """Makes the switch and plugs the servers in."""
        self.switch.create()
        self.switch.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.switch.run("ip", "link", "add", _BRIDGE, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        self.switch.run("ip", "address", "add", f"{self.gateway}/24", "dev", _BRIDGE)
        self.switch.run("ip", "link", "set", _BRIDGE, "up")
        for machine in self.servers:
            machine.build()

    def start(self) -> None:
        """Starts the servers that do not run, and waits until they can commit."""
        for machine in self.servers:
            if not machine.consul.is_running:
                machine.start()
        for machine in self.servers:
            machine.consul.wait_ready(partial(self._is_ready, machine), timeout=30)

    def add_host(self, name: str) -> Machine:
        """A host with a Consul client agent, running and joined."""
        config = {"retry_join": [server.address for server in self.servers]}
        host = Machine(name, self, 11 + len(self.hosts), config)
        self.hosts.append(host)
        host.build()
        host.start()
        host.consul.wait_ready(lambda: self._is_ready(host), timeout=30)
        return host

    def leader(self) -> Machine:
        """The server that leads, as any of those tells that run. Raises LabError if none does."""
        for asked in self.servers:
            if asked.consul.is_running:
                address = asked.leader()
                found = [server for server in self.servers if server.address == address]
                if found:
                    return found[0]
        raise LabError(f"{self.name} has no leader")

    def followers(self) -> list[Machine]:
        """The servers that do not lead."""
        leader = self.leader()
        return [server for server in self.servers if server is not leader]

    def close(self) -> None:
        """Ends everything and deletes the namespaces; safe to call at any time, and twice."""
        for machine in reversed(self.machines):
            machine.kill()
        for namespace in (*(machine.namespace for machine in self.machines), self.switch):
            namespace.delete()

    def _is_ready(self, machine: Machine) -> bool:
        try:
            nodes = machine.get("/v1/catalog/nodes?consistent")
        except (OSError, ValueError, http.client.HTTPException):
            return False
        return machine.consul.is_running and any(node["Node"] == f"{self.name}-{machine.name}" for node in nodes or ())


class Federation:
    """Two datacenters joined by a WAN that can be cut; a context manager like them."""

    def __init__(self, prefix: str, folder: Path, *, servers: int = 3) -> None:
        """`servers` in each."""
        first, second = server_addresses(1, servers), server_addresses(2, servers)
        self.dc1 = Datacenter(prefix, folder, name="dc1", number=1, servers=servers, wan=second)
        self.dc2 = Datacenter(prefix, folder, name="dc2", number=2, servers=servers, wan=first)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            for dc in (self.dc1, self.dc2):
                stack.callback(dc.close)
                dc.build()
            ends = [(dc, f"{NETWORK}.0.{dc.number}") for dc in (self.dc1, self.dc2)]
            link(self.dc1.switch, "wan", (f"{ends[0][1]}/24",), self.dc2.switch, "wan", (f"{ends[1][1]}/24",))
            self.restore()
            for dc in (self.dc1, self.dc2):
                dc.start()
            for dc in (self.dc1, self.dc2):
                for machine in dc.machines:
                    wait_until(partial(self._sees_both, machine), "the federation", timeout=30)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def cut(self) -> None:
        """The WAN drops every packet, silently."""
        for dc, other in ((self.dc1, self.dc2), (self.dc2, self.dc1)):
            dc.switch.run("ip", "route", "replace", "blackhole", other.network)

    def restore(self) -> None:
        """Ends `cut`."""
        for dc, other in ((self.dc1, self.dc2), (self.dc2, self.dc1)):
            dc.switch.run("ip", "route", "replace", other.network, "via", f"{NETWORK}.0.{other.number}")

    @staticmethod
    def _sees_both(machine: Machine) -> bool:
        try:
            return all(machine.get(f"/v1/catalog/nodes?dc={dc}") for dc in ("dc1", "dc2"))
        except (OSError, ValueError, http.client.HTTPException):
            return False


def server_addresses(number: int, servers: int) -> list[str]:
    """The addresses of the servers of datacenter number `number`."""
    return [f"{NETWORK}.{number}.{last}" for last in range(1, servers + 1)]


def of_this_process(prefix: str) -> str:
    """A prefix for namespaces that no other process has. Ends what processes that are dead left of theirs."""
    left = run(["ip", "-brief", "netns", "list"]).stdout.split()
    for name, pid in {(m[0], m[1]) for m in map(re.compile(rf"{prefix}-(\d+)-.*").match, left) if m}:
        if not Path("/proc", pid).exists():
            _sweep(Namespace(name))
    return f"{prefix}-{os.getpid()}"


def _sweep(namespace: Namespace) -> None:
    def pids() -> Sequence[str]:
        return run(["ip", "netns", "pids", namespace.name]).stdout.split()

    for pid in pids():  # nothing else runs in there
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: not pids(), f"the end of all in {namespace.name}")
    namespace.delete()
