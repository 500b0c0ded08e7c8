"""Consul is away for two minutes while thousands log in: FreeRADIUS answers, and passes on what its buffer holds."""

import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.acceptance.frame import Report, Scenario, percentile, progress, told
from tests.lab.consul import ConsulServer
from tests.lab.forwarding import SECRET, Host
from tests.lab.netns import Namespace
from tests.lab.processes import PROJECT, LabError, wait_until
from tests.lab.radius_client import AccountingClient, Status, accounting

LOGOUTS = 10
"""Every so many-th who logs in logs out again before Consul is back."""

PATIENCE = 600.0
"""Seconds within which the buffer must be empty."""


def run_buffered(quick: bool) -> Report:
    """Plays it once."""
    logins, away = (200, 8.0) if quick else (5000, 120.0)
    report = Report()
    name = f"rb-acc-buffer-{os.getpid()}"
    with (
        tempfile.TemporaryDirectory(prefix="rb-acc-") as folder,
        Namespace(name) as namespace,
        ConsulServer(namespace=namespace.name, on_disk=True) as consul,
    ):
        host = Host(namespace, consul, Path(folder))
        try:
            host.bridge.start().wait_log("listening")
            host.freeradius("detail")
            rows = _play(report, host, logins, away)
        finally:
            host.close()
    report.lines += [
        f"Consul is killed (SIGKILL) for {away:g} s, and {logins:,} users log in meanwhile; every tenth of them logs "
        f"out again. A NAS sends to FreeRADIUS with `config/freeradius/detail.conf`, which sends to the bridge.",
        "",
    ]
    report.table(["what", "seen"], rows)
    return report


def _play(report: Report, host: Host, logins: int, away: float) -> list[list[str]]:
    began = time.monotonic()
    host.consul.kill()
    answers: list[float] = []
    sock = host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", 1813))
    with AccountingClient(sock, SECRET.encode()) as nas:
        for number in range(logins):
            time.sleep(max(0.0, began + 0.95 * away * number / logins - time.monotonic()))
            kinds = (Status.START, Status.STOP) if number % LOGOUTS == 0 else (Status.START,)
            for kind in kinds:
                answers.append(_told(nas, kind, number))
    sent = time.monotonic() - began
    report.must(sent < away, f"the logins took {sent:.0f} s, longer than Consul was away")
    time.sleep(max(0.0, began + away - time.monotonic()))
    host.consul.start()
    back = time.monotonic()
    progress(f"Consul is back after {back - began:.0f} s")
    expected = {_address(number): f"user{number}" for number in range(logins) if number % LOGOUTS}

    def missing() -> int:
        return len(expected.items() - _names(host.users(PATIENCE)).items())

    try:
        wait_until(lambda: not missing(), "all logins to be recorded", timeout=PATIENCE, every=3.0)
    except LabError:
        report.must(holds=False, what=f"{missing()} of {len(expected)} logins are lost")
    took = time.monotonic() - back
    users = host.users(PATIENCE)
    lost = len(expected.items() - _names(users).items())
    revived = [address for address in users if address not in expected]
    report.must(not revived, f"{len(revived)} who logged out are logged in")
    late = [each["since"] for each in users.values()]
    spread = max(late) - min(late) if late else 0.0
    report.must(spread > 0.8 * sent, f"logins of {sent:.0f} s seem to have happened within {spread:.0f} s")
    return [
        ["FreeRADIUS answers the NAS, p50 / p99", f"{told(percentile(answers, 50))} / {told(percentile(answers, 99))}"],
        ["logins lost", f"{lost} of {len(expected):,}"],
        ["logged out and yet logged in", f"{len(revived)} of {logins - len(expected):,}"],
        ["all recorded", f"{told(took)} after Consul was back"],
        ["times of the logins", f"as they were: spread over {told(spread)}"],
    ]


def _names(users: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {address: each["user"] for address, each in users.items()}


def _told(nas: AccountingClient, kind: Status, number: int) -> float:
    attributes = accounting(kind, f"user{number}", f"s{number}", _address(number), event_time=time.time())
    for _ in range(3):
        took = nas.send(attributes, timeout=2.0)
        if took is not None:
            return took
    raise LabError(f"FreeRADIUS does not answer {kind.name} of user{number}")


def _address(number: int) -> str:
    return f"10.2.{number >> 8}.{number & 255}"


SCENARIO = Scenario(
    "buffered",
    "5,000 logins through FreeRADIUS' buffer while Consul is away for two minutes",
    run_buffered,
    PROJECT / "docs/reliability.md",
)
