"""systemd itself starts the agent, from config/systemd as it is: with its user, its two capabilities and its walls."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.dataplane.host import ALICE, BOB
from tests.e2e.machine import OPERATOR, PORT, Machine, grant
from tests.lab.consul import ConsulServer
from tests.lab.processes import PROJECT, wait_until
from tests.lab.systemd import Systemd

pytestmark = pytest.mark.e2e

CONFIG = PROJECT / "config" / "systemd"
AGENT = "radius-bridge-agent.service"
RESTORE = "radius-bridge-agent-restore.service"
NET_ADMIN, NET_RAW = 1 << 12, 1 << 13


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    disk = tmp_path / "systemd"
    disk.mkdir()
    with Systemd(disk) as systemd:
        systemd.install([CONFIG / AGENT, CONFIG / RESTORE], "radius-bridge-agent")
        for kind in ("sysusers", "tmpfiles"):
            text = (CONFIG / f"radius-bridge-agent.{kind}.conf").read_text()
            systemd.write(f"etc/{kind}.d/radius-bridge-agent.conf", text)
        yield systemd


def configure(systemd: Systemd, backend: str, url: str) -> None:
    """Only what the lab needs: everything else is where the units have it."""
    systemd.write(
        "etc/radius-bridge-agent/agent.toml",
        f"""node = "server"
datacenter = "dc1"
backend = "{backend}"
[consul]
url = "{url}"
[[failsafe]]
networks = ["{OPERATOR}/32"]
ports = ["{PORT}/tcp"]
""",
    )
    shell = f'{{"name": "shell", "ports": ["{PORT}/tcp"]}}'
    systemd.write("etc/radius-bridge-agent/services.d/shell.json", shell)


def started(systemd: Systemd, machine: Machine) -> int:
    """Boots the machine until its agent is at work; gives the agent's process, as the machine numbers it."""
    systemd.boot(machine.server.name)
    systemd.wait_active(AGENT)
    return int(systemd.show(AGENT, "MainPID")["MainPID"])


def test_systemd_starts_the_agent_with_its_capabilities_and_after_a_reboot_what_was_enforced_is(
    machine: Machine, systemd: Systemd
) -> None:
    with ConsulServer(namespace=machine.server.name, node="server") as consul:
        configure(systemd, machine.backend, consul.url)
        grant(consul, {ALICE: time.time() + 600})
        pid = started(systemd, machine)
        assert machine.lets_in() == {ALICE, OPERATOR}

        facts = systemd.run("cat", f"/proc/{pid}/status").stdout
        process = dict(line.split(":\t", 1) for line in facts.splitlines() if ":\t" in line)
        assert process["Uid"].split()[0] != "0"
        for each in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
            assert int(process[each], 16) == NET_ADMIN | NET_RAW
        assert process["NoNewPrivs"] == "1"
        program = "/opt/radius-bridge/bin/radius-bridge-agent"
        assert systemd.run("env", "LD_LIBRARY_PATH=/opt/python/lib", program, "verify").stdout == (
            "the kernel is as desired\n"
        )
        written = systemd.root / "var/lib/radius-bridge-agent/state"
        wait_until(lambda: written.exists() and ALICE in written.read_text(), "the state on disk")
        assert systemd.run("systemctl", "reload", AGENT).returncode == 0
        assert systemd.run("systemctl", "stop", AGENT).returncode == 0
        assert machine.lets_in() == {ALICE, OPERATOR}, "stopping leaves the rules"
    systemd.power_off()

    machine.boot()
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}, "a new kernel"
    started(systemd, machine)
    assert machine.lets_in() == {ALICE, OPERATOR}, "there is no Consul"
    assert systemd.show(RESTORE, "Result", "ActiveState") == {"Result": "success", "ActiveState": "active"}
    order = {each: systemd.show(each, "ActiveEnterTimestampMonotonic") for each in (RESTORE, "network-pre.target")}
    restored, network = (int(each["ActiveEnterTimestampMonotonic"]) for each in order.values())
    assert 0 < restored <= network


@pytest.mark.parametrize("machine", ["ipset"], indirect=True)
def test_systemd_never_gives_up_starting_the_agent(machine: Machine, systemd: Systemd) -> None:
    configure(systemd, machine.backend, "http://127.0.0.1:9")
    systemd.write("etc/radius-bridge-agent/services.d/shell.json", "")
    lock = "var/lib/radius-bridge-agent/lock"
    systemd.write(f"{lock}/in-the-way", "")
    systemd.boot(machine.server.name)
    seen = 0

    def restarts() -> int:
        nonlocal seen
        seen = max(seen, int(systemd.show(AGENT, "NRestarts").get("NRestarts") or 0))
        return seen

    wait_until(lambda: restarts() >= 6, "six starts", timeout=50, every=0.2)
