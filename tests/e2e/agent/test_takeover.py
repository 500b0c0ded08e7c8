"""A host moves from BEFW to us under traffic: whom both let in loses nothing, whom both refuse never gets in.

In BEFW's place stands what it programs: its chain with a set per service, ACCEPT for members, DROP for the rest, at the
head of INPUT; or its table of nftables.
"""

import json
import time

import pytest

from agent.takeover import is_running
from tests.e2e.dataplane.host import ALICE, BOB, SERVER
from tests.e2e.machine import KEYS, MALLORY, OPERATOR, PORT, SERVICE, Machine, grant
from tests.lab.processes import Process, wait_until
from tests.lab.traffic import Flood

pytestmark = pytest.mark.e2e

CHAIN = f"""*filter
:BEFW - [0:0]
-A INPUT -j BEFW
-A BEFW -m set --match-set rules_allow src -j ACCEPT
-A BEFW -m set --match-set rules_deny src -j REJECT
-A BEFW -p tcp -m multiport --dports {PORT} -m set --match-set {SERVICE} src -j ACCEPT
-A BEFW -p tcp -m multiport --dports {PORT} -j DROP
-A BEFW -p udp --dport {PORT} -m set --match-set {SERVICE} src -j ACCEPT
-A BEFW -p udp --dport {PORT} -j DROP
COMMIT
"""

TABLE = f"""add table inet befw
add set inet befw ip4_shell {{ type ipv4_addr; flags interval; auto-merge; }}
add set inet befw ip4_rules_deny {{ type ipv4_addr; flags interval; auto-merge; }}
add chain inet befw filter {{ type filter hook input priority 0; policy accept; }}
add element inet befw ip4_shell {{ {ALICE}, {OPERATOR} }}
add rule inet befw filter ip saddr @ip4_rules_deny reject
add rule inet befw filter ip saddr @ip4_shell tcp dport {{ {PORT} }} accept
"""


def befw(machine: Machine, *more: str) -> None:
    """BEFW is at work: alice and the operators get in. `more` are rules of its chain besides."""
    for name in ("rules_allow", "rules_deny", SERVICE):
        machine.server.run("ipset", "create", name, "hash:net")
    for address in (ALICE, OPERATOR):
        machine.server.run("ipset", "add", SERVICE, address)
    machine.server.run("iptables-restore", "-n", text=CHAIN.replace("COMMIT", "\n".join([*more, "COMMIT"])))


def traces(machine: Machine) -> list[str]:
    """What is in the kernel that is not ours."""
    saved = machine.server.run("iptables-save", "-t", "filter").stdout.splitlines()
    rules = [line for line in saved if line.startswith("-A ") and "RB-" not in line]
    sets = [name for name in machine.server.run("ipset", "list", "-n").stdout.split() if not name.startswith("rb")]
    tables = machine.server.run("nft", "list", "tables").stdout.splitlines()
    return [*rules, *sets, *(table for table in tables if table.endswith(" befw"))]


def test_a_running_befw_is_replaced_without_an_open_or_a_closed_moment(machine: Machine) -> None:
    befw(machine)
    if machine.backend == "nftables":
        machine.server.run("nft", "-f", "-", text=TABLE)
    with Flood(machine.client, ALICE, MALLORY, machine.server, (SERVER, PORT), pause=0.01) as flood:
        wait_until(lambda: flood.passed > 100, "traffic")
        grant(machine.consul(), {ALICE: time.time() + 600})
        machine.enforcing()
        would = machine.agent("takeover", "--dry-run")
        assert would.returncode == 0, would.stderr
        assert traces(machine)
        done = machine.agent("takeover")
        assert done.returncode == 0, done.stderr
        assert done.stdout == would.stdout.replace("would remove", "removed")
        assert traces(machine) == []
        enough = flood.passed + 1000
        wait_until(lambda: flood.passed > enough or flood.error is not None, "traffic afterwards")
    assert flood.error is None
    assert flood.tried > 1000
    assert (flood.lost, flood.leaked) == (0, 0)
    assert machine.lets_in() == {ALICE, OPERATOR}
    again = machine.agent("takeover")
    assert again.stdout == "there is nothing of BEFW on this host\n"


@pytest.mark.parametrize("machine", ["ipset"], indirect=True)
def test_befw_stays_while_we_only_observe_and_where_it_closes_more_than_we_do(machine: Machine) -> None:
    befw(machine, "-A BEFW -p tcp --dport 9000:9010 -j DROP", "-A INPUT -m set --match-set rules_allow src -j ACCEPT")
    grant(machine.consul(), {ALICE: time.time() + 600})
    before = traces(machine)
    absent = machine.agent("takeover")
    assert absent.returncode == 3
    machine.config.write_text('mode = "observe"\n' + machine.config.read_text())
    agent = machine.enforcing()
    assert machine.lets_in() == {ALICE, OPERATOR}, "BEFW decides"
    observing = machine.agent("takeover")
    assert observing.returncode == 1
    assert "only observes" in observing.stderr
    agent.terminate()
    machine.config.write_text(machine.config.read_text().removeprefix('mode = "observe"\n'))
    machine.enforcing()
    refused = machine.agent("takeover")
    assert refused.returncode == 1
    assert "9000:9010/tcp" in refused.stderr
    assert traces(machine) == before
    done = machine.agent("takeover", "--anyway")
    assert done.returncode == 0, done.stderr
    assert [each for each in traces(machine) if "rules_allow" not in each] == []
    assert "rules_allow" in traces(machine), "somebody else looks into this set"
    assert machine.reaches(BOB) == "refused"


@pytest.mark.parametrize("machine", ["ipset"], indirect=True)
def test_befws_agent_is_known_by_its_process_in_the_same_network_namespace(machine: Machine) -> None:
    for process in ("thread-self", "4242"):
        (machine.disk / process / "ns").mkdir(parents=True)
        (machine.disk / process / "ns" / "net").symlink_to("net:[1]")
    (machine.disk / "4242" / "comm").write_text("befw-firewalld\n")
    assert is_running(machine.disk)
    (machine.disk / "4242" / "comm").write_text("another\n")
    assert not is_running(machine.disk)
    (machine.disk / "4242" / "comm").write_text("befw-firewalld\n")
    (machine.disk / "4242" / "ns" / "net").unlink()
    (machine.disk / "4242" / "ns" / "net").symlink_to("net:[2]")
    assert not is_running(machine.disk)


def running_befw(machine: Machine) -> Process:
    """BEFW's agent at work: every interval it builds its sets aside, swaps them in and writes its chain anew.

    Its jump it does not look after: that is the site's.
    """
    befw(machine)
    rules = machine.disk / "befw.rules"
    rules.write_text("".join(line for line in CHAIN.splitlines(keepends=True) if not line.startswith("-A INPUT")))
    members = "".join(f"add befw_tmp {address}\n" for address in (ALICE, OPERATOR))
    (machine.disk / "befw.sets").write_text(
        f"create befw_tmp hash:net\n{members}swap befw_tmp {SERVICE}\ndestroy befw_tmp\n"
    )
    program = machine.disk / "befw-firewalld"
    program.write_text(
        f"""#!/bin/sh
while :; do
  ipset restore <{machine.disk}/befw.sets || echo sets
  iptables-restore -n -w 5 <{rules} || echo rules
  echo written
  sleep 0.2
done
"""
    )
    program.chmod(0o755)
    return Process("befw", [program], log=machine.disk / "befw.log", namespace=machine.server.name)


def test_befw_writes_its_rules_all_the_time_beside_ours_and_goes_without_an_open_or_a_closed_moment(
    machine: Machine,
) -> None:
    process = running_befw(machine)
    with Flood(machine.client, ALICE, MALLORY, machine.server, (SERVER, PORT), pause=0.01) as flood:
        process.start().wait_log("written")
        try:
            wait_until(lambda: flood.passed > 100, "traffic")
            grant(machine.consul(), {ALICE: time.time() + 600})
            machine.enforcing()
            written = process.read_log().count("written")
            wait_until(lambda: process.read_log().count("written") > written + 5, "BEFW beside us", timeout=30)
            status = machine.ask("status")
            assert (status["repairs"], status["alarms"]) == ({}, []), "what BEFW does is none of our business"
            early = machine.agent("takeover")
            assert early.returncode == 1
            assert "befw-firewalld is running" in early.stderr
            assert traces(machine)
        finally:
            process.kill()
        done = machine.agent("takeover")
        assert done.returncode == 0, done.stderr
        enough = flood.passed + 500
        wait_until(lambda: flood.passed > enough or flood.error is not None, "traffic afterwards")
    assert flood.error is None
    assert (flood.lost, flood.leaked) == (0, 0)
    assert traces(machine) == []
    assert machine.lets_in() == {ALICE, OPERATOR}
    assert {"sets", "rules"}.isdisjoint(process.read_log().split())


def test_what_befws_tools_write_is_enforced(machine: Machine) -> None:
    """Service tags, service files, three scopes, groups, and values of any age."""
    (machine.disk / "services.d" / "shell.json").write_text(
        json.dumps({"name": "Shell", "mode": "default", "protocol": "tcp", "ports": [f"{PORT}/tcp", {"port": 33}]})
    )
    consul = machine.consul()
    tagged = machine.disk / "web.json"
    tagged.write_text(json.dumps({"service": {"name": "web", "port": 80, "tags": ["befw", "81/tcp", "8080:8090/udp"]}}))
    consul.command("services", "register", str(tagged))
    now = int(time.time())
    grant(consul, {})
    for key, value in {
        f"$service$/dc1/server/{SERVICE}/$staff$": "-1",
        f"$service$/dc1/{SERVICE}/{BOB}": str(now + 600),
        f"$service$/{SERVICE}/198.51.100.0/24": "-1",
        f"$service$/dc1/elsewhere/{SERVICE}/{MALLORY}": "-1",
        f"$service$/dc2/{SERVICE}/{MALLORY}": "-1",
        f"$service$/{SERVICE}/{MALLORY}": "1514764800",
        f"$alias$/$staff$/{ALICE}": "-100",
        f"$alias$/$staff$/{MALLORY}": str(now - 1),
        "$service$/web_tcp_80/$staff$": "4102444800",
    }.items():
        consul.command("kv", "put", f"{KEYS.root}/{key}", value)
    machine.enforcing()
    assert machine.lets_in() == {ALICE, BOB, OPERATOR}
    assert machine.reaches(MALLORY) == "refused"
    services = {each["name"]: (each["ports"], each["members"]) for each in machine.status()["services"]}
    assert services == {
        SERVICE: ([f"{PORT}/tcp", "33/tcp"], 3),
        "web_tcp_80": (["80/tcp", "81/tcp", "8080:8090/udp"], 1),
    }
