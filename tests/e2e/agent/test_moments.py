"""Time at its worst: ends that are over on arrival, very many at once, and renewals in the last moment."""

import base64
import json
import socket
import time
from ipaddress import IPv4Address

import pytest

from radius_bridge.policy.members import parse_prefix
from radius_bridge.registry.keys import Scope
from tests.e2e.dataplane.host import ALICE, BOB, SERVER, tcp
from tests.e2e.machine import KEYS, MALLORY, OPERATOR, PORT, SERVICE, Machine, grant, until_over
from tests.lab.processes import run, wait_until
from tests.lab.tcp import connect

pytestmark = pytest.mark.e2e

FIRST = int(IPv4Address("10.0.0.1"))


def test_who_arrives_with_a_time_that_is_over_does_not_get_in(machine: Machine) -> None:
    consul = machine.consul()
    now = time.time()
    # As two clocks that differ by an hour would write them.
    grant(consul, {ALICE: now - 3600, MALLORY: now - 1, BOB: now + 3600})
    machine.enforcing()
    assert machine.lets_in() == {BOB, OPERATOR}
    assert machine.reaches(MALLORY) == "refused"


def test_a_renewal_that_lands_in_the_moment_of_the_end_never_locks_out_for_good(machine: Machine) -> None:
    consul = machine.consul()
    grant(consul, {ALICE: time.time() + 600})
    machine.enforcing()
    for offset in (-0.05, 0.0, 0.05):
        end = int(time.time()) + 3
        consul.command("kv", "put", KEYS.grant(Scope(), SERVICE, parse_prefix(ALICE)), str(end))
        machine.engineer("notify", KEYS.grant(Scope(), SERVICE, parse_prefix(ALICE)))
        until_over(end - 1 + offset)
        machine.engineer("grant", ALICE, SERVICE, "--for", "10m")
        wait_until(lambda: machine.reaches(ALICE) == "open", "the renewal")
        until_over(end + 0.5)
        assert machine.reaches(ALICE) == "open", "the end that was before the renewal does not come later"
