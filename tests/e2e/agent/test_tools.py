"""The kernel's own programs, and others that use them: slow, hanging, locked, or at work at the same time."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import MALLORY, OPERATOR, SERVICE, Machine, grant
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

TOOLS = ("nft", "iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")


class Tools:
    """nft and iptables as the agent finds them: they hang, or take their time, when told to."""

    def __init__(self, folder: Path) -> None:
        self._delay = folder / "delay"
        self._calls = folder / "calls"
        self._folder = folder / "tools"
        self._folder.mkdir()
        for name in TOOLS:
            tool = self._folder / name
            wait = f'[ ! -e "{self._delay}" ] || {{ echo >> "{self._calls}"; sleep "$(cat "{self._delay}")"; }}'
            tool.write_text(f'#!/bin/sh\n{wait}\nexec {shutil.which(name)} "$@"\n')
            tool.chmod(0o755)

    @property
    def env(self) -> Mapping[str, str]:
        """For the agent."""
        return {"PATH": f"{self._folder}:{os.environ['PATH']}"}

    def calls(self) -> int:
        """How many began to hang so far."""
        return len(self._calls.read_text()) if self._calls.exists() else 0

    @contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Every call takes so much longer."""
        self._delay.write_text(str(seconds))
        try:
            yield
        finally:
            self._delay.unlink()


GIVEN_UP = 20.0
"""Seconds after which the agent gives up a call."""


def test_tools_that_hang_keep_nobody_from_coming_and_going(machine: Machine, tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    consul = machine.consul()
    grant(consul, {ALICE: time.time() + 600})
    machine.enforcing(env=tools.env)
    with tools.delayed(300):
        machine.engineer("grant", BOB, SERVICE, "--for", "10m")
        wait_until(lambda: machine.reaches(BOB) == "open", "bob to be let in", timeout=GIVEN_UP + 5, every=0.05)
        # From here on something hangs.
        wait_until(lambda: tools.calls() > 0, "the agent to look at its rules", timeout=40, every=0.05)
        machine.engineer("revoke", BOB, SERVICE)
        took = wait_until(lambda: machine.reaches(BOB) == "refused", "bob to be kept out", timeout=45, every=0.05)
        assert took < GIVEN_UP + 5
        machine.engineer("block", MALLORY, "--for", "10m")
        assert "kernel" in machine.status()["errors"]
        assert machine.lets_in() == {ALICE, OPERATOR}
    wait_until(lambda: "kernel" not in machine.status()["errors"], "the tools to work again", timeout=60, every=0.2)
    assert machine.lets_in() == {ALICE, OPERATOR}
