"""A protected host with its disk, its kernel and a real agent, and the clients before it."""

import asyncio
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent import control
from radius_bridge.policy.members import parse_prefix
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.records import Meta
from radius_bridge.registry.records import encode as encode_record
from tests.e2e.dataplane.host import ALICE, BOB, SERVER, reach
from tests.lab.consul import ConsulServer
from tests.lab.netns import Namespace, link, unique
from tests.lab.processes import BIN, LabError, Process, run, wait_until

PORT = 2222
SERVICE = f"shell_tcp_{PORT}"
KEYS = Keys()
OPERATOR = "192.0.2.99"
"""In the failsafe's network."""

MALLORY = "192.0.2.66"
"""Nobody grants her anything."""


class Machine:
    """One host between two boots: its disk (a folder), and a kernel that is new at each boot."""

    def __init__(self, disk: Path, backend: str = "ipset", more: str = "") -> None:
        """`more` is more of the agent's configuration."""
        self.disk = disk
        self.backend = backend
        self.state = disk / "lib"
        self.config = disk / "agent.toml"
        self.url = "http://127.0.0.1:9"
        self._more = more
        services = disk / "services.d"
        services.mkdir()
        (services / "shell.json").write_text(json.dumps({"name": "shell", "ports": [f"{PORT}/tcp", f"{PORT}/udp"]}))
        self._kernel = ExitStack()
        self._boots = 0
        self._agent: Process | None = None

    def configure(self, url: str, token: str = "") -> None:
        """Writes the agent's configuration, for the Consul at `url`."""
        self.url = url
        token_file = self.disk / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        self.config.write_text(
            f"""services_dir = "{self.disk / "services.d"}"
state_dir = "{self.state}"
control_socket = "{self.disk / "run" / "control.sock"}"
node = "server"
datacenter = "dc1"
backend = "{self.backend}"
{self._more}
[consul]
url = "{url}"
{f'token_file = "{token_file}"' if token else ""}
[[failsafe]]
networks = ["{OPERATOR}/32"]
ports = ["{PORT}/tcp"]
"""
        )

    def boot(self) -> None:
        """The power was off: a kernel without rules, sets or processes."""
        self.power_off()
        (self.disk / "run" / "control.sock").unlink(missing_ok=True)  # /run is not on a disk
        self._boots += 1
        self.client, self.server = (unique("rbboot", f"{part}{self._boots}") for part in ("client", "server"))
        for namespace in (self.client, self.server):
            self._kernel.enter_context(namespace)
        addresses = [f"{each}/24" for each in (ALICE, BOB, OPERATOR, MALLORY)]
        link(self.client, "eth0", addresses, self.server, "eth0", [f"{SERVER}/24"])
        self._kernel.callback(_serve(self.server))

    def power_off(self) -> None:
        """Ends everything at once."""
        if self._agent is not None:
            self._agent.kill()
        self._kernel.close()

    def consul(self, config: Mapping[str, Any] | None = None, token: str = "") -> ConsulServer:
        """A Consul on this host, which goes with the kernel; the agent is configured for it."""
        consul = self._kernel.enter_context(
            ConsulServer(namespace=self.server.name, node="server", config=config, token=token)
        )
        self.configure(consul.url)
        return consul

    def agent(self, command: str, *more: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Runs `radius-bridge-agent COMMAND`."""
        argv: list[str | Path] = [*prefix, BIN / "radius-bridge-agent", command, "-c", self.config, *more]
        return run(argv, namespace=self.server.name)

    def start_agent(self, *, prefix: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> Process:
        """Starts the agent."""
        self._agent = Process(
            "agent",
            [*prefix, BIN / "radius-bridge-agent", "run", "-c", self.config],
            log=self.disk / "agent.log",
            namespace=self.server.name,
            env=env,
        ).start()
        return self._agent

    def enforcing(self, *, env: Mapping[str, str] | None = None) -> Process:
        """Starts the agent and waits until it enforces what Consul says."""
        return self.start_agent(env=env).wait_log('"enforcing"', timeout=30)

    def engineer(self, *arguments: str, token: str = "") -> None:
        """`radius-bridge ARGUMENTS`, which announces what it writes. LabError if it fails."""
        env = {"CONSUL_HTTP_ADDR": self.url, "CONSUL_HTTP_TOKEN": token}
        done = run([BIN / "radius-bridge", *arguments], namespace=self.server.name, env=env)
        if done.returncode:
            raise LabError(f"radius-bridge {' '.join(arguments)}: {done.stderr}{done.stdout}")

    def kept(self) -> str:
        """The state file's text."""
        return (self.state / "state").read_text() if (self.state / "state").exists() else ""

    def lets_in(self) -> set[str]:
        """Who gets in of alice, bob and the operator."""
        return {each for each in (ALICE, BOB, OPERATOR) if self.reaches(each) == "open"}

    def reaches(self, source: str) -> str:
        """What an attempt to connect meets: `open`, `refused` or `silence`."""
        return reach(self.client, source, SERVER, PORT)

    def ask(self, question: str) -> dict[str, Any]:
        """What the agent answers at its control socket: quicker than a command."""
        return asyncio.run(control.ask(self.disk / "run" / "control.sock", question, control.LONG))

    def status(self) -> dict[str, Any]:
        """What the command `status` says."""
        answer: dict[str, Any] = json.loads(
            run([BIN / "radius-bridge-agent", "status", "-c", self.config, "--json"]).stdout
        )
        return answer


def _serve(server: Namespace) -> Callable[[], None]:
    """Takes every connection at the service's port and ends it at once; gives what ends that."""
    listener = server.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", PORT))
    listener.listen(64)

    def serve() -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def end() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=5)
        listener.close()

    return end


def grant(consul: ConsulServer, ends: Mapping[str, float]) -> None:
    """Puts grants for addresses (epoch seconds), unannounced."""
    consul.command("kv", "put", KEYS.meta, encode_record(Meta(1, "lab")).decode())
    for address, end in ends.items():
        consul.command("kv", "put", KEYS.grant(Scope(), SERVICE, parse_prefix(address)), str(int(end)))


def until_over(end: float) -> None:
    """Waits until a moment (epoch seconds) has passed."""
    wait_until(lambda: time.time() > end, "a moment to pass", timeout=max(1.0, end - time.time() + 1), every=0.02)
