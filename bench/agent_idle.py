"""What an agent with many members takes while nothing changes: memory and CPU of the real process."""

import base64
import json
import subprocess
import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path

from bench.dataplanes import FIRST
from bench.frame import Bench, Result, progress
from bench.store import connection, cpu_seconds, memory_bytes, settle
from radius_bridge.policy.members import GroupRef, Prefix
from radius_bridge.registry.keys import Keys
from tests.lab.processes import BIN, PROJECT, LabError, wait_until
from tests.lab.site import SERVICE, Site

MEMBERS = 65_000

_GROUP = "many"
_OPS = 64
_LASTS = 86_400
_TAIL = 30.0
"""Seconds: where members came in two steps, what is enforced is written to disk once more, up to 20 s after the first
time (agent.saving.PACE); that is no idleness."""
_IMPORTS = "import agent.cli, agent.doing; print(open('/proc/self/statm').read().split()[1])"
_MIB = 1 << 20


def run_bench(quick: bool) -> Result:
    """A quarter of a minute without a login, or a whole one."""
    return measure(MEMBERS, 15 if quick else 60)


def measure(members: int, seconds: float) -> Result:
    """One group of so many addresses is granted; then nobody does anything for `seconds`."""
    with (
        tempfile.TemporaryDirectory(prefix="rb-bench-") as folder,
        Site.of_this_process("rb-bench", Path(folder), forwarder=False) as site,
    ):
        site.engineer("grant", f"group:{_GROUP}", SERVICE)
        site.agent.terminate()
        progress(f"storing a group of {members:,} addresses")
        _fill(site, members)
        site.start()
        wait_until(lambda: _members(site) == members, "the members in the kernel", timeout=60)
        settle(site)
        progress("waiting for what a start leaves behind")
        time.sleep(_TAIL)
        progress(f"nothing happens for {seconds:g} s")
        before, began = cpu_seconds(site.agent.pid), time.monotonic()
        time.sleep(seconds)
        spent = (cpu_seconds(site.agent.pid) - before) / (time.monotonic() - began)
        return Result(
            {
                "rss_mib": round(memory_bytes(site.agent.pid) / _MIB, 1),
                "imports_mib": _imports_mib(),
                "idle_cpu_percent": round(spent * 100, 3),
            }
        )


def _fill(site: Site, members: int) -> None:
    """Stores the group's members as BEFW's tools and our API do, without telling anybody."""
    keys, group = Keys(), GroupRef(_GROUP)
    value = base64.b64encode(b"%d" % (time.time() + _LASTS)).decode()
    consul = connection(site.server)
    for start in range(0, members, _OPS):
        hosts = [Prefix(4, FIRST + number, 32) for number in range(start, min(start + _OPS, members))]
        ops = [{"KV": {"Verb": "set", "Key": keys.group_member(group, host), "Value": value}} for host in hosts]
        consul.request("PUT", "/v1/txn", json.dumps(ops))
        answer = consul.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise LabError(f"Consul refused a transaction from {IPv4Address(hosts[0].number)} on: {body[:200]!r}")
    consul.close()


def _members(site: Site) -> int:
    """As the agent tells; -1 before it answers."""
    try:
        services = {each["name"]: each["members"] for each in site.agent_status()["services"]}
    except OSError:
        return -1
    return int(services.get(SERVICE, -1))


def _imports_mib() -> float:
    """Of this memory, what the program takes before it does anything."""
    done = subprocess.run(
        [BIN / "python", "-c", _IMPORTS], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=30
    )
    return round(int(done.stdout) * 4096 / _MIB, 1)


BENCH = Bench(
    "agent-idle",
    "memory and CPU of an agent with 65,000 members while nothing changes",
    run_bench,
    means="Resident memory of the real process, with its sets and its copy of Consul's keys; `imports_mib` of it is "
    "there before it does anything. CPU: share of one core while nobody logs in.",
)
