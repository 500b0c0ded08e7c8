"""Two federated datacenters; the WAN between them is cut for a minute while users log in and engineers work."""

import http.client
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.acceptance.cluster import Watch, wait_gone
from tests.acceptance.frame import Report, Scenario, latencies, percentile, progress, told
from tests.lab.cluster import Federation, of_this_process
from tests.lab.estate import Estate, Login
from tests.lab.processes import PROJECT, LabError, wait_until
from tests.lab.radius_client import Status

PER_S = 40
"""New logins each second."""

BLOCKED = 5
"""The number of the user whose address is blocked while the WAN is cut."""

DENY_SET = "rb4n.rules_deny"

ROUTED = 300.0
"""Seconds after the WAN is back within which Consul itself must reach the other datacenter again.

Its servers look at each other's datacenters every two to three minutes (Consul 1.8); found dead then, one has "No path
to datacenter" until the next look, whatever the network does.
"""

CAUGHT_UP = 60.0
"""Seconds after that within which the copy must be the same again."""


def run(quick: bool) -> Report:
    """Plays the cut."""
    normal, lasts = (4.0, 10.0) if quick else (15.0, 60.0)
    report = Report()
    with (
        tempfile.TemporaryDirectory(prefix="rb-acc-") as folder,
        Federation(of_this_process("rb-acc"), Path(folder)) as wan,
        Estate(wan.dc1, wan.dc2) as estate,
        estate.nas(PER_S) as nas,
        ThreadPoolExecutor(4) as background,
    ):
        here, there = estate.hosts["dc1"], estate.hosts["dc2"]
        valid, leaves = nas.send(Status.START, 0), nas.send(Status.START, 1)
        blocked = nas.send(Status.START, BLOCKED)
        wait_until(lambda: all(len(each.in_kernel) == 2 for each in (valid, leaves, blocked)), "the first logins")
        with Watch(here, 0) as watch_here, Watch(there, 0) as watch_there:
            progress(f"logins for {normal:g} s")
            began = time.monotonic()
            time.sleep(normal)
            ends = int(lasts / 2)
            short = nas.send(Status.START, 2, seconds=ends)
            wait_until(lambda: len(short.in_kernel) == 2, "the short login")
            progress(f"WAN cut for {lasts:g} s")
            cut = time.monotonic()
            wan.cut()
            left = nas.send(Status.STOP, 1)
            block = background.submit(_block, estate)
            gone = [background.submit(wait_gone, host, 2, cut + ends + 10) for host in (here, there)]
            wait_until(lambda: here.holds(BLOCKED, DENY_SET), "the block at home", timeout=20)
            blocked_here = time.monotonic() - cut
            refused = _grant(estate)
            short_gone = [each.result() - (short.sent + ends) for each in gone]
            time.sleep(max(0.0, cut + lasts - time.monotonic()))
            restored = time.monotonic()
            wan.restore()
            progress("WAN restored")
            wait_until(lambda: _is_routed(estate), "Consul to route to dc2", timeout=ROUTED, every=0.2)
            routed = time.monotonic()
            progress(f"Consul reaches dc2 again {told(routed - restored)} after the WAN was back")
            time.sleep(5)
            nas.quiet()
            try:
                nas.settle(CAUGHT_UP)
            except LabError as error:
                report.must(False, f"{error}\n{estate.bridge.process.tail()}\n{there.process.tail()}")
            wait_until(lambda: there.holds(BLOCKED, DENY_SET), "the block in dc2", timeout=60)
            blocked_there = time.monotonic() - routed
            told_block = block.result(timeout=60)
        before = [each for each in nas.logins if began <= each.sent < cut and each.opens]
        during = [each for each in nas.logins if cut <= each.sent < routed and each.opens]
        caught_up = max((each.in_kernel["dc2"] for each in during if "dc2" in each.in_kernel), default=routed)
        left_there = left.in_kernel.get("dc2", routed)
    lost = sum(len(each.in_kernel) < 2 for each in nas.logins)
    report.must(lost == 0, f"{lost} events lost")
    report.must(watch_here.absent == 0, "valid access was away at home")
    report.must(watch_there.absent == 0, "valid access was away in dc2")
    report.must(max(short_gone) < 1, f"access outlived its end by {max(short_gone):.1f} s")
    report.must("not in dc2" in refused, f"a grant did not tell that dc2 failed: {refused}")
    report.must("dc2: done" in told_block, f"the block did not get through: {told_block}")
    repeated = sum(each.tries > 1 for each in during)
    report.must(repeated == 0, f"{repeated} logins had to be repeated at home")
    report.lines += [
        f"{PER_S} logins a second in dc1, whose bridge copies to dc2; three servers in each, the WAN without delay. It "
        f"drops every packet for {lasts:g} s.",
        "",
    ]
    report.table(
        ["what", "dc1 (home)", "dc2 (copy)"],
        [
            ["login → kernel before, p50 / p99", _summary(before, "dc1"), _summary(before, "dc2")],
            [
                "login → kernel of those sent during the cut, p50 / p99",
                _summary(during, "dc1"),
                f"all within {told(max(0.0, caught_up - routed))} of Consul's return",
            ],
            ["Consul reaches it after the WAN's return", "—", told(routed - restored)],
            ["logins not answered at once", f"{repeated} of {len(during)}", "—"],
            ["lost", str(lost), ""],
            ["access that ended meanwhile, against its end", *(f"{late:+.1f} s" for late in short_gone)],
            [
                "logout during the cut",
                told(left.in_kernel["dc1"] - left.sent),
                f"{told(max(0.0, left_there - routed))} after Consul's return",
            ],
            ["valid access", _away(watch_here), _away(watch_there)],
            [
                "`block` during the cut",
                f"{told(blocked_here)}",
                f"{told(max(0.0, blocked_there))} after Consul's return",
            ],
            ["`grant` during the cut", "done", "exit code 1, names dc2"],
        ],
    )
    return report


def _is_routed(estate: Estate) -> bool:
    """True if Consul reaches dc2 from where the bridge is."""
    try:
        estate.bridge.machine.get("/v1/kv/befw?dc=dc2", timeout=5)
    except (OSError, http.client.HTTPException):
        return False
    return True


def _summary(logins: list[Login], datacenter: str) -> str:
    seconds = latencies([each for each in logins if datacenter in each.in_kernel], datacenter)
    return f"{told(percentile(seconds, 50))} / {told(percentile(seconds, 99))}"


def _away(watch: Watch) -> str:
    return f"away {watch.absent} times" if watch.absent else "never away"


def _block(estate: Estate) -> str:
    """Blocks an address; what the command told in the end."""
    return estate.bridge.engineer_told("block", "10.66.0.6", "--timeout", "5m", timeout=300)


def _grant(estate: Estate) -> str:
    """Grants something; what the command told when it failed."""
    try:
        estate.bridge.engineer("grant", "user7", "other_tcp_9")
    except LabError as error:
        return str(error)
    return "it succeeded"


SCENARIO = Scenario(
    "datacenters",
    "two federated datacenters, the WAN cut for a minute",
    run,
    PROJECT / "docs/reliability.md",
)
