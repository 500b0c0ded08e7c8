"""Many hosts lose Consul at the same moment and find it again: how soon, how many at once, and has anybody missed
anything.

Consul is killed and started again with its data; 45 followers share an address, as behind Consul's usual limit.
"""

import tempfile
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.fleet import Fleet
from bench.frame import Bench, Result, percentile, progress
from bench.tidy import namespace
from tests.lab.consul import ConsulServer
from tests.lab.processes import BIN, LabError, run, wait_until

HERD = 500
ADDRESS = "198.51.100.1"
GROUP = "staff"

WITHIN = 120.0
"""Seconds after which the last one must be back and know everything, or there are no figures."""


def run_bench(quick: bool) -> Result:
    """A short outage, after which the pauses between attempts are short, and one that makes them longest."""
    outages = (5,) if quick else (5, 60)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder, ExitStack() as stack:
        hub = stack.enter_context(namespace("hub"))
        hub.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        server = stack.enter_context(ConsulServer(namespace=hub.name, address=ADDRESS, on_disk=True))
        _add(server, hub.name, "first")
        progress(f"{HERD} followers")
        fleet = Fleet(hub, server.url, HERD, Path(folder), stack)
        for outage in outages:
            progress(f"Consul is away for {outage} s")
            found[f"outage_{outage}_s"] = _outage(server, fleet, outage)
            _add(server, hub.name, f"after-{outage}")
            fleet.heard_by_all(f"after-{outage}$")
    worst = {
        name: (min if name == "complete" else max)(each[name] for each in found.values())
        for name in next(iter(found.values()))
    }
    return Result({"followers": HERD, **worst, **found})


def _outage(server: ConsulServer, fleet: Fleet, seconds: float) -> dict[str, float]:
    """Consul is killed, and comes back after so many seconds; times count from its having a leader again."""
    before = time.time()
    server.kill()
    time.sleep(seconds)
    server.start()
    began = time.time()

    def returns() -> dict[str, dict[str, float]]:
        """The last return of each, since a server that has just started may not be there to stay."""
        return {told["host"]: told for told in fleet.told() if told.get("back", 0.0) > before}

    wait_until(lambda: len(returns()) == HERD, f"the return of all {HERD}", timeout=WITHIN, every=0.5)
    found = list(returns().values())
    back = sorted(each["back"] for each in found)
    return {
        "complete": len(found),
        "back_s": round(back[-1] - began, 2),
        "back_p50_s": round(percentile(back, 50) - began, 2),
        "complete_s": round(max(each["complete"] for each in found) - began, 2),
        "most_per_100ms": _most(back, 0.1),
        "most_per_s": _most(back, 1.0),
    }


def _add(server: ConsulServer, inside: str, user: str) -> None:
    """An engineer puts somebody into the group that all follow."""
    environment = {"CONSUL_HTTP_ADDR": server.url}
    done = run([BIN / "radius-bridge", "group", "add", GROUP, user], namespace=inside, env=environment)
    if done.returncode:
        raise LabError(f"radius-bridge group add: {done.stderr}")


def _most(moments: Sequence[float], window: float) -> int:
    """The most of the sorted moments that lie within so many seconds."""
    return max(bisect_right(moments, moment + window) - number for number, moment in enumerate(moments))


BENCH = Bench(
    "herd",
    "500 followers that lose Consul at once and come back",
    run_bench,
    means="After 5 s they try again soon, after 60 s they wait longest; ungrouped: the worst of both. Back: "
    "first answered poll, counted from when Consul has a leader; complete: knows what it may have missed. Must be "
    "within a minute.",
)
