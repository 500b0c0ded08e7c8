"""The agent is killed at the worst moments: what the kernel and the disk hold is the old or the new, and whole."""

import base64
import json
import time
from functools import partial

import pytest

from radius_bridge.policy.members import parse_prefix
from radius_bridge.registry.keys import Scope
from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import KEYS, MALLORY, OPERATOR, SERVICE, Machine, grant
from tests.lab.consul import ConsulServer
from tests.lab.ipset import SetProbe
from tests.lab.processes import run, wait_until

pytestmark = pytest.mark.e2e

MANY = 15_000
"""Members that take long enough to write that one can be killed in between."""

IPSET_ONLY = pytest.mark.parametrize("machine", ["ipset"], indirect=True)


def grant_many(machine: Machine, consul: ConsulServer) -> None:
    """Grants the service to very many at once, unannounced."""
    value = base64.b64encode(b"%d" % (time.time() + 600)).decode()
    addresses = (parse_prefix(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(1, MANY + 1))
    entries = [{"key": KEYS.grant(Scope(), SERVICE, each), "flags": 0, "value": value} for each in addresses]
    done = run(
        ["consul", "kv", "import", "-"],
        namespace=machine.server.name,
        env={"CONSUL_HTTP_ADDR": consul.url},
        stdin=json.dumps(entries),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def enforced_once(machine: Machine) -> ConsulServer:
    """Alice and bob get in and the agent is dead; then very many others are granted the service, and bob no more."""
    consul = machine.consul()
    grant(consul, {ALICE: time.time() + 600, BOB: time.time() + 600})
    agent = machine.enforcing()
    wait_until(lambda: BOB in machine.kept(), "the state on disk")
    agent.kill()
    grant_many(machine, consul)
    consul.command("kv", "delete", KEYS.grant(Scope(), SERVICE, parse_prefix(BOB)))
    return consul


def leftovers(machine: Machine) -> list[str]:
    """Sets that a build left behind."""
    return [name for name in machine.server.run("ipset", "list", "-n").stdout.split() if name.endswith("~")]


@IPSET_ONLY
def test_killed_between_filling_a_set_and_the_swap_the_old_set_stands_and_what_was_built_is_swept(
    machine: Machine,
) -> None:
    enforced_once(machine)
    with SetProbe(machine.server) as probe:
        agent = machine.start_agent()
        wait_until(lambda: probe.holds(f"rb4h.{SERVICE}~", "10.0.0.1"), "the set to be filled", timeout=30, every=0)
        agent.kill()
    assert leftovers(machine)
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}
    assert machine.reaches(MALLORY) == "refused"
    machine.enforcing()
    wait_until(lambda: machine.lets_in() == {ALICE, OPERATOR}, "what Consul says")
    assert leftovers(machine) == []


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def test_killed_at_any_moment_of_a_change_what_is_enforced_is_the_old_or_the_new(machine: Machine) -> None:
    consul = machine.consul()
    grant(consul, {})
    began = time.monotonic()
    machine.enforcing().kill()
    took = time.monotonic() - began
    grant(consul, {ALICE: time.time() + 600, BOB: time.time() + 600})
    grant_many(machine, consul)
    for share in (0.9, 1.2):
        began = time.monotonic()
        agent = machine.start_agent()
        wait_until(partial(_is_past, began + share * took), "the moment")
        agent.kill()
        assert machine.lets_in() in ({OPERATOR}, {ALICE, BOB, OPERATOR})
        assert machine.reaches(MALLORY) == "refused"
    machine.enforcing()
    wait_until(lambda: machine.lets_in() == {ALICE, BOB, OPERATOR}, "what Consul says")
    assert leftovers(machine) == []


@IPSET_ONLY
def test_killed_in_the_middle_of_writing_the_state_it_is_whole_after_a_reboot(machine: Machine) -> None:
    enforced_once(machine)
    building = machine.state / "state.new"
    agent = machine.start_agent()
    wait_until(building.exists, "the state to be written", timeout=30, every=0)
    agent.kill()
    assert building.exists(), "this machine writes faster than one can kill: raise MANY"
    machine.boot()
    machine.configure("http://127.0.0.1:9")
    restored = machine.agent("restore")
    assert restored.returncode == 0, restored.stderr
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}, "the last state that was whole"
    assert machine.reaches(MALLORY) == "refused"
    assert not list(machine.state.glob("state.corrupt-*"))
