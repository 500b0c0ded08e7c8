"""From a login to the last of many hosts: followers of the feed without a kernel, each as a host's agent has it.

They run in namespaces of their own, since Consul takes 200 connections from one address, and each uses some at start.
"""

import json
import tempfile
import time
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

from bench.frame import Bench, Result, percentile, progress
from bench.store import cpu_seconds
from tests.lab.netns import Namespace, link
from tests.lab.processes import BIN, Process
from tests.lab.radius_client import Status, accounting
from tests.lab.site import CONSUL, CONSUL_PORT, Site

SIZES = (1, 50, 500)
PER_NAMESPACE = 45
FIRST = int(IPv4Address("10.66.0.0"))


def run_bench(quick: bool) -> Result:
    """Alice logs in; every follower tells when it heard, and the last one counts."""
    logins = 10 if quick else 50
    p50: dict[str, float] = {}
    p99: dict[str, float] = {}
    consul_cpu: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="rb-bench-") as folder,
        Site.of_this_process("rb-bench", Path(folder), forwarder=False) as site,
    ):
        site.agent.terminate()
        for size in SIZES:
            progress(f"{size} followers, {logins} logins")
            with ExitStack() as stack:
                fleet = Fleet(site, size, stack)
                cpu = cpu_seconds(site.consul.pid)
                took = [fleet.login(site, number) for number in range(logins)]
                consul_cpu[str(size)] = round((cpu_seconds(site.consul.pid) - cpu) / logins * 1000, 3)
            p50[str(size)] = round(percentile(took, 50) * 1000, 3)
            p99[str(size)] = round(percentile(took, 99) * 1000, 3)
    figures = {"last_agent_p50_ms": p50, "last_agent_p99_ms": p99, "consul_cpu_ms_per_login": consul_cpu}
    return Result(figures, {})


class Fleet:
    """Followers in some namespaces beside the site."""

    def __init__(self, site: Site, size: int, stack: ExitStack) -> None:
        self._size = size
        self._logs: list[Path] = []
        self._sizes: list[int] = []
        for part, start in enumerate(range(0, size, PER_NAMESPACE)):
            count = min(PER_NAMESPACE, size - start)
            namespace = stack.enter_context(Namespace(f"{site.radius.name}-h{size}p{part}"))
            network = f"100.64.{part}"
            link(namespace, "consul", (f"{network}.2/24",), site.radius, f"h{size}p{part}", (f"{network}.1/24",))
            namespace.run("ip", "route", "add", "default", "via", f"{network}.1")
            log = site.directory / f"fleet-{size}-{part}.log"
            process = Process(
                f"fleet {part}",
                [BIN / "python", "-m", "bench.followers", f"http://{CONSUL}:{CONSUL_PORT}", str(count)],
                log=log,
                namespace=namespace.name,
            )
            stack.callback(process.kill)
            process.start()
            self._logs.append(log)
            self._sizes.append(count)
            process.wait_log("complete", timeout=60)

    def login(self, site: Site, number: int) -> float:
        """Seconds from sending the Accounting-Request until the last follower heard."""
        address = str(IPv4Address(FIRST + 100 * self._size + number))
        with site.accounting_client() as nas:
            began = time.time()
            assert nas.send(accounting(Status.START, "alice", f"fanout-{address}", address)) is not None
            last = 0.0
            for log, size in zip(self._logs, self._sizes, strict=True):
                last = max(last, _heard_by_all(log, address, size))
        time.sleep(0.2)
        return last - began


def _heard_by_all(log: Path, address: str, size: int) -> float:
    """When the last of `size` followers heard of the address (epoch seconds)."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("{"):
                told = json.loads(line)
                if told["key"].endswith(f"/{address}") and told["heard"] == size:
                    return float(told["last"])
        time.sleep(0.01)
    raise TimeoutError(f"{log}: not all of {size} followers heard of {address}")


BENCH = Bench("fanout", "login → the last of 1, 50, 500 agents, and what it costs Consul", run_bench)
