"""What one login costs one host, by what is stored and by how many write: bytes on its wire and CPU of its agent.

Beside it, what it costs to read the prefix again.
"""

import itertools
import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path

from bench.frame import Bench, Result, progress
from bench.store import cpu_seconds, prefix_bytes, restart_with
from tests.lab.ipset import SetProbe
from tests.lab.processes import LabError, wait_until
from tests.lab.radius_client import AccountingClient, Status, accounting
from tests.lab.site import SERVICE, Site

SIZES = (100, 10_000, 100_000)
WRITERS = (1, 8)
SET = f"rb4h.{SERVICE}"

FIRST = int(IPv4Address("10.66.0.0"))

_numbers = itertools.count(1)


def run_bench(quick: bool) -> Result:
    """Counts on the link between the protected host and Consul, where nothing else talks."""
    logins = 40 if quick else 200
    several = WRITERS[:1] if quick else WRITERS
    wire: dict[str, float] = {}
    cpu: dict[str, float] = {}
    wire8: dict[str, float] = {}
    again: dict[str, float] = {}
    for size in SIZES:
        with (
            tempfile.TemporaryDirectory(prefix="rb-bench-") as folder,
            Site.of_this_process("rb-bench", Path(folder), forwarder=False, bridges=max(several)) as site,
            SetProbe(site.server) as probe,
        ):
            progress(f"storing {size:,} bindings")
            restart_with(site, 0, size)
            site.engineer("grant", "alice", SERVICE)
            again[str(size)] = prefix_bytes(site.server)
            for writers, found in zip(several, (wire, wire8), strict=False):
                progress(f"{logins} logins through {writers} of the bridges")
                found[str(size)], spent = _measure(site, probe, logins, writers)
                if writers == 1:
                    cpu[str(size)] = spent
    figures = {
        "bytes_per_login_per_host": wire,
        "cpu_ms_per_login_per_host": cpu,
        **({"bytes_per_login_per_host_8_writers": wire8} if wire8 else {}),
    }
    return Result(figures, {"prefix_read_bytes": again})


def _measure(site: Site, probe: SetProbe, logins: int, writers: int) -> tuple[float, float]:
    """Bytes and CPU (ms) per login."""
    clients = [site.accounting_client(bridge=number) for number in range(writers)]
    _login(clients[0], probe)  # whatever a first one costs
    time.sleep(3)  # records that became large are emptied when things go quiet
    bytes_before, cpu_before = _bytes(site), cpu_seconds(site.agent.pid)
    for number in range(logins):
        _login(clients[number % writers], probe)
    taken = _bytes(site) - bytes_before, cpu_seconds(site.agent.pid) - cpu_before
    for client in clients:
        client.sock.close()
    return round(taken[0] / logins, 1), round(taken[1] / logins * 1000, 3)


def _login(client: AccountingClient, probe: SetProbe) -> None:
    """alice logs in somewhere; over when the kernel has it."""
    number = next(_numbers)
    address = str(IPv4Address(FIRST + number))
    if client.send(accounting(Status.START, "alice", f"scale-{number}", address)) is None:
        raise LabError(f"the login at {address} was not answered")
    wait_until(lambda: probe.holds(SET, address), f"{address} in the kernel", every=0.001)


def _bytes(site: Site) -> int:
    """Octets that the host's link to Consul has carried, both ways, headers included."""
    counters = [f"/sys/class/net/consul/statistics/{way}_bytes" for way in ("rx", "tx")]
    return sum(map(int, site.server.run("cat", *counters).stdout.split()))


BENCH = Bench(
    "scale",
    "bytes and CPU per login and host, with 100 to 100,000 bindings and 1 and 8 writers",
    run_bench,
    means="By number of bindings stored: octets on the host's wire, both ways, headers included, and its agent's CPU. "
    "Must be flat: at 100,000 at most 1.1 times what it is at 100.",
)
