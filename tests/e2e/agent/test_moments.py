"""Time at its worst: ends that are over on arrival, very many at once, and renewals in the last moment."""

import asyncio
import time

import pytest

from agent.enforce import Enforcer
from agent.run import dataplane_of
from agent.settings import AgentSettings
from radius_bridge import configfile
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Scope
from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import MALLORY, OPERATOR, Machine, grant
from tests.integration.registry.running import running
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e


def test_who_arrives_with_a_time_that_is_over_does_not_get_in(machine: Machine) -> None:
    consul = machine.consul()
    now = time.time()
    # As two clocks that differ by an hour would write them.
    grant(consul, {ALICE: now - 3600, MALLORY: now - 1, BOB: now + 3600})
    machine.enforcing()
    assert machine.lets_in() == {BOB, OPERATOR}
    assert machine.reaches(MALLORY) == "refused"


HOUR = 3600.0


def test_a_clock_that_steps_by_an_hour_is_followed_both_ways(machine: Machine) -> None:
    """The agent's clock is the one that steps, injected; Consul's and the kernel's go on.

    Whoever believes a clock that is an hour late lets in for an hour longer: that clocks differ is an alarm.
    """
    consul = machine.consul()
    grant(consul, {ALICE: time.time() + HOUR / 2, BOB: time.time() + 2 * HOUR, MALLORY: time.time() - HOUR / 2})
    offset = 0.0

    async def steps() -> None:
        nonlocal offset
        settings = configfile.read(machine.config, AgentSettings)
        scope = Scope("dc1", "server")
        with dataplane_of(settings) as dataplane:
            async with Consul(settings.consul) as client:
                ready = asyncio.Event()
                agent = Enforcer(
                    settings, scope, client, dataplane, ready.set, asyncio.Event(), clock=lambda: time.time() + offset
                )
                async with running(agent.run()):
                    await asyncio.wait_for(ready.wait(), 20)
                    everybody = {ALICE, BOB, MALLORY}
                    for offset, inside in (
                        (0.0, {ALICE, BOB}),
                        (HOUR, {BOB}),
                        (-HOUR, everybody),
                        (0.0, {ALICE, BOB}),
                    ):
                        agent.learning.wake()  # as it does every 30 s by itself

                        def is_so(inside: set[str] = inside) -> bool:
                            return {each for each in everybody if machine.reaches(each) == "open"} == inside

                        await asyncio.to_thread(wait_until, is_so, f"what is so {offset:+} s from now")

    machine.server.call(lambda: asyncio.run(steps()))
