"""A protected host reboots while Consul is unreachable: who had access has it, until it would have ended anyway."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.dataplane.host import ALICE, BOB, SERVER, reach
from tests.e2e.machine import MALLORY, OPERATOR, PORT, SERVICE, Machine, grant
from tests.lab.consul import ConsulServer
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

SOON = 10
"""Seconds after which bob's time is over."""


def unprivileged(*capabilities: str) -> tuple[str, ...]:
    """Runs a command as nobody with these capabilities only.

    It may read everything too: Python can be in a place that only root may look into.
    """
    kept = ",".join(["-all", "+dac_read_search", *(f"+{each}" for each in capabilities)])
    user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs")
    return (*user, f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}")


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not pytest's own folder, which only root may look into.
    with TemporaryDirectory(prefix="rbboot-") as disk:
        Path(disk).chmod(0o755)
        machine = Machine(Path(disk))
        try:
            yield machine
        finally:
            machine.power_off()


def run_once(machine: Machine, *, bobs_time: float = 600) -> float:
    """An agent enforces what Consul says and is killed; gives when bob's time (seconds) is over (epoch seconds)."""
    machine.boot()
    with ConsulServer(namespace=machine.server.name, node="server") as consul:
        machine.configure(consul.url)
        over = time.time() + bobs_time
        grant(consul, {ALICE: time.time() + 600, BOB: over})
        agent = machine.start_agent().wait_log('"enforcing"')
        wait_until(lambda: ALICE in machine.kept(), "the state on disk")
        assert machine.lets_in() >= {ALICE, OPERATOR}
        agent.kill()
    return over


def test_after_a_reboot_without_consul_who_had_access_has_it_minus_who_is_over(machine: Machine) -> None:
    over = run_once(machine, bobs_time=SOON)
    assert BOB in machine.kept(), f"this machine takes longer than {SOON} s to start an agent"
    machine.boot()
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}, "nothing is protected yet"
    wait_until(lambda: time.time() > over, "the end of bob's time", timeout=SOON)
    restored = machine.agent("restore")
    assert restored.returncode == 0, restored.stderr
    assert machine.lets_in() == {ALICE, OPERATOR}
    agent = machine.start_agent()
    wait_until((machine.disk / "run" / "control.sock").exists, "the agent")
    status = machine.status()
    assert not status["enforcing"]
    assert status["restored"]
    assert machine.lets_in() == {ALICE, OPERATOR}
    assert agent.terminate() == 0
    assert ALICE in machine.kept(), "an agent that learnt nothing writes nothing"
    assert machine.lets_in() == {ALICE, OPERATOR}


def test_consul_says_what_counts_once_it_can_be_reached(machine: Machine) -> None:
    run_once(machine)
    machine.boot()
    with ConsulServer(namespace=machine.server.name, node="server") as consul:
        machine.configure(consul.url)
        consul.pause()
        agent = machine.start_agent().wait_log('"restored"')
        assert machine.lets_in() >= {ALICE, OPERATOR}
        consul.resume()
        grant(consul, {BOB: time.time() + 600})
        agent.wait_log('"enforcing"', timeout=30)
        wait_until(lambda: machine.lets_in() == {BOB, OPERATOR}, "what Consul says", timeout=15)


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_state_is_kept_aside_and_only_the_failsafe_gets_in(machine: Machine, damage: str) -> None:
    run_once(machine)
    content = bytearray((machine.state / "state").read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) // 2 :]
    (machine.state / "state").write_bytes(content)
    machine.boot()
    restored = machine.agent("restore")
    assert restored.returncode == 1
    assert "refused" in restored.stderr
    assert "state.corrupt-" in restored.stderr
    assert machine.lets_in() == {OPERATOR}
    assert [path.read_bytes() for path in machine.state.glob("state.corrupt-*")] == [bytes(content)]
    assert not (machine.state / "state").exists()


def test_rules_that_are_in_place_are_newer_than_the_file(machine: Machine) -> None:
    run_once(machine)
    machine.server.run("ipset", "del", f"rb4h.{SERVICE}", ALICE)
    assert machine.agent("restore").returncode == 0
    assert ALICE not in machine.lets_in(), "who was cut off after the last write stays cut off"
    machine.server.run("iptables", "-D", "INPUT", "-j", "RB-INPUT")
    assert machine.agent("restore").returncode == 0
    assert machine.lets_in() >= {ALICE, OPERATOR}
    assert reach(machine.client, MALLORY, SERVER, PORT) == "refused", "what was taken away by hand is there again"


def test_a_host_without_a_state_is_left_as_it_is(machine: Machine) -> None:
    machine.boot()
    machine.configure(machine.url)
    assert machine.agent("restore").returncode == 0
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}
    assert "RB-INPUT" not in machine.server.run("iptables-save").stdout


def test_the_agent_needs_no_root_but_the_capabilities_to_program_the_network(machine: Machine) -> None:
    run_once(machine)
    for path in (machine.disk, *machine.disk.rglob("*")):
        os.chown(path, 65534, 65534)
    machine.boot()
    without = machine.agent("restore", prefix=unprivileged())
    assert without.returncode == 1, without.stderr
    assert "error: " in without.stderr
    # iptables asks for the numbers of sets through a raw socket.
    restored = machine.agent("restore", prefix=unprivileged("net_admin", "net_raw"))
    assert restored.returncode == 0, restored.stderr
    assert ALICE in machine.lets_in()
    with ConsulServer(namespace=machine.server.name, node="server") as consul:
        machine.configure(consul.url)
        grant(consul, {BOB: time.time() + 600})
        agent = machine.start_agent(prefix=unprivileged("net_admin", "net_raw")).wait_log('"enforcing"', timeout=30)
        wait_until(lambda: machine.lets_in() == {BOB, OPERATOR}, "what Consul says", timeout=15)
        wait_until(lambda: ALICE not in machine.kept(), "the state on disk")
        assert agent.terminate() == 0
