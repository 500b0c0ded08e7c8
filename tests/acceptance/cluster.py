"""Three Consul servers on disk; one after the other they are killed, paused and partitioned under steady logins."""

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.frame import Report, Scenario, latencies, longest_gap, percentile, progress, told
from tests.lab.cluster import Datacenter, Machine, of_this_process
from tests.lab.estate import Estate, Protected
from tests.lab.processes import PROJECT, LabError, wait_until
from tests.lab.radius_client import Status

PER_S = 40
"""New logins each second."""

SETTLE = 60.0
"""Seconds after a fault within which everything must be answered and enforced."""

LATE = 1.0
"""Seconds by which access may outlive its end."""


@dataclass(frozen=True)
class Fault:
    """What is done to the cluster, and how it ends."""

    name: str
    begin: Callable[[Datacenter], list[Machine]]
    """Gives the machines that it concerns."""
    end: Callable[[Machine], None]


def _leader(act: Callable[[Machine], None]) -> Callable[[Datacenter], list[Machine]]:
    def begin(dc: Datacenter) -> list[Machine]:
        leader = dc.leader()
        act(leader)
        return [leader]

    return begin


def _partition_follower(dc: Datacenter) -> list[Machine]:
    follower = dc.followers()[0]
    follower.partition()
    return [follower]


def _pause_two(dc: Datacenter) -> list[Machine]:
    paused = dc.servers[:2]
    for machine in paused:
        machine.pause()
    return paused


FAULTS = [
    Fault("leader killed (SIGKILL)", _leader(Machine.kill), Machine.start),
    Fault("leader paused (SIGSTOP)", _leader(Machine.pause), Machine.resume),
    Fault("leader partitioned", _leader(Machine.partition), Machine.heal),
    Fault("follower partitioned", _partition_follower, Machine.heal),
    Fault("two of three paused: no quorum", _pause_two, Machine.resume),
]


def run(quick: bool) -> Report:
    """Plays every fault on one cluster."""
    normal, lasts = (4.0, 6.0) if quick else (15.0, 20.0)
    report = Report()
    rows: list[list[str]] = []
    with (
        tempfile.TemporaryDirectory(prefix="rb-acc-") as folder,
        Datacenter(of_this_process("rb-acc"), Path(folder)) as dc,
        Estate(dc) as estate,
    ):
        for place, fault in enumerate(FAULTS):
            progress(fault.name)
            rows.append(_play(report, dc, estate, fault, 2000 * place, normal, lasts))
    report.lines += [
        f"{PER_S} logins a second, each of another user; every fault lasts {lasts:g} s. A login is *through* when the "
        f"kernel of a protected host has it. A NAS repeats each second what is not answered.",
        "",
    ]
    report.table(
        [
            "fault",
            "normal p50 / p99",
            "p50 / p99 / max of those sent during the fault",
            "longest without an answer",
            "repeated",
            "lost",
            "access that ended meanwhile",
            "valid access",
        ],
        rows,
    )
    return report


def _play(
    report: Report, dc: Datacenter, estate: Estate, fault: Fault, base: int, normal: float, lasts: float
) -> list[str]:
    """One fault: steady logins before, during and after. Users `base` and `base` + 1 are watched."""
    host = estate.hosts[dc.name]
    with estate.nas(PER_S, base + 10) as nas:
        valid = nas.send(Status.START, base)
        wait_until(lambda: bool(valid.in_kernel), "the valid login", timeout=10)
        with Watch(host, base) as watch:
            time.sleep(normal)
            short = nas.send(Status.START, base + 1, seconds=max(3, int(lasts / 2)))
            wait_until(lambda: bool(short.in_kernel), "the short login", timeout=10)
            short_ends = time.monotonic() + max(3, int(lasts / 2)) - (time.monotonic() - short.sent)
            began = time.monotonic()
            concerned = fault.begin(dc)
            ended = wait_gone(host, base + 1, short_ends + 10)
            time.sleep(max(0.0, began + lasts - time.monotonic()))
            healed = time.monotonic()
            for machine in concerned:
                fault.end(machine)
            time.sleep(3)
            nas.quiet()
            try:
                nas.settle(SETTLE)
            except LabError as error:
                report.must(False, f"{fault.name}: {error}\n{estate.bridge.process.tail()}\n{host.process.tail()}")
        before = latencies([login for login in nas.logins if login.sent < began and login.in_kernel], dc.name)
        during = [login for login in nas.logins if began <= login.sent < healed]
        through = latencies([login for login in during if login.in_kernel], dc.name)
        lost = sum(not login.in_kernel for login in nas.logins)
        repeated = sum(login.tries > 1 for login in during)
        late = ended - short_ends
        report.must(lost == 0, f"{fault.name}: {lost} logins lost")
        report.must(late <= LATE, f"{fault.name}: access outlived its end by {late:.1f} s")
        report.must(watch.absent == 0, f"{fault.name}: valid access was away {watch.absent} times")
        gap = longest_gap(nas, began, time.monotonic())
    return [
        fault.name,
        f"{told(percentile(before, 50))} / {told(percentile(before, 99))}",
        " / ".join(told(each) for each in (percentile(through, 50), percentile(through, 99), max(through))),
        told(gap),
        f"{repeated} of {len(during)}",
        str(lost),
        f"{late:+.1f} s after its end",
        "never away" if not watch.absent else f"away {watch.absent} times",
    ]


class Watch:
    """Looks every 20 ms whether a user's access is there."""

    def __init__(self, host: Protected, number: int) -> None:
        self._host = host
        self._number = number
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.absent = 0
        """Looks at which it was not."""

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            self.absent += not self._host.holds(self._number)


def wait_gone(host: Protected, number: int, deadline: float) -> float:
    """When the kernel no longer has that user (monotonic); `deadline` if it still has."""
    while host.holds(number):
        if time.monotonic() > deadline:
            return deadline
        time.sleep(0.01)
    return time.monotonic()


SCENARIO = Scenario(
    "cluster",
    "three Consul servers: leader killed, paused, partitioned; quorum lost",
    run,
    PROJECT / "docs/reliability.md",
)
