"""The agent's commands as somebody meets them who has never seen it: what they do, and the way out of each error."""

import json
import time

import pytest

from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import OPERATOR, SERVICE, Machine, grant
from tests.lab.processes import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("machine", ["ipset"], indirect=True)]


@pytest.mark.parametrize(
    "command", [("status",), ("verify",), ("why", ALICE, "shell"), ("refused",), ("metrics",), ("forget", SERVICE)]
)
def test_without_an_agent_its_exit_code_says_so_and_the_message_how_to_start_it(
    machine: Machine, command: tuple[str, ...]
) -> None:
    machine.configure(machine.url)
    done = machine.agent(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no agent answers at" in done.stderr
    assert "systemctl start radius-bridge-agent" in done.stderr


def test_a_host_is_looked_at_a_service_is_forgotten_and_all_is_removed(machine: Machine) -> None:
    grant(machine.consul(), {ALICE: time.time() + 600})
    agent = machine.enforcing()
    for command, code, text in (
        (("verify",), 0, "the kernel is as desired"),
        (("why", ALICE, "shell"), 0, "a member of the service"),
        (("why", BOB, "shell"), 1, "no member"),
        (("why", "alice", "shell"), 2, "radius-bridge who NAME"),
        (("why", "10.0.0.0/8", "shell"), 2, "ask for one address"),
        (("why", ALICE, "nope"), 2, f"it protects: {SERVICE}"),
        (("forget", "nope"), 1, "services that are listed no more: none"),
        (("forget", SERVICE), 1, "take it away there first"),
        (("uninstall",), 1, "systemctl stop radius-bridge-agent"),
        (("run",), 1, "one writer at a time"),
        (("stats",), 2, "Did you mean 'status'?"),
    ):
        done = machine.agent(*command)
        assert (done.returncode, text in done.stdout + done.stderr) == (code, True), (command, done)

    (machine.disk / "services.d" / "shell.json").unlink()
    wait_until(lambda: SERVICE in machine.ask("status")["absent_services"], "the look that does not find it")
    assert f"radius-bridge-agent forget {SERVICE}" in machine.agent("status").stdout
    assert f"listed no more: {SERVICE}" in machine.agent("forget", "shell").stderr
    assert machine.lets_in() == {ALICE, OPERATOR}, "it is protected for a day"
    assert machine.agent("forget", SERVICE).returncode == 0
    wait_until(lambda: machine.lets_in() == {ALICE, BOB, OPERATOR}, "its ports to be open")

    agent.terminate()
    removed = machine.agent("uninstall")
    assert (removed.returncode, "no longer protected" in removed.stdout) == (0, True), removed
    assert "RB-" not in machine.server.run("iptables-save").stdout
    assert machine.server.run("ipset", "list", "-n").stdout == ""
    again = machine.agent("uninstall")
    assert (again.returncode, "nothing of it is left" in again.stdout) == (0, True), again


def test_verify_says_with_its_exit_code_and_by_name_what_is_not_as_desired(machine: Machine) -> None:
    grant(machine.consul(), {ALICE: time.time() + 600})
    machine.config.write_text(machine.config.read_text() + "[integrity]\nevery = 60\n")
    machine.enforcing()
    assert machine.agent("verify").returncode == 0
    machine.server.run("ipset", "add", f"rb4h.{SERVICE}", BOB, "timeout", "600")
    shown = machine.agent("verify")
    assert (shown.returncode, shown.stdout) == (1, f"rb4h.{SERVICE}: not ours: {BOB}\n")
    (difference,) = json.loads(machine.agent("verify", "--json").stdout)["differences"]
    assert (difference["what"], difference["extra"]) == (f"rb4h.{SERVICE}", [BOB])
