"""The way into an existing fleet: who would have been refused is told, and nobody is."""

import time

import pytest

from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import MALLORY, OPERATOR, SERVICE, Machine, grant
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e


def _refused(machine: Machine) -> dict[str, int]:
    answer = machine.ask("refused")
    assert answer["observe"]
    return {each["address"]: each["count"] for each in answer["refused"]}


def test_who_would_have_been_refused_is_told_and_gets_in(machine: Machine) -> None:
    consul = machine.consul()
    machine.config.write_text('mode = "observe"\n' + machine.config.read_text())
    grant(consul, {ALICE: time.time() + 600})
    agent = machine.enforcing()
    for source in (ALICE, OPERATOR, BOB, BOB, MALLORY):
        assert machine.reaches(source) == "open"
    wait_until(lambda: _refused(machine) == {BOB: 2, MALLORY: 1}, "the kernel's word of both")
    shown = machine.agent("refused").stdout
    assert "nobody is refused; these would have been" in shown
    assert SERVICE in shown

    assert sum(machine.ask("status")["refused"].values()) == 3
    status = machine.agent("status")
    assert "nothing is refused; below is who would have been" in status.stdout
    assert machine.ask("status")["refused_from"] == {BOB: 2, MALLORY: 1}
    why = machine.agent("why", BOB, SERVICE)
    assert why.returncode == 1
    assert "would not get in" in why.stdout

    # The same host enforces after a restart, and what was counted as a wish is fact.
    agent.terminate()
    machine.config.write_text(machine.config.read_text().removeprefix('mode = "observe"\n'))
    machine.enforcing()
    assert machine.lets_in() == {ALICE, OPERATOR}
