"""The benchmarks of the dataplane, small; and that a benchmark leaves nothing behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import agent_delta, agent_idle, agent_load, datapath, tamper, tidy
from bench.dataplanes import BACKENDS
from tests.lab.netns import Namespace
from tests.lab.processes import PROJECT, run, wait_until

pytestmark = pytest.mark.e2e

SLEEPER = """\
import sys, time
from bench import tidy
tidy.end_by_unwinding()
with tidy.namespace("here"):
    print("up", flush=True)
    time.sleep(60)
"""


def test_the_load_bench_fills_both_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_load, "SIZES", (3_000,))
    result = agent_load.run_bench(True)
    for key in ("seconds", "nftables_seconds"):
        assert set(result.figures[key]) == {"3000"}  # type: ignore[arg-type]  # by number of members
    assert set(result.peers["ipset_restore_seconds"]) == {"3000"}  # type: ignore[arg-type]


def test_the_delta_bench_makes_one_change_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_delta, "SIZES", (100,))
    result = agent_delta.run_bench(True)
    assert set(result.figures) == {"p50_ms", "p99_ms", "nftables_p50_ms", "nftables_p99_ms"}
    assert set(result.peers) == {"ipset_restore_p50_ms", "ipset_process_p50_ms"}


def test_the_datapath_bench_lets_members_through_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datapath, "MEMBERS", (10,))
    monkeypatch.setattr(datapath, "SERVICES", (2,))
    monkeypatch.setattr(datapath, "RULES", 10)
    result = datapath.measure(1, 0.02, 20)
    ours, without = result.figures["share_of_empty_chain"], result.peers["share_of_empty_chain"]
    ways = ("10_members_2_services", "free_port_2_services")
    assert set(ours) == {f"{backend}_{way}" for backend in BACKENDS for way in ways}  # type: ignore[arg-type]
    assert set(without) == {"empty_chain", datapath.BASE, "iptables_10_rules"}  # type: ignore[arg-type]


def test_the_idle_bench_finds_the_agent_with_its_members() -> None:
    figures = agent_idle.measure(100, 0.5).figures
    assert set(figures) == {"rss_mib", "imports_mib", "idle_cpu_percent"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_that_is_ended_removes_its_namespaces(number: signal.Signals) -> None:
    child = subprocess.Popen([sys.executable, "-c", SLEEPER], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        place = Path(f"/run/netns/{tidy.PREFIX}-{child.pid}-here")
        assert place.exists()
        child.send_signal(number)
        child.send_signal(number)
        assert child.wait(20) == 128 + number
    assert not place.exists()


def test_what_a_killed_benchmark_left_is_swept_with_what_runs_in_it() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, mine = Namespace(f"{tidy.PREFIX}-{dead.pid}-left"), tidy.namespace("mine")
    with left, mine:
        sleeper = subprocess.Popen(left.argv("sleep", "60"))
        pids = ["ip", "netns", "pids", left.name]
        wait_until(lambda: run(pids).stdout.split() == [str(sleeper.pid)], "the sleeper to be in its namespace")
        tidy.sweep()
        assert sleeper.wait(10) == -signal.SIGKILL
        assert not left.exists()
        assert mine.exists()


def test_the_tamper_bench_measures_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    only = {backend: dict(list(kinds.items())[:1]) for backend, kinds in tamper.KINDS.items()}
    monkeypatch.setattr(tamper, "KINDS", only)
    monkeypatch.setattr("structlog.configure", lambda **_: None)  # it is for the whole process
    figures = tamper.run_bench(True).figures
    assert set(figures["p99_ms"]) == {"ipset_jump_deleted", "nftables_rule_inserted"}  # type: ignore[arg-type]
