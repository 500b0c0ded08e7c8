"""A site's own template of rules, as the kernel takes it or refuses it; and what `render` shows."""

import subprocess
from pathlib import Path

import pytest

from agent.dataplane.choose import TEMPLATES
from agent.dataplane.template import built_in, site_template
from tests.e2e.dataplane.host import ALICE, BOB, OPEN_PORT, SERVER, Host, reach
from tests.lab.processes import BIN

pytestmark = pytest.mark.e2e

AFTER = {"ipset": "-A RB-INPUT -i lo -j RETURN\n", "nftables": '\t\tiifname "lo" accept\n'}
OWN = {
    "ipset": f"-A RB-INPUT -p tcp -m tcp --dport {OPEN_PORT} -j REJECT --reject-with tcp-reset\n",
    "nftables": f"\t\ttcp dport {OPEN_PORT} counter reject with tcp reset\n",
}


def _use(host: Host, tmp_path: Path, own: str) -> None:
    name = host.dataplane.name
    path = tmp_path / "own"
    path.write_text(built_in(TEMPLATES[name]).text.replace(AFTER[name], AFTER[name] + own))
    host.restart_agent(site_template(path, TEMPLATES[name]))


def test_a_sites_own_rules_are_there_beside_ours(host: Host, tmp_path: Path) -> None:
    host.listen()
    host.listen(OPEN_PORT)
    host.enforce({ALICE: 60})
    _use(host, tmp_path, OWN[host.dataplane.name])
    host.enforce({ALICE: 60})
    assert reach(host.client, ALICE, SERVER, OPEN_PORT) == "refused"
    assert reach(host.client, ALICE, SERVER) == "open"
    assert reach(host.client, BOB, SERVER) == "refused"
    assert host.dataplane.alarms() == []
    assert host.differences() == []


def test_a_template_that_the_kernel_refuses_is_told_and_the_built_in_one_stays(host: Host, tmp_path: Path) -> None:
    host.listen()
    _use(host, tmp_path, "-A RB-INPUT -j NOWHERE\n")
    host.enforce({ALICE: 60})
    assert reach(host.client, ALICE, SERVER) == "open"
    assert reach(host.client, BOB, SERVER) == "refused"
    alarms = host.dataplane.alarms()
    assert alarms
    assert all(f"template {tmp_path}/own is refused, the built-in one is used: " in alarm for alarm in alarms)
    assert host.differences() == []


@pytest.mark.parametrize("backend", list(TEMPLATES))
def test_render_shows_what_would_be_programmed_and_needs_no_privileges(tmp_path: Path, backend: str) -> None:
    (tmp_path / "ssh.json").write_text('{"name": "ssh", "port": 22}')
    (tmp_path / "agent.toml").write_text(
        f'services_dir = "{tmp_path}"\nset.scanners = "DROP"\n[consul]\nurl = "http://127.0.0.1:9"\n'
    )
    argv: list[str | Path] = [
        BIN / "radius-bridge-agent",
        "render",
        "-c",
        tmp_path / "agent.toml",
        "--backend",
        backend,
    ]
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run([*bare, *argv], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.startswith("# without the services of the Consul agent, which does not answer")
    assert "rb4h.ssh_tcp_22" in done.stdout
    assert "rb4n.scanners" in done.stdout
    shown = subprocess.run(
        [BIN / "radius-bridge-agent", "template", backend], capture_output=True, text=True, check=True, timeout=30
    )
    assert shown.stdout == built_in(TEMPLATES[backend]).text


@pytest.mark.parametrize("host", ["nftables"], indirect=True)
def test_what_render_shows_is_what_the_kernels_tools_take(host: Host, tmp_path: Path) -> None:
    (tmp_path / "ssh.json").write_text('{"name": "ssh", "ports": [22, "53/udp", "1000:2000"]}')
    (tmp_path / "agent.toml").write_text(f'services_dir = "{tmp_path}"\npolicy = "closed"\n')
    argv: list[str | Path] = [
        BIN / "radius-bridge-agent",
        "render",
        "-c",
        tmp_path / "agent.toml",
        "--backend",
        "nftables",
    ]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    host.server.run("nft", "-c", "-f", "-", text=shown)
