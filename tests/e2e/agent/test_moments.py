"""Time at its worst: ends that are over on arrival, very many at once, and renewals in the last moment."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import MALLORY, OPERATOR, SERVICE, Machine, grant
from tests.lab.processes import LabError, wait_until

pytestmark = pytest.mark.e2e


def test_who_arrives_with_a_time_that_is_over_does_not_get_in(machine: Machine) -> None:
    consul = machine.consul()
    now = time.time()
    # As two clocks that differ by an hour would write them.
    grant(consul, {ALICE: now - 3600, MALLORY: now - 1, BOB: now + 3600})
    machine.enforcing()
    assert machine.lets_in() == {BOB, OPERATOR}
    assert machine.reaches(MALLORY) == "refused"


HOUR = 3600
FAKETIME = "*/faketime/libfaketimeMT.so.1"


def stepped(machine: Machine) -> Callable[[int], None]:
    """Starts an agent whose clock (CLOCK_REALTIME, by libfaketime) is moved by calling what is given (seconds)."""
    found = sorted(Path("/usr/lib").glob(FAKETIME))
    if not found:
        raise LabError("libfaketime is missing: apt-get install faketime")
    offset = machine.disk / "offset"

    def step(seconds: int) -> None:
        aside = offset.with_suffix(".new")
        aside.write_text(f"{seconds:+}\n")
        aside.rename(offset)

    step(0)
    env = {"FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    # Only the agent itself: timeouts in the kernel, Consul and engineers have the right time.
    machine.enforcing(env={"LD_PRELOAD": str(found[0]), **env})
    return step


def test_a_clock_that_steps_by_an_hour_is_followed_both_ways_and_told(machine: Machine) -> None:
    """The agent's clock is the one that steps; Consul's and the kernel's go on.

    Whoever believes a clock that is an hour late lets in for an hour longer: that clocks differ is an alarm.
    """
    consul = machine.consul()
    now = time.time()
    grant(consul, {ALICE: now + HOUR / 2, BOB: now + 2 * HOUR, MALLORY: now - HOUR / 2})
    step = stepped(machine)
    everybody = {ALICE, BOB, MALLORY}
    for offset, inside in ((0, {ALICE, BOB}), (HOUR, {BOB}), (-HOUR, everybody), (0, {ALICE, BOB})):
        step(offset)
        # An agent looks every 30 s by itself; what an engineer announces has it look at once.
        machine.engineer("grant", "203.0.113.1", SERVICE, "--for", "2h")

        def is_so(inside: set[str] = inside) -> bool:
            return {each for each in everybody if machine.reaches(each) == "open"} == inside

        wait_until(is_so, f"what is so {offset:+} s from now")
        alarms = "\n".join(machine.ask("status")["alarms"])
        assert offset == 0 or "clock" in alarms, alarms
