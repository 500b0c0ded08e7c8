"""The engineers' commands, run as engineers run them, against a real Consul."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from radius_bridge.identity.bindings import Binding, Claim, Leased
from radius_bridge.identity.events import Kind
from radius_bridge.identity.sessions import Session
from radius_bridge.policy.members import Prefix
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.records import encode
from radius_bridge.registry.settings import ConsulSettings
from tests.lab.consul import ConsulServer
from tests.lab.processes import BIN, Process, run, wait_until
from tests.registry.events import event

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def consul() -> Iterator[ConsulServer]:
    with ConsulServer(node="Web1.example") as server:
        yield server


@pytest.fixture
def root() -> str:
    """A root of its own for each test."""
    return f"befw-{time.monotonic_ns()}"


class Engineer:
    """Runs `radius-bridge …` and looks at what it did."""

    def __init__(self, consul: ConsulServer, root: str) -> None:
        self.env = {"CONSUL_HTTP_ADDR": consul.url.removeprefix("http://"), "RADIUS_BRIDGE_ROOT": root}
        self.root = root

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([BIN / "radius-bridge", *arguments], env=self.env)

    def put(self, key: str, value: bytes) -> None:
        """Writes a record below the root."""
        run(["consul", "kv", "put", f"{self.root}/{key}", value.decode()], env=self.env)

    def stored(self) -> dict[str, str]:
        """What stands below the root, without the sentinel and the announcements."""
        shown = run(["consul", "kv", "get", "-recurse", self.root], env=self.env).stdout
        pairs = (line.removeprefix(f"{self.root}/").rsplit(":", 1) for line in shown.splitlines())
        return {key: value for key, value in pairs if not key.startswith(("$meta$", "$changes$"))}


@pytest.fixture
def engineer(consul: ConsulServer, root: str) -> Engineer:
    return Engineer(consul, root)


def test_a_grant_is_a_key_as_befw_has_it_with_its_expiry(engineer: Engineer) -> None:
    before = int(time.time())
    done = engineer("grant", "alice", "ssh_tcp_22", "--for", "8h")
    assert done.returncode == 0, done.stderr
    ((key, value),) = engineer.stored().items()
    assert key == "$service$/ssh_tcp_22/$user.alice$"
    assert before + 8 * 3600 <= int(value) <= time.time() + 8 * 3600
    assert "alice may reach ssh_tcp_22 (everywhere), until" in done.stdout


def test_grants_for_good_on_a_node_and_in_a_datacenter(engineer: Engineer) -> None:
    assert engineer("grant", "group:staff", "SSH_tcp_22", "--on", "Web1").returncode == 0
    assert engineer("grant", "10.0.0.0/24", "ssh_tcp_22", "--dc", "dc7").returncode == 0
    assert engineer("grant", "a/b", "ssh_tcp_22").returncode == 2
    assert engineer("grant", "user:a/b", "ssh_tcp_22").returncode == 0
    assert engineer.stored() == {
        "$service$/dc1/web1/ssh_tcp_22/$staff$": "-1",
        "$service$/dc7/ssh_tcp_22/10.0.0.0/24": "-1",
        "$service$/ssh_tcp_22/$user.a%2Fb$": "-1",
    }
    listed = json.loads(engineer("grants", "--json").stdout)
    assert {(g["who"], g["dc"], g["node"], g["expires"]) for g in listed} == {
        ("group:staff", "dc1", "web1", None),
        ("10.0.0.0/24", "dc7", None, None),
        ("user:a/b", None, None, None),
    }
    assert "group:staff" in engineer("grants", "ssh_tcp_22").stdout
    assert "no grants" in engineer("grants", "web_tcp_80").stdout


def test_revoke_takes_back_exactly_what_was_granted(engineer: Engineer) -> None:
    engineer("grant", "alice", "ssh_tcp_22")
    engineer("grant", "alice", "ssh_tcp_22", "--dc", "dc1")
    assert engineer("revoke", "alice", "ssh_tcp_22").returncode == 0
    assert engineer.stored() == {"$service$/dc1/ssh_tcp_22/$user.alice$": "-1"}
    again = engineer("revoke", "alice", "ssh_tcp_22")
    assert again.returncode == 1
    assert "has no grant" in again.stderr


def test_a_segment_is_blocked_on_a_node_or_in_a_datacenter_and_freed_in_exactly_that_scope(engineer: Engineer) -> None:
    for where, said in ((("--on", "web1"), "dc1/web1"), (("--dc", "dc2"), "dc2"), ((), "")):
        done = engineer("block", "group:segment", *where)
        assert done.returncode == 0, done.stderr
        assert f"group:segment is blocked{f' ({said})' if said else ''}, for good" in done.stdout
    ours = {f"$ipset$/{where}rules_deny/$segment$": "-1" for where in ("dc1/web1/", "dc2/", "")}
    assert engineer.stored() == ours
    assert engineer("unblock", "group:segment", "--dc", "dc2").returncode == 0
    assert "is not blocked (dc2)" in engineer("unblock", "group:segment", "--dc", "dc2").stderr
    assert engineer.stored().keys() == ours.keys() - {"$ipset$/dc2/rules_deny/$segment$"}


def test_break_glass_has_an_end_and_is_taken_back(engineer: Engineer) -> None:
    endless = engineer("allow", "group:oncall")
    assert (endless.returncode, "--for 1h" in endless.stderr) == (2, True)
    done = engineer("allow", "group:oncall", "--for", "1h")
    assert done.returncode == 0, done.stderr
    assert "group:oncall may reach everything, until " in done.stdout
    ((key, value),) = engineer.stored().items()
    assert key == "$ipset$/rules_allow/$oncall$"
    assert 3500 < int(value) - time.time() <= 3600
    assert engineer("disallow", "group:oncall").returncode == 0
    assert engineer.stored() == {}
    assert "is not allowed everything" in engineer("disallow", "group:oncall").stderr


def test_groups_are_filled_shown_and_emptied(engineer: Engineer) -> None:
    assert engineer("group", "add", "staff", "alice", "--for", "1h").returncode == 0
    assert engineer("group", "add", "staff", "group:devs").returncode == 0
    shown = json.loads(engineer("group", "show", "staff", "--json").stdout)
    assert [entry["member"] for entry in shown] == ["alice", "group:devs"]
    assert engineer("group", "remove", "staff", "alice").returncode == 0
    assert engineer("group", "remove", "staff", "alice").returncode == 1
    assert engineer.stored() == {"$alias$/$staff$/$devs$": "-1"}
    assert engineer("group", "show", "nobody").returncode == 1


def test_the_groups_that_the_bridge_writes_are_not_for_engineers(engineer: Engineer) -> None:
    refused = engineer("group", "add", "user.alice", "10.0.0.1")
    assert refused.returncode == 2
    assert "written by the bridge" in refused.stderr
    assert engineer.stored() == {}


def test_who_shows_live_bindings_by_user_address_and_network(engineer: Engineer) -> None:
    now = time.time()
    mac = "02:00:00:00:00:01"
    claims = {
        "sw1/1": Claim("alice", now - 60, now - 60, now + 600, now + 600, mac=mac),
        "sw1/0": Claim("bob", now - 900, now - 900, now + 600, now + 600, ended=now - 700),
    }
    lease = Leased(now - 50, now - 50, now + 300, source="kea")
    session = Session(
        "alice", now - 60, now - 60, now - 60, now - 60, "campus", 600, 600, mac=mac, addresses=("10.0.0.1",)
    )
    waiting = Session("carol", now - 5, now - 5, now - 5, now - 5, "campus", 600, 600)
    engineer.put("$binding$/10.0.0.1", encode(Binding(claims, {mac: lease})))
    engineer.put("$binding$/10.0.0.2", b"garbage")
    engineer.put("$session$/sw1/1", encode(session))
    engineer.put("$session$/sw1/2", encode(waiting))
    for asked in (
        ["alice"],
        ["10.0.0.1"],
        ["10.0.0.0/24"],
        ["0200.0000.0001"],
        ["02-00-00-00-00-01"],
        ["sw1/1"],
        ["1"],
    ):
        done = engineer("who", *asked, "--json")
        (row,) = json.loads(done.stdout)
        assert (row["user"], row["address"], row["nas"], row["mac"]) == ("alice", "10.0.0.1", "sw1", mac)
        assert (row["source"], row["lease"]) == ("campus", "kea")
        assert row["since"] == pytest.approx(now - 60)
        assert row["expires"] == pytest.approx(now + 300)
    for asked in ([], ["sw1"]):
        rows = json.loads(engineer("who", *asked, "--json").stdout)
        assert [(row["user"], row["address"]) for row in rows] == [("alice", "10.0.0.1"), ("carol", "")]
    assert "no address yet" in engineer("who", "carol").stdout
    assert "10.0.0.2: no binding record" in engineer("who").stderr
    assert engineer("who", "bob").returncode == 1
    assert engineer("who", "10.0.0.9").returncode == 1


def test_tail_follows_logins_and_logouts_and_ends_cleanly(
    consul: ConsulServer, engineer: Engineer, tmp_path: Path
) -> None:
    announced = tmp_path / "tail.log"
    engineer.put("$meta$", b'{"schema":1,"generation":"g"}')
    shown = Process("tail", [BIN / "radius-bridge", "tail", "--json"], log=announced, env=engineer.env)
    shown.start()

    async def login_and_logout() -> None:
        settings = ConsulSettings(url=consul.url)
        async with Consul(settings) as connection, Lanes(connection, Keys(engineer.root)) as lanes:
            number = 0
            # The first ones may come before it looks.
            while "login" not in announced.read_text():
                number += 1
                at = time.time()
                await lanes.submit(
                    event(Kind.START, "alice", at, Prefix(4, 0x0A000000 + number, 32), session=f"n/{number}")
                )
                await asyncio.sleep(0.05)
            await lanes.submit(event(Kind.STOP, "alice", time.time(), session=f"n/{number}"))
            await lanes.drain(5)

    asyncio.run(login_and_logout())
    wait_until(lambda: "logout" in announced.read_text(), "the logout to be told")
    os.kill(shown.pid, signal.SIGINT)
    wait_until(lambda: not shown.is_running, "the end")
    assert shown.terminate() == 0, "it had ended well"
    lines = [json.loads(line) for line in announced.read_text().splitlines() if line.startswith("{")]
    assert {(line["what"], line["user"], line["nas"]) for line in lines} == {
        ("login", "alice", "n"),
        ("logout", "alice", "n"),
    }
    assert "Traceback" not in announced.read_text()


def test_hosts_are_listed_where_there_is_one_datacenter_and_none_is_recorded(engineer: Engineer) -> None:
    done = engineer("hosts", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["grant", "alice", "ssh"], "write name_protocol_port, such as ssh_tcp_22"),
        (["grant", "alice", "ssh_tcp_22", "--for", "soon"], "write seconds (90) or units"),
        (["grant", "10.0.0.1/8", "ssh_tcp_22"], "host bits"),
        (["grant", "alice", "ssh_tcp_22", "--on", "web1.example"], "up to its first dot"),
        (["group", "add", "a/b", "alice"], "no group name"),
    ],
)
def test_what_cannot_be_meant_changes_nothing_and_names_the_way_out(
    engineer: Engineer, arguments: list[str], says: str
) -> None:
    done = engineer(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert engineer.stored() == {}


def test_without_consul_a_command_says_where_it_looked() -> None:
    done = run([BIN / "radius-bridge", "grants"], env={"CONSUL_HTTP_ADDR": "127.0.0.1:9"})
    assert done.returncode == 1
    assert "Consul at http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_never_shows(consul: ConsulServer, tmp_path: Path) -> None:
    env = {"CONSUL_HTTP_ADDR": "127.0.0.1:9", "CONSUL_HTTP_TOKEN": "s3cret-token", "HOME": str(tmp_path)}
    done = run([BIN / "radius-bridge", "grants"], env=env)
    assert "s3cret-token" not in done.stdout + done.stderr
