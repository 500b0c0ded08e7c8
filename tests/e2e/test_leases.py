"""A login that names no address, and the lease that does: a bridge, FreeRADIUS' client, and a real Kea."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.consul import ConsulServer
from tests.lab.dhcp import Wire, wire
from tests.lab.freeradius import radclient
from tests.lab.processes import BIN, Process, run, wait_until
from tests.lab.site import write_secret

pytestmark = pytest.mark.e2e


class Bridge:
    """A bridge with its Consul on the DHCP server's host, which reads Kea's lease file."""

    def __init__(self, net: Wire, consul: ConsulServer) -> None:
        self._net = net
        self._consul = consul
        self._secret_file = net.folder / "secret"
        write_secret(self._secret_file, b"a secret of the lab")
        path = net.folder / "bridge.toml"
        path.write_text(
            f"""\
[consul]
url = "{consul.url}"
[radius]
listen = ["127.0.0.1:1813"]
[[client]]
name = "switch"
address = "127.0.0.1"
secret_file = "{self._secret_file}"
networks = ["192.0.2.0/24"]
[[lease]]
name = "kea"
type = "kea"
path = "{net.folder / "kea-leases4.csv"}"
networks = ["192.0.2.0/24"]
"""
        )
        self.process: Process = net.run("bridge", [BIN / "radius-bridge", "serve", "-c", path], "listening")

    def accounting(self, status: str, user: str = "alice") -> None:
        """The switch tells of the port that the client is plugged in; it knows no address."""
        mac = self._net.mac.replace(":", "-").upper()
        attributes = [f'User-Name = "{user}"', f"Acct-Status-Type = {status}", f'Acct-Session-Id = "{user}-{mac}"']
        attributes += [f'Calling-Station-Id = "{mac}"', "NAS-IP-Address = 127.0.0.1"]
        namespace = self._net.server.name
        answer = radclient(
            ", ".join(attributes), namespace=namespace, server="127.0.0.1", secret_file=self._secret_file
        )
        assert answer.acknowledged, answer.output

    def users(self) -> dict[str, str]:
        """Who is behind which address; sessions without one are left out."""
        shown = run(
            [BIN / "radius-bridge", "who", "--json"],
            namespace=self._net.server.name,
            env={"CONSUL_HTTP_ADDR": self._consul.url},
        )
        return {entry["address"]: entry["user"] for entry in json.loads(shown.stdout) if entry["address"]}


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[tuple[Wire, Bridge]]:
    with wire(tmp_path) as net, ConsulServer(namespace=net.server.name) as consul:
        net.kea()
        yield net, Bridge(net, consul)


def test_a_login_without_an_address_gets_it_from_the_lease_and_loses_it_with_the_lease(
    bridge: tuple[Wire, Bridge],
) -> None:
    net, it = bridge
    it.accounting("Start")
    assert it.users() == {}
    address = net.ask()
    wait_until(lambda: it.users() == {address: "alice"}, "the lease to bind alice", every=0.1)
    net.release()
    wait_until(lambda: it.users() == {}, "the lease's end to end it", every=0.1)


def test_what_happens_while_the_bridge_is_away_holds_once_it_is_back(bridge: tuple[Wire, Bridge]) -> None:
    net, it = bridge
    it.accounting("Start")
    it.process.kill()
    address = net.ask()
    it.process.start().wait_log("listening")
    wait_until(lambda: it.users() == {address: "alice"}, "the lease to bind alice", every=0.1)
    it.process.kill()
    net.release()
    net.become("02:00:00:00:00:77")
    assert net.ask() == address
    it.process.start().wait_log("listening")
    wait_until(lambda: it.users() == {}, "another station's lease to end alice's", every=0.1)
    it.accounting("Start", "bob")
    wait_until(lambda: it.users() == {address: "bob"}, "bob to get his lease's address", every=0.1)
