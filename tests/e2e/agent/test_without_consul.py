"""Consul stands still, is silent, or forbids: nothing opens, and time goes on in the kernel."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import MALLORY, OPERATOR, SERVICE, Machine, grant, until_over
from tests.lab.consul import ConsulServer
from tests.lab.processes import Process, wait_until

pytestmark = pytest.mark.e2e

SHORT = 12
"""Seconds that bob has: enough for an agent to start on a busy machine."""

POLICIES = Path(__file__).parents[3] / "config" / "consul"
MASTER = "5e1f0000-0000-4000-8000-000000000000"
ACL = {
    "primary_datacenter": "dc1",
    "acl": {
        "enabled": True,
        "default_policy": "deny",
        "enable_key_list_policy": True,
        "tokens": {"master": MASTER, "agent": MASTER},
    },
}


@contextmanager
def silence(machine: Machine) -> Iterator[None]:
    """Every packet to and from Consul is lost, and nobody is told (no reset)."""
    port = machine.url.rpartition(":")[2]
    machine.server.run(
        "nft",
        "-f",
        "-",
        text=f"""table inet hole {{
            chain out {{
                type filter hook output priority raw;
                tcp dport {port} drop
                tcp sport {port} drop
            }}
        }}""",
    )
    try:
        yield
    finally:
        machine.server.run("nft", "delete table inet hole")


def bob_for_a_while(machine: Machine) -> tuple[ConsulServer, Process, float]:
    """Alice and bob get in; gives when bob's time is over (epoch seconds)."""
    consul = machine.consul()
    over = time.time() + SHORT
    grant(consul, {ALICE: time.time() + 600, BOB: over})
    agent = machine.enforcing()
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}, f"it took more than {SHORT} s to start an agent"
    return consul, agent, over


def test_without_a_leader_for_longer_than_the_longest_time_expired_access_ends_and_valid_stays(
    machine: Machine,
) -> None:
    consul, _, over = bob_for_a_while(machine)
    consul.pause()
    until_over(over)
    assert machine.lets_in() == {ALICE, OPERATOR}
    assert machine.reaches(MALLORY) == "refused"
    consul.resume()
    machine.engineer("grant", BOB, SERVICE, "--for", "10m")
    wait_until(lambda: machine.lets_in() == {ALICE, BOB, OPERATOR}, "what is said afterwards", timeout=15)


def test_a_black_holed_connection_changes_nothing_and_is_taken_up_again(machine: Machine) -> None:
    _, _, over = bob_for_a_while(machine)
    with silence(machine):
        until_over(over)
        assert machine.lets_in() == {ALICE, OPERATOR}
        assert machine.reaches(MALLORY) == "refused"
        assert machine.status()["enforcing"]
    machine.engineer("grant", BOB, SERVICE, "--for", "10m")
    wait_until(lambda: machine.lets_in() == {ALICE, BOB, OPERATOR}, "what is said afterwards", timeout=30)


@pytest.mark.parametrize("machine", ["ipset"], indirect=True)
def test_a_token_that_loses_its_policy_and_is_deleted_while_a_query_is_blocked_takes_nothing_away(
    machine: Machine,
) -> None:
    consul = machine.consul(ACL, MASTER)
    command = consul.command
    command("acl", "policy", "create", "-name=host", f"-rules=@{POLICIES / 'agent.hcl'}")
    token = json.loads(command("acl", "token", "create", "-policy-name=host", "-format=json"))
    machine.configure(consul.url, token["SecretID"])
    grant(consul, {ALICE: time.time() + 600, BOB: time.time() + 600})
    machine.enforcing()
    for take_away in (
        ("acl", "policy", "update", "-name=host", "-rules="),
        ("acl", "token", "delete", f"-id={token['AccessorID']}"),
    ):
        command(*take_away)
        # Wakes the blocked query; the next one is refused.
        machine.engineer("grant", "10.0.0.1", SERVICE, token=MASTER)
        wait_until(lambda: "feed" in machine.status()["errors"], "the agent to be refused", timeout=40, every=0.2)
        assert machine.lets_in() == {ALICE, BOB, OPERATOR}
        assert machine.reaches(MALLORY) == "refused"
