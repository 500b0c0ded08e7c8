"""A real Consul for tests, demo and bench: one server, on ports that nobody else uses."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.lab.ports import free_ports
from tests.lab.processes import LabError, Process, pause, run, wait_until


class ConsulServer:
    """A Consul server, in memory or on disk; a context manager that starts it and removes every trace.

    `namespace` is the network namespace it runs in ("" for ours), `address` where it listens there. `config`
    is more of Consul's configuration. With `on_disk` it keeps its data over `kill` and `start`. `token` is
    one that may read the catalog, if `config` turns ACLs on.
    """

    def __init__(
        self,
        *,
        namespace: str = "",
        address: str = "127.0.0.1",
        node: str = "lab",
        datacenter: str = "dc1",
        config: Mapping[str, Any] | None = None,
        token: str = "",
        on_disk: bool = False,
    ) -> None:
        if shutil.which("consul") is None:
            raise LabError("there is no `consul` on PATH: run script/bootstrap")
        http, server, serf, wan = free_ports(4)
        self._namespace = namespace
        self._node = node
        self.folder = Path(tempfile.mkdtemp(prefix="consul-lab-"))
        """Its data and its log."""
        self.url = f"http://{address}:{http}"
        """Its HTTP API."""
        self.wan = f"{address}:{wan}"
        """Where servers of other datacenters find it."""
        self._env = {"CONSUL_HTTP_ADDR": self.url, "CONSUL_HTTP_TOKEN": token}
        more = self.folder / "more.json"
        more.write_text(json.dumps(config or {}), encoding="utf-8")
        argv = ["consul", "agent", f"-node={node}", "-log-level=warn", f"-config-file={more}"]
        argv += [f"-bind={address}", f"-client={address}", f"-http-port={http}", f"-server-port={server}"]
        argv += [f"-serf-lan-port={serf}", f"-serf-wan-port={wan}", "-dns-port=-1", "-grpc-port=-1"]
        argv += [f"-datacenter={datacenter}"]
        if on_disk:
            argv += ["-server", "-bootstrap-expect=1", f"-data-dir={self.folder / 'data'}"]
            argv += ["-hcl=performance { raft_multiplier = 1 }"]
        else:
            argv += ["-dev"]
        self._process = Process("consul", argv, log=self.folder / "log", namespace=namespace)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def start(self) -> Self:
        """Starts it, on the same ports as before, and waits until it has a leader and knows its node."""
        self._process.start().wait_ready(self._is_ready, timeout=30)
        return self

    def federate(self, other: "ConsulServer") -> None:
        """Joins it with a server of another datacenter; returns when each can ask the other."""
        self.command("join", "-wan", other.wan)
        for one in (self, other):
            wait_until(one._sees_others, "the federation", timeout=30)

    def _sees_others(self) -> bool:
        known = run(["consul", "catalog", "datacenters"], namespace=self._namespace, env=self._env)
        return len(known.stdout.split()) > 1

    def stop(self) -> None:
        """Ends it as an administrator would (SIGTERM)."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it as a power cut would (SIGKILL)."""
        self._process.kill()

    def restart(self) -> None:
        """Kills and starts it: on disk it has its data afterwards, in memory it is empty."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Keeps it from running (SIGSTOP): connections stay open, nothing is answered."""
        pause(self._process.pid)

    def resume(self) -> None:
        """Lets it run on after `pause`."""
        os.kill(self._process.pid, signal.SIGCONT)

    def command(self, *arguments: str) -> str:
        """Runs `consul` with these arguments against it; gives what that prints. LabError if it fails."""
        done = run(["consul", *arguments], namespace=self._namespace, env=self._env)
        if done.returncode:
            raise LabError(f"consul {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def close(self) -> None:
        """Kills it if it runs and removes its folder."""
        if self._process.is_running:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        # Consul's own client, because it can be run in the namespace that the server is in.
        done = run(["consul", "catalog", "nodes"], namespace=self._namespace, env=self._env)
        return done.returncode == 0 and self._node in done.stdout
