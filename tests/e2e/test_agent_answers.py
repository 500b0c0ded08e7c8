"""A running agent says whether the kernel is as desired, who gets in and why, and who was refused."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from radius_bridge.policy.members import GroupRef, parse_prefix, user_group
from radius_bridge.registry.keys import Scope
from tests.e2e.dataplane.host import ALICE, BOB, SERVER, reach
from tests.e2e.machine import KEYS, MALLORY, OPERATOR, PORT, SERVICE, Machine, grant
from tests.e2e.test_reboot import unprivileged
from tests.lab.consul import ConsulServer
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

CAPABILITIES = ("net_admin", "net_raw")


@pytest.fixture(params=["ipset", "nftables"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A host whose agent runs as its unit runs it; alice is let in by way of her group and the staff's."""
    with TemporaryDirectory(prefix="rbanswers-") as disk:
        Path(disk).chmod(0o777)
        machine = Machine(Path(disk), request.param)
        machine.boot()
        try:
            with ConsulServer(namespace=machine.server.name, node="server") as consul:
                machine.configure(consul.url)
                grant(consul, {})
                staff, alice = GroupRef("staff"), user_group("alice")
                for key in (
                    KEYS.grant(Scope(), SERVICE, staff),
                    KEYS.group_member(staff, alice),
                    KEYS.group_member(alice, parse_prefix(ALICE)),
                ):
                    consul.command("kv", "put", key, "-1")
                machine.start_agent(prefix=unprivileged(*CAPABILITIES)).wait_log('"enforcing"')
                yield machine
        finally:
            machine.power_off()


def test_an_agent_answers_for_its_kernel(machine: Machine) -> None:
    backend = machine.ask("status")["backend"]
    assert machine.ask("verify") == {"differences": []}

    # Somebody lets himself in: that is put back, and told with his name where the kernel tells it.
    if backend == "nftables":
        machine.server.run("nft", f"add element inet radius_bridge rb4h.{SERVICE} {{ {MALLORY} }}")
    else:
        machine.server.run("iptables", "-D", "INPUT", "-j", "RB-INPUT")
    wait_until(lambda: bool(machine.ask("status")["repairs"]), "the repair")
    status = machine.ask("status")
    assert status["repairs"] == ({"members": 1} if backend == "nftables" else {"jump": 1})
    assert ("nft (pid " if backend == "nftables" else "iptables (pid ") in status["repaired"][0]["by"]
    assert machine.agent("verify").stdout == "the kernel is as desired\n"
    assert "put back" in machine.agent("status").stdout

    # Why somebody gets in, and why not.
    found = machine.ask(f"why {ALICE} shell")
    assert found["gets_in"]
    assert found["users"] == ["alice"]
    assert [(link["member"], link["what"]) for link in found["ways"][0]["links"]] == [
        (ALICE, "alice"),
        ("alice", "group:staff"),
        ("group:staff", f"grant {SERVICE}"),
    ]
    assert "in the failsafe networks of this host's configuration" in machine.agent("why", OPERATOR, str(PORT)).stdout
    found = machine.ask(f"why {BOB} {PORT}/tcp")
    assert not found["gets_in"]
    assert f"no member: {SERVICE} is granted to group:staff, none of which holds {BOB}" in found["reasons"]

    # Who was refused.
    for source in (BOB, BOB, MALLORY, ALICE):
        reach(machine.client, source, SERVER, PORT)
    wait_until(lambda: len(machine.ask("refused")["refused"]) == 2, "the kernel's word of both")
    last, first = machine.ask("refused")["refused"]
    assert (first["address"], first["service"], first["count"]) == (BOB, SERVICE, 2)
    assert (last["address"], last["user"]) == (MALLORY, "")
    assert machine.ask("status")["refused_from"] == {BOB: 2, MALLORY: 1}
    assert BOB in machine.agent("refused").stdout

    # The same for Prometheus.
    told = machine.agent("metrics").stdout
    assert f'radius_bridge_agent_repairs_total{{kind="{next(iter(status["repairs"]))}"}} 1\n' in told
    assert "radius_bridge_agent_programmed_members 1\n" in told
