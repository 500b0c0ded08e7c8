"""What can happen to one protected host that takes too long for the test suite, on both backends where that matters."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from radius_bridge.policy.members import parse_prefix
from radius_bridge.registry.keys import Scope
from tests.acceptance.cluster import Watch, wait_gone
from tests.acceptance.frame import Report, Scenario, percentile, progress, told
from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import KEYS, MALLORY, OPERATOR, SERVICE, Machine, grant
from tests.lab.cluster import Datacenter, of_this_process
from tests.lab.consul import ConsulServer
from tests.lab.estate import Estate
from tests.lab.processes import PROJECT, LabError, run, wait_until
from tests.lab.radius_client import Status

BACKENDS = ("ipset", "nftables")
_TOOLS = ("nft", "iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")


def run_faults(quick: bool) -> Report:
    """Plays all, one after the other."""
    report = Report()
    rows: list[list[str]] = []
    for name, fault, backends in _FAULTS:
        for backend in backends:
            progress(f"{name} ({backend})")
            rows.append([name, backend, *_alone(report, name, backend, fault)])
    progress("no quorum for longer than the longest time")
    rows.append(["no quorum for longer than the longest time", "ipset", *_no_quorum(report, quick)])
    report.table(["fault", "backend", "what happens", "measured"], rows)
    return report


def _alone(report: Report, name: str, backend: str, fault: Callable[[Machine], tuple[str, str]]) -> tuple[str, str]:
    """Plays one on a host of its own, and sees that nobody got in who must not."""
    with tempfile.TemporaryDirectory(prefix="rb-acc-") as folder:
        machine = Machine(Path(folder), backend)
        try:
            machine.boot()
            result = fault(machine)
            report.must(machine.reaches(MALLORY) == "refused", f"{name} ({backend}): a stranger gets in")
            report.must(machine.lets_in() >= {ALICE, OPERATOR}, f"{name} ({backend}): valid access is gone")
        except (LabError, subprocess.SubprocessError) as error:
            report.must(False, f"{name} ({backend}): {error}")
            return "BROKEN", str(error).splitlines()[0]
        finally:
            machine.power_off()
    return result


def _until(machine: Machine, who: str, what: str, timeout: float) -> float:
    """Seconds until an attempt of `who` meets `what`."""
    return wait_until(lambda: machine.reaches(who) == what, f"{who} to meet {what}", timeout=timeout, every=0.02)


def _start(machine: Machine, env: Mapping[str, str] | None = None) -> ConsulServer:
    consul = machine.consul()
    grant(consul, {ALICE: time.time() + 3600})
    machine.enforcing(env=env)
    return consul


def _hanging_tools(machine: Machine) -> tuple[str, str]:
    delay, calls, folder = (machine.disk / name for name in ("delay", "calls", "tools"))
    folder.mkdir()
    for name in _TOOLS:
        tool = folder / name
        hang = f'[ ! -e "{delay}" ] || {{ echo >> "{calls}"; sleep 300; }}'
        tool.write_text(f'#!/bin/sh\n{hang}\nexec {shutil.which(name)} "$@"\n')
        tool.chmod(0o755)
    _start(machine, {"PATH": f"{folder}:{os.environ['PATH']}"})
    delay.touch()
    wait_until(calls.exists, "the agent to look at its rules", timeout=60)
    machine.engineer("grant", BOB, SERVICE, "--for", "10m")
    comes = _until(machine, BOB, "open", 60)
    machine.engineer("revoke", BOB, SERVICE)
    goes = _until(machine, BOB, "refused", 60)
    if "kernel" not in machine.status()["errors"]:
        raise LabError("the status does not tell that the tools hang")
    delay.unlink()
    good = wait_until(lambda: "kernel" not in machine.status()["errors"], "the tools to work", timeout=90, every=0.2)
    return "each call is given up after 20 s; members go on coming and going between", (
        f"in after {told(comes)}, out after {told(goes)}; no error any more {told(good)} after they work again"
    )


def _slow_tools(machine: Machine) -> tuple[str, str]:
    folder = machine.disk / "tools"
    folder.mkdir()
    for name in _TOOLS:
        tool = folder / name
        tool.write_text(f'#!/bin/sh\nsleep 2\nexec {shutil.which(name)} "$@"\n')
        tool.chmod(0o755)
    _start(machine, {"PATH": f"{folder}:{os.environ['PATH']}"})
    comes, goes = [], []
    for _ in range(5):
        machine.engineer("grant", BOB, SERVICE, "--for", "10m")
        comes.append(_until(machine, BOB, "open", 30))
        machine.engineer("revoke", BOB, SERVICE)
        goes.append(_until(machine, BOB, "refused", 30))
    return (
        "members do not go through the tools",
        f"each call 2 s longer: in after ≤ {told(max(comes))}, out after ≤ {told(max(goes))}",
    )


@contextmanager
def _silence(machine: Machine) -> Iterator[None]:
    port = machine.url.rpartition(":")[2]
    text = f"""table inet hole {{
        chain out {{
            type filter hook output priority raw;
            tcp dport {port} drop
            tcp sport {port} drop
        }}
    }}"""
    machine.server.run("nft", "-f", "-", text=text)
    try:
        yield
    finally:
        machine.server.run("nft", "delete table inet hole")


def _black_hole(machine: Machine) -> tuple[str, str]:
    consul = machine.consul()
    grant(consul, {ALICE: time.time() + 3600, BOB: time.time() + 20})
    end = time.time() + 20
    machine.enforcing()
    with _silence(machine):
        began = time.monotonic()
        wait_until(lambda: machine.reaches(BOB) == "refused", "bob's end", timeout=40, every=0.02)
        late = time.time() - end
        noticed = wait_until(
            lambda: {"feed", "services"} & machine.status()["errors"].keys() != set(),
            "it to be told",
            timeout=90,
            every=0.2,
        )
        noticed = time.monotonic() - began
        time.sleep(max(0.0, 60 - noticed))
    machine.engineer("grant", BOB, SERVICE, "--for", "10m")
    back = _until(machine, BOB, "open", 90)
    return "nothing changes, what ends does so in the kernel", (
        f"60 s: access ended {late:+.1f} s after its end; told in `status` after {told(noticed)}; a grant after it "
        f"counted after {told(back)}"
    )


def _restored_snapshot(machine: Machine) -> tuple[str, str]:
    consul = _start(machine)
    machine.engineer("grant", BOB, SERVICE, "--for", "1h")
    _until(machine, BOB, "open", 10)
    saved = machine.disk / "snapshot"
    consul.command("snapshot", "save", str(saved))
    machine.engineer("revoke", BOB, SERVICE)
    machine.engineer("grant", "198.51.100.7", SERVICE, "--for", "1h")
    _until(machine, BOB, "refused", 10)
    consul.command("snapshot", "restore", str(saved))
    took = _until(machine, BOB, "open", 120)
    wait_until(lambda: machine.status()["services"][0]["members"] == 2, "what the snapshot says", timeout=60, every=0.1)
    return "an older index is noticed, and everything read again", f"as the snapshot says after {told(took)}"


def _updates(machine: Machine) -> tuple[str, str]:
    """Users' logins, as one bridge writes them: 1,000 a second for ten seconds."""
    consul = _start(machine)
    written = _grant_many(machine, consul, 10_000, 1_000, int(time.time()) + 3600)
    took = wait_until(lambda: machine.status()["services"][0]["members"] >= 10_001, "all", timeout=60, every=0.05)
    status = machine.status()
    return "all are in the kernel", (
        f"{written['per_s']:,.0f} a second for {written['seconds']:.0f} s; the last one within {told(took)}; "
        f"{status['feed'].get('gaps', 0)} gaps"
    )


def _mass_expiry(machine: Machine) -> tuple[str, str]:
    consul = machine.consul()
    end = int(time.time()) + 60
    grant(consul, {ALICE: time.time() + 3600, BOB: end})
    _grant_many(machine, consul, 50_000, 50_000, end)
    machine.enforcing()
    if machine.reaches(BOB) != "open":
        raise LabError("this machine takes more than 60 s for 50,000 members")
    late, answers = 0.0, []
    while time.time() < end + 5:
        if time.time() > end - 3 and machine.reaches(BOB) == "open":
            late = max(late, time.time() - end)
        if time.time() > end - 3:
            began = time.monotonic()
            machine.status()
            answers.append(time.monotonic() - began)
    left = machine.status()["services"][0]["members"]
    if left != 1:
        raise LabError(f"{left} members are left, not one")
    verdict = f"{late:.2f} s late" if late > 0 else "none late"
    return (
        "all end in the kernel, the agent follows",
        f"{verdict}; `status` meanwhile ≤ {told(max(answers))} (process start included)",
    )


def _grant_many(machine: Machine, consul: ConsulServer, count: int, per_s: int, end: int) -> dict[str, float]:
    """Grants the service to so many until `end` (epoch seconds), at that rate; tells how it went."""
    argv: list[str | Path] = [PROJECT / ".venv/bin/python", "-m", "tests.lab.updates"]
    done = machine.server.run(*argv, consul.url, SERVICE, str(count), str(per_s), str(end), timeout=120)
    written: dict[str, float] = json.loads(done.stdout)
    return written


def _other_writer(machine: Machine) -> tuple[str, str]:
    """Someone reloads his whole firewall, as firewalld and Docker do, while members change."""
    _start(machine)
    theirs = (
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n"
    )
    opened = attempts = reloads = 0
    repaired: list[float] = []
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for program in ("iptables-restore", "ip6tables-restore"):
            machine.server.run(program, text=theirs)
        reloads += 1
        began = time.monotonic()
        while True:
            attempts += 1
            if machine.reaches(MALLORY) == "refused":
                break
            opened += 1
            if time.monotonic() - began > 60:
                raise LabError("nobody put our rules back")
            time.sleep(0.02)
        repaired.append(time.monotonic() - began)
        machine.engineer("grant", f"198.51.100.{reloads}", SERVICE)
        until = max(until, time.monotonic()) if reloads < 3 else until
    wait_until(lambda: machine.status()["services"][0]["members"] == 1 + reloads, "all grants", timeout=20, every=0.1)
    what = "a table of our own is not touched" if machine.backend == "nftables" else "jumps and chains are put back"
    if not opened:
        return what, f"{reloads} reloads: never found open"
    return (
        what,
        f"{reloads} reloads: back after p50 {told(percentile(repaired, 50))}, ≤ {told(max(repaired))}",
    )


def _full_disk(machine: Machine) -> tuple[str, str]:
    machine.state.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(machine.state)])
    try:
        _start(machine)
        wait_until(lambda: ALICE in machine.kept(), "the state")
        free = os.statvfs(machine.state)
        (machine.state / "something else").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
        for number in range(250):
            address = parse_prefix(f"198.51.100.{number}")
            run(
                ["consul", "kv", "put", KEYS.grant(Scope(), SERVICE, address), "-1"],
                namespace=machine.server.name,
                env={"CONSUL_HTTP_ADDR": machine.url},
            )
        machine.engineer("notify", f"$service$/{SERVICE}/")
        machine.engineer("grant", BOB, SERVICE, "--for", "1h")
        took = _until(machine, BOB, "open", 20)
        wait_until(lambda: "state" in machine.status()["errors"], "it to be told", timeout=30, every=0.1)
        (machine.state / "something else").unlink()
        again = wait_until(lambda: BOB in machine.kept(), "the state again", timeout=60, every=0.1)
        return (
            "enforcement goes on, the last state stays, `status` tells",
            f"in after {told(took)}; written {told(again)} after there was room",
        )
    finally:
        run(["umount", "-l", str(machine.state)])


def _no_quorum(report: Report, quick: bool) -> tuple[str, str]:
    longest = 15 if quick else 40
    with (
        tempfile.TemporaryDirectory(prefix="rb-acc-") as folder,
        Datacenter(of_this_process("rb-acc"), Path(folder)) as dc,
        Estate(dc, users=100) as estate,
        estate.nas() as nas,
    ):
        host = estate.hosts[dc.name]
        valid = nas.send(Status.START, 0)
        wait_until(lambda: bool(valid.in_kernel), "the valid login")
        times = [longest // 4, longest // 2, longest]
        short = [nas.send(Status.START, number + 1, seconds=each) for number, each in enumerate(times)]
        wait_until(lambda: all(each.in_kernel for each in short), "the short logins")
        with Watch(host, 0) as watch:
            for machine in dc.servers[:2]:
                machine.kill()
            late = [
                wait_gone(host, number + 1, each.sent + seconds + 10) - (each.sent + seconds)
                for number, (each, seconds) in enumerate(zip(short, times, strict=True))
            ]
            time.sleep(10)
            for machine in dc.servers[:2]:
                machine.start()
            back = time.monotonic()
            after = nas.send(Status.START, 10)
            wait_until(lambda: bool(after.in_kernel), "a login afterwards", timeout=90)
            took = time.monotonic() - back
    report.must(max(late) <= 1, f"no quorum: access outlived its end by {max(late):.1f} s")
    report.must(watch.absent == 0, f"no quorum: valid access was away {watch.absent} times")
    ends = ", ".join(f"{each:+.1f}" for each in late)
    return "what ends does so in the kernel, what is valid stays", (
        f"two of three servers dead for {longest + 10} s: access of {', '.join(map(str, times))} s ended {ends} s "
        f"after its end; valid access never away; a login {told(took)} after the servers were back"
    )


_FAULTS: list[tuple[str, Callable[[Machine], tuple[str, str]], tuple[str, ...]]] = [
    ("slow nft and iptables", _slow_tools, BACKENDS),
    ("black-holed Consul connection", _black_hole, ("ipset",)),
    ("older snapshot restored while a query is blocked", _restored_snapshot, ("ipset",)),
    ("1,000 updates a second", _updates, BACKENDS),
    ("50,000 ends in the same second", _mass_expiry, BACKENDS),
    ("another program reloads its whole firewall", _other_writer, BACKENDS),
    ("full disk", _full_disk, ("ipset",)),
    ("hanging nft and iptables", _hanging_tools, BACKENDS),
]

SCENARIO = Scenario(
    "faults",
    "one protected host: hanging tools, a silent Consul, floods, mass expiry, other writers",
    run_faults,
    PROJECT / "docs/reliability.md",
)
