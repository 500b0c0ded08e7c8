"""What Consul holds is not always sense: what is good is enforced, the rest opens nothing and is named."""

import time

import pytest

from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import KEYS, MALLORY, OPERATOR, SERVICE, Machine, grant
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

_FOLDER = f"{KEYS.services}{SERVICE}/"


def test_malformed_members_and_values_a_value_of_512_kib_and_truncated_json_open_nothing(machine: Machine) -> None:
    consul = machine.consul()
    (machine.disk / "services.d" / "torn.json").write_text('{"name": "torn", "ports": ["22')
    grant(consul, {ALICE: time.time() + 600})
    huge = machine.disk / "huge"
    huge.write_bytes(b"9" * (512 * 1024))
    odd = {
        f"{MALLORY}/": "-1",
        f"{MALLORY}/33": "-1",
        "192.0.2.300": "-1",
        "192.0.2.66.": "-1",
        "192.0.2.0/24/24": "-1",
        "$nobody": "-1",
        "%2e%2e": "-1",
        MALLORY: "tomorrow",
        "192.0.2.64/30": f"@{huge}",
        "192.0.2.66/32": '{"expires": 99999999',
    }
    for member, value in odd.items():
        consul.command("kv", "put", f"{_FOLDER}{member}", value)
    machine.enforcing()
    assert machine.lets_in() == {ALICE, OPERATOR}
    assert machine.reaches(MALLORY) == "refused"
    status = machine.status()
    problems = "\n".join(status["problems"])
    assert status["enforcing"]
    assert [
        each for each in ("torn.json", "192.0.2.300", "$nobody", "192.0.2.64/30", "tomorrow") if each not in problems
    ] == []
    assert max(map(len, status["problems"])) < 400, "a value of half a megabyte is not told in full"


def test_zero_networks_nested_networks_and_the_same_grant_with_two_ends(machine: Machine) -> None:
    consul = machine.consul()
    grant(consul, {"192.0.2.0/24": time.time() + 4, "192.0.2.16/28": time.time() + 600})
    # One node's grant ends, the datacenter's goes on: the latest counts.
    now = time.time()
    consul.command("kv", "put", f"{KEYS.services}dc1/server/{SERVICE}/{ALICE}", str(int(now + 3)))
    consul.command("kv", "put", f"{KEYS.services}dc1/{SERVICE}/{ALICE}", str(int(now + 600)))
    machine.enforcing()
    wait_until(lambda: machine.reaches(MALLORY) == "refused", "the outer network's end", timeout=10, every=0.1)
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}
    machine.engineer("grant", "0.0.0.0/0", SERVICE, "--for", "10m", "--yes")
    wait_until(lambda: machine.reaches(MALLORY) == "open", "everybody")
    machine.engineer("revoke", "0.0.0.0/0", SERVICE)
    wait_until(lambda: machine.reaches(MALLORY) == "refused", "everybody's end")
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}
