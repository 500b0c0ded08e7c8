"""Packets at the highest rate that the machine gives, while everything about a host's rules changes."""

import base64
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from radius_bridge.policy.members import parse_prefix
from radius_bridge.registry.keys import Scope
from tests.acceptance.frame import Report, Scenario, progress, told
from tests.e2e.dataplane.backends import BACKENDS
from tests.e2e.dataplane.host import ALICE, BOB, SERVER, Host
from tests.e2e.machine import KEYS, MALLORY, PORT, SERVICE, Machine, grant
from tests.lab.consul import ConsulServer
from tests.lab.processes import PROJECT, LabError, run, wait_until
from tests.lab.traffic import Flood

OTHERS = 10_000
"""Members of each mass change."""


def run_traffic(quick: bool) -> Report:
    """Plays every change on both backends."""
    report = Report()
    rows: list[list[str]] = []
    for backend, other in (("ipset", "nftables"), ("nftables", "ipset")):
        with tempfile.TemporaryDirectory(prefix="rb-acc-") as folder:
            machine = Machine(Path(folder), backend)
            try:
                machine.boot()
                rows += _play(report, machine, other, 1 if quick else 3)
            finally:
                machine.power_off()
    rows += [_rules_anew(report, backend, 20 if quick else 300) for backend in BACKENDS]
    report.lines += [
        "One member and one stranger send datagrams of 64 octets to a protected port, batch after batch, from one "
        "thread of this machine, on which the agent and Consul run too.",
        "",
    ]
    report.table(["backend", "what", "took", "packets/s", "permitted: sent / lost", "refused: sent / got in"], rows)
    return report


def _play(report: Report, machine: Machine, other: str, times: int) -> list[list[str]]:
    backend = machine.backend
    consul = machine.consul()
    grant(consul, {ALICE: time.time() + 3600})
    agent = machine.enforcing()
    lots = iter(range(100))

    def nothing() -> None:
        time.sleep(2)

    def swap() -> None:
        _many(machine, consul, next(lots))

    def kill() -> None:
        nonlocal agent
        agent.kill()
        agent = machine.enforcing()

    def upgrade() -> None:
        """The new version has other rules."""
        nonlocal agent
        agent.terminate()
        text = machine.config.read_text()
        machine.config.write_text(
            f'{text}[[failsafe]]\nnetworks = ["198.18.{next(lots)}.0/24"]\nports = ["{PORT}/tcp"]\n'
        )
        agent = machine.enforcing()

    def change_backend() -> None:
        nonlocal agent
        agent.terminate()
        old, new = (machine.backend, other if machine.backend == backend else backend)
        machine.config.write_text(machine.config.read_text().replace(f'backend = "{old}"', f'backend = "{new}"'))
        machine.backend = new
        agent = machine.enforcing()

    changes: list[tuple[str, Callable[[], None]]] = [
        ("nothing", nothing),
        (f"{OTHERS} members more, built aside", swap),
        ("agent killed (SIGKILL) and started", kill),
        ("upgrade: stopped, rules written anew", upgrade),
        (f"to {other} and back", change_backend),
    ]
    rows = []
    for what, change in changes:
        progress(f"{backend}: {what}")
        rounds = {changes[0][0]: 1, changes[1][0]: 1, changes[-1][0]: 2 * times}.get(what, times)
        with Flood(machine.client, ALICE, MALLORY, machine.server, (SERVER, PORT)) as flood:
            wait_until(flood.has_begun, "traffic")
            began = time.monotonic()
            for _ in range(rounds):
                change()
            took = time.monotonic() - began
        rows.append(_row(report, backend, f"{what} (× {rounds})" if rounds > 1 else what, took, flood))
    return rows


def _rules_anew(report: Report, backend: str, times: int) -> list[str]:
    """Rules are written over and over; `backend` is as for tests.e2e.dataplane.host.Host."""
    what = f"rules written anew (× {times})"
    progress(f"{backend}: {what}")
    with tempfile.TemporaryDirectory(prefix="rb-acc-") as folder, Host(Path(folder), backend) as host:
        host.enforce({ALICE: 3600})
        with Flood(host.client, ALICE, BOB, host.server, (SERVER, PORT)) as flood:
            began = time.monotonic()
            for number in range(times):
                host.enforce({ALICE: 3600}, failsafe=(f"198.18.{number % 2}.0/24",))
            took = time.monotonic() - began
    return _row(report, backend, what, took, flood)


def _row(report: Report, backend: str, what: str, took: float, flood: Flood) -> list[str]:
    name = f"{backend}, {what}"
    report.must(flood.error is None, f"{name}: {flood.error!r}")
    report.must(flood.lost == 0, f"{name}: {flood.lost} permitted packets lost")
    report.must(flood.leaked == 0, f"{name}: {flood.leaked} refused packets got in")
    sent, tried = flood.passed + flood.lost, flood.tried
    return [
        backend,
        what,
        told(took),
        f"{flood.rate():,.0f}",
        f"{sent:,} / {flood.lost}",
        f"{tried:,} / {flood.leaked}",
    ]


def _many(machine: Machine, consul: ConsulServer, lot: int) -> None:
    """Very many more are granted the service; returns when they are in the kernel."""
    value = base64.b64encode(b"%d" % (time.time() + 3600)).decode()
    addresses = [parse_prefix(f"10.{lot}.{n >> 8}.{n & 255}") for n in range(OTHERS)]
    entries = [{"key": KEYS.grant(Scope(), SERVICE, each), "flags": 0, "value": value} for each in addresses]
    env = {"CONSUL_HTTP_ADDR": consul.url}
    done = run(
        ["consul", "kv", "import", "-"], namespace=machine.server.name, env=env, stdin=json.dumps(entries), timeout=120
    )
    if done.returncode:
        raise LabError(f"consul kv import: {done.stderr}")
    machine.engineer("notify", f"$service$/{SERVICE}/")
    wanted = 1 + (lot + 1) * OTHERS
    wait_until(lambda: machine.status()["services"][0]["members"] >= wanted, "the members", timeout=60, every=0.2)


SCENARIO = Scenario(
    "traffic",
    "packets at the highest rate while sets, rules, agents and backends change",
    run_traffic,
    PROJECT / "docs/reliability.md",
)
