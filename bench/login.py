"""From a login to the kernel: Accounting-Request sent → the address is in the protected host's set.

Users log in one after the other, each from an address of their own; a group of all of them is granted the service.
Beside it, what one would do without us: a plain put of a key, and `consul watch` with a script that calls ipset.
"""

import http.client
import json
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count, islice
from pathlib import Path

from bench.frame import Bench, Figures, Result, milliseconds, progress
from bench.store import background, connection, restart_with, settle
from tests.lab.ipset import SetProbe
from tests.lab.processes import LabError, Process, run, wait_until
from tests.lab.radius_client import Status, accounting, is_response, request
from tests.lab.site import BRIDGE_SECRET, CONSUL, CONSUL_PORT, LOGINS, SERVICE, Site

SET = f"rb4h.{SERVICE}"
"""The kernel set that a login ends in."""

LOOK_EVERY = 0.0002
"""Seconds between two looks at the kernel: what the measurement may be late, and a small part of one core."""

STORED = 100_000
"""Bindings in the registry besides."""

BUSY_PER_S = 1000
"""Logins of others each second, for the second half."""

PAUSE = 0.05
"""Seconds between two logins: each meets a system that has done with the last, and all of them together everything
that such a system does every ten seconds."""

WATCHED = "without/members/"
WATCHED_SET = "without"

WATCH_SCRIPT = f"""\
#!/bin/sh
grep -o '"Key":"[^"]*' | sed 's|.*/|add {WATCHED_SET} |' | ipset -exist restore
"""
"""What `consul watch` runs: it gets the whole prefix as JSON and puts every key's address into the set."""


def run_bench(quick: bool) -> Result:
    """Measures ours, then the peer, on one site."""
    logins, changes = (60, 30) if quick else (200, 200)
    with (
        tempfile.TemporaryDirectory(prefix="rb-bench-") as folder,
        Site.of_this_process("rb-bench", Path(folder), forwarder=False) as site,
        SetProbe(site.server) as probe,
    ):
        progress(f"storing {STORED:,} bindings")
        restart_with(site, 0, STORED)
        _grant_all(site, 2 * logins)
        settle(site)
        progress(f"{logins} logins")
        idle = _logins(site, probe, range(logins))
        progress(f"{logins} logins while {BUSY_PER_S:,} others log in each second")
        load = background(site, BUSY_PER_S)
        try:
            load.wait_log("answered")
            loaded = _logins(site, probe, range(logins, 2 * logins))
        finally:
            load.kill()
        progress(load.tail(1))
        site.agent.terminate()
        site.bridge.terminate()
        progress(f"{changes} changes heard by consul watch")
        peers = _watched(site, probe, changes)
    return Result({**idle, "idle": idle, "loaded": loaded}, peers)


def _addresses() -> Iterator[str]:
    first = int(IPv4Address(LOGINS.partition("/")[0]))
    return (str(IPv4Address(first + number)) for number in count(1))


def _user(number: int) -> str:
    return f"user{number}"


def _grant_all(site: Site, users: int) -> None:
    """Puts everybody into the group `staff`, and grants it the service."""
    site.engineer("group", "add", "staff", _user(0))
    members = [
        {"key": f"befw/$alias$/$staff$/$user.{_user(number)}$", "flags": 0, "value": "LTE="}  # -1: for good
        for number in range(users)
    ]
    done = run(
        ["consul", "kv", "import", "-http-addr", f"{CONSUL}:{CONSUL_PORT}", "-"],
        namespace=site.radius.name,
        stdin=json.dumps(members),
    )
    if done.returncode != 0:
        raise LabError(f"consul kv import: {done.stderr}")
    site.engineer("grant", "group:staff", SERVICE)


@dataclass(frozen=True)
class Login:
    """One login: seconds from the request until …"""

    recorded: float
    """… the Accounting-Response was here."""
    woken: float
    """… the agent heard of it (its own clock reading)."""
    programmed: float
    """… the agent had told the kernel (its own clock reading)."""
    in_kernel: float
    """… the kernel's set held the address."""


def _logins(site: Site, probe: SetProbe, numbers: range) -> Figures:
    logins = []
    with site.accounting_client() as client:
        client.sock.setblocking(False)
        for index, address in zip(numbers, islice(_addresses(), numbers.start, None), strict=False):
            logins.append(_login(site, probe, client.sock, index, address))
            time.sleep(PAUSE)
    total = [login.in_kernel for login in logins]
    return {
        **milliseconds(total),
        "max_ms": round(max(total) * 1000, 3),
        **milliseconds([login.recorded for login in logins], "recorded_", percents=(50,)),
        **milliseconds([login.woken for login in logins], "woken_", percents=(50,)),
        **milliseconds([login.programmed for login in logins], "programmed_", percents=(50,)),
    }


def _login(site: Site, probe: SetProbe, nas: socket.socket, index: int, address: str) -> Login:
    attributes = accounting(Status.START, _user(index), f"login-{index}", address)
    packet = request(index % 256, attributes, BRIDGE_SECRET)
    sent_at, began = time.time(), time.monotonic()
    nas.send(packet)
    recorded = in_kernel = 0.0
    while not (recorded and in_kernel):
        if not in_kernel and probe.holds(SET, address):
            in_kernel = time.monotonic() - began
        if not recorded and _has_answer(nas, packet):
            recorded = time.monotonic() - began
        if time.monotonic() - began > 10:
            raise LabError(f"a login took more than 10 s\n{site.bridge.tail()}\n{site.agent.tail()}")
        time.sleep(LOOK_EVERY)
    change = _last_change(site, sent_at)
    return Login(recorded, change["woken"] - sent_at, change["programmed"] - sent_at, in_kernel)


def _has_answer(sock: socket.socket, packet: bytes) -> bool:
    try:
        return is_response(sock.recv(4096), packet, BRIDGE_SECRET)
    except BlockingIOError:
        return False


def _last_change(site: Site, since: float) -> dict[str, float]:
    """The agent's own times (epoch seconds) of the change that it programmed after `since`."""
    deadline = time.monotonic() + 2
    while True:
        change: dict[str, float] = site.agent_status()["last_change"]
        if change and change["programmed"] > since:
            return change
        if time.monotonic() > deadline:
            raise LabError(f"the agent tells of no change: {change}")


def _watched(site: Site, probe: SetProbe, number: int) -> Figures:
    """The same way without us: an HTTP put → `consul watch` → a script → `ipset restore`."""
    script = site.directory / "watched.sh"
    script.write_text(WATCH_SCRIPT)
    script.chmod(0o700)
    site.server.run("ipset", "create", WATCHED_SET, "hash:ip")
    address = f"-http-addr={CONSUL}:{CONSUL_PORT}"
    watch = Process(
        "consul-watch",
        ["consul", "watch", address, "-type=keyprefix", f"-prefix={WATCHED}", script],
        log=site.directory / "watch.log",
        namespace=site.server.name,
    )
    try:
        watch.start()
        with closing(connection(site.server)) as consul:
            addresses = _addresses()
            _put(consul, probe, next(addresses))  # this one waits for consul watch to start
            took = [_put(consul, probe, address) for address in islice(addresses, number)]
    finally:
        watch.kill()
    return milliseconds(took, "consul_watch_script_")


def _put(consul: http.client.HTTPConnection, probe: SetProbe, address: str) -> float:
    """Puts one member's key; seconds until the kernel's set has it."""
    time.sleep(PAUSE)
    began = time.monotonic()
    consul.request("PUT", f"/v1/kv/{WATCHED}{address}", body=b"-1")
    consul.getresponse().read()
    wait_until(lambda: probe.holds(WATCHED_SET, address), "consul watch and its script", every=LOOK_EVERY)
    return time.monotonic() - began


BENCH = Bench(
    "login",
    "Accounting-Request sent → member in the kernel, 100,000 bindings stored, idle and under load",
    run_bench,
    means="One login after the other; loaded: while 1,000 others log in each second. Recorded, woken, programmed: "
    "until the response, until the agent heard, until it had told the kernel. Without us: an HTTP put, `consul watch` "
    "and a script that runs `ipset`, with nothing else stored. Must be: idle p50 ≤ 10, p99 ≤ 50; loaded p99 ≤ 250.",
)
