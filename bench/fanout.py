"""From a login to the last of many hosts: followers of the feed without a kernel, each as a host's agent has it.

Each size is measured when nothing else happens; the small ones also while many others log in, which is what the model
of docs/scale.md needs: how often hosts wake then, and what a wake-up brings and costs.
"""

import re
import tempfile
import time
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

from bench.fleet import Fleet
from bench.frame import Bench, Result, percentile, progress
from bench.store import background, cpu_seconds, memory_bytes
from tests.lab.processes import LabError
from tests.lab.radius_client import Status, accounting
from tests.lab.site import CONSUL, CONSUL_PORT, Site

SIZES = (1, 50, 500)
FIRST = int(IPv4Address("10.66.0.0"))

BUSY_SIZES = (1, 50)
"""More followers, waking ten times a second, would leave Consul too little of this machine."""

BUSY_PER_S = 1000
"""Logins of others each second."""

CHECK_SIZE, CHECK_PER_S = 150, 100
"""What the model is not fitted to, and has to foretell."""

URL = f"http://{CONSUL}:{CONSUL_PORT}"


def run_bench(quick: bool) -> Result:
    """Alice logs in; every follower tells when it heard, and the last one counts."""
    logins, idle_for, busy_for = (10, 3.0, 5.0) if quick else (50, 12.0, 12.0)
    figures: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="rb-bench-") as folder,
        Site.of_this_process("rb-bench", Path(folder), forwarder=False) as site,
    ):
        site.agent.terminate()
        for size in SIZES:
            progress(f"{size} followers, {logins} logins")
            with ExitStack() as stack:
                fleet = Fleet(site.radius, URL, size, site.directory, stack)
                found = _quiet(site, fleet, logins, idle_for)
            for name, value in found.items():
                figures.setdefault(name, {})[str(size)] = value
        for size in BUSY_SIZES:
            progress(f"{size} followers while {BUSY_PER_S:,} others log in each second")
            with ExitStack() as stack:
                fleet = Fleet(site.radius, URL, size, site.directory, stack, "b")
                found = _busy(site, fleet, BUSY_PER_S, busy_for)
            for name, value in found.items():
                figures.setdefault(f"busy_{name}", {})[str(size)] = value
        progress(f"{CHECK_SIZE} followers while {CHECK_PER_S} others log in each second")
        with ExitStack() as stack:
            fleet = Fleet(site.radius, URL, CHECK_SIZE, site.directory, stack, "c")
            figures["check"] = {"agents": CHECK_SIZE, **_busy(site, fleet, CHECK_PER_S, busy_for)}
    return Result(figures)


def _quiet(site: Site, fleet: Fleet, logins: int, idle_for: float) -> dict[str, float]:
    """Nothing for a while, then one login after the other. Consul's CPU per login is what exceeds doing nothing."""
    time.sleep(2)  # whatever a start brings with it
    idle = _cores(site, idle_for)
    memory = memory_bytes(site.consul.pid)
    octets, cpu, began = fleet.octets(), cpu_seconds(site.consul.pid), time.monotonic()
    took = [_login(site, fleet, number) for number in range(logins)]
    lasted = time.monotonic() - began
    spent = cpu_seconds(site.consul.pid) - cpu - idle * lasted
    return {
        "last_agent_p50_ms": round(percentile(took, 50) * 1000, 3),
        "last_agent_p99_ms": round(percentile(took, 99) * 1000, 3),
        "logins_per_s": round(logins / lasted, 2),
        "bytes_per_login_per_agent": round((fleet.octets() - octets) / logins / fleet.size),
        "consul_cpu_ms_per_login": round(spent / logins * 1000, 3),
        "consul_idle_cpu_percent": round(idle * 100, 2),
        "consul_memory_bytes": memory,
    }


def _login(site: Site, fleet: Fleet, number: int) -> float:
    """Seconds from sending the Accounting-Request until the last follower heard."""
    address = str(IPv4Address(FIRST + 100 * fleet.size + number))
    with site.accounting_client() as nas:
        began = time.time()
        if nas.send(accounting(Status.START, "alice", f"fanout-{address}", address)) is None:
            raise LabError(f"the login at {address} was not answered")
        last = fleet.heard_by_all(f"/{address}")
    time.sleep(0.2)
    return last - began


def _busy(site: Site, fleet: Fleet, per_s: int, seconds: float) -> dict[str, float]:
    """What Consul and each follower have to do while others log in."""
    load = background(site, per_s)
    try:
        load.wait_log("answered")
        time.sleep(3)  # until announcements have found their pace
        answered, polls, octets = _answered(load.read_log()), fleet.polls(), fleet.octets()
        began = time.monotonic()
        cores = _cores(site, seconds)
        lasted = time.monotonic() - began
        octets = fleet.octets() - octets
        return {
            "consul_cpu_percent": round(cores * 100, 2),
            "logins_per_s": round((_answered(load.read_log()) - answered) / lasted, 1),
            "wakes_per_s_per_agent": round((fleet.polls() - polls) / lasted / fleet.size, 2),
            "bytes_per_s_per_agent": round(octets / lasted / fleet.size),
        }
    finally:
        load.kill()


def _cores(site: Site, seconds: float) -> float:
    """How many cores Consul uses, over that time."""
    before, began = cpu_seconds(site.consul.pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(site.consul.pid) - before) / (time.monotonic() - began)


def _answered(log: str) -> int:
    """How many logins were answered, as the load told last."""
    return int(re.findall(r"answered (\d+)", log)[-1])


BENCH = Bench(
    "fanout",
    "login → the last of 1, 50, 500 agents, and what it costs Consul",
    run_bench,
    means="By number of hosts. All followers run on the cores that Consul and the bridge run on, so that the last one "
    "is late for their sake too. Busy: while 1,000 others log in each second. Check: what the model of docs/scale.md "
    "has to foretell. CPU in percent of one core. Must be: last of 500 p99 ≤ 1 s.",
)
