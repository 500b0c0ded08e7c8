"""What engineers say of everything at once: break-glass, and a segment that is cut off on chosen hosts."""

import time

import pytest

from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import OPERATOR, Machine, grant
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e


def test_break_glass_lets_in_is_logged_and_ends_by_itself(machine: Machine) -> None:
    grant(machine.consul(), {ALICE: time.time() + 600})
    agent = machine.enforcing()
    machine.engineer("allow", BOB, "--for", "15s")
    wait_until(lambda: machine.reaches(BOB) == "open", "bob to be allowed")
    agent.wait_log('"override"')
    assert f'"of": "rules_allow", "member": "{BOB}"' in agent.read_log()
    wait_until(lambda: machine.reaches(BOB) == "refused", "the end of his time", timeout=20)


def test_a_segment_is_cut_off_where_it_is_said_and_nowhere_else(machine: Machine) -> None:
    grant(machine.consul(), {ALICE: time.time() + 600, BOB: time.time() + 600})
    machine.enforcing()
    machine.engineer("group", "add", "segment", "192.0.2.0/28")  # alice is in it
    machine.engineer("block", "group:segment", "--on", "elsewhere")
    machine.engineer("block", "group:segment", "--dc", "dc2")
    machine.engineer("grant", "203.0.113.1", "shell_tcp_2222")
    wait_until(lambda: machine.ask("status")["services"][0]["members"] == 3, "what was said before")
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}
    machine.engineer("block", "group:segment", "--on", "server")
    wait_until(lambda: machine.lets_in() == {BOB, OPERATOR}, "the segment to be cut off")
    machine.engineer("unblock", "group:segment", "--on", "server")
    wait_until(lambda: machine.lets_in() == {ALICE, BOB, OPERATOR}, "it to be back")
