"""Nothing is left but the kernel, and the port closes when the login's time is over."""

import time

from tests.lab.demo.login import attributes
from tests.lab.demo.show import NotAsExpected, Seen
from tests.lab.demo.stage import Stage
from tests.lab.processes import wait_until
from tests.lab.site import ALICE
from tests.lab.tcp import End

LEASE = 6
"""Seconds that the login lasts."""


def play(stage: Stage) -> None:
    """Plays it; nothing works afterwards."""
    alice = stage.seat(ALICE)
    stage.grant("alice")
    stage.accounting(f"alice logs in for {LEASE} s", attributes(ALICE, "Start", "a2", LEASE))
    began = stage.said
    stage.opens("alice connects", alice)
    with stage.connection(alice) as live:
        stage.timed("kill -9 bridge, Consul and agent", "all dead", lambda: _kill(stage))
        stage.lives("alice's connection, with all of them dead", live)
        stage.show.step(
            "alice's connection when the login's time is over",
            f"cut by the kernel, at most {LEASE} s after login",
            lambda: _cut_by_time(live, began),
        )
    stage.refused("alice connects", alice)


def _kill(stage: Stage) -> str:
    victims = (stage.site.bridge, stage.site.consul, stage.site.agent)
    for part in victims:
        part.kill()
    if alive := [part.name for part in victims if part.is_running]:
        raise NotAsExpected(f"{', '.join(alive)} alive")
    return "all dead"


def _cut_by_time(live: End, began: float) -> Seen:
    deadline = began + LEASE + 0.5
    wait_until(lambda: bool(live.ended) or time.monotonic() > deadline, "the cut", timeout=LEASE + 3)
    after = live.last_received - began
    # Registry and kernel each cut fractions of a second off: it may be two seconds less, never more.
    if not LEASE - 2 <= after <= LEASE:
        raise NotAsExpected(f"last byte {after:.1f} s after login")
    return f"cut ({live.ended or 'silent'})", after
