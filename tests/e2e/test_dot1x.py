"""Logins by 802.1X as they are: an anonymous identity outside, no address in the accounting, a lease that names it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import freeradius
from tests.lab.consul import ConsulServer
from tests.lab.dhcp import Wire, wire
from tests.lab.dot1x import SECRET, Method, Port, Supplicant
from tests.lab.leasebridge import Bridge
from tests.lab.pki import Authority
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

BRIDGE_PORT = 11813
SHORT = 12
"""Seconds of a lease: nothing else notices an unplugged cable."""


class Desk:
    """A machine with a cable to a switch's port, and what is behind that."""

    def __init__(self, net: Wire, consul: ConsulServer) -> None:
        ca = Authority(net.folder)
        server = ca.issue("radius", "radius.example.org")
        self.net = net
        self.bridge = Bridge(net, consul, secret=SECRET, port=BRIDGE_PORT)
        self.forwarder = freeradius.forwarder(
            namespace=net.server.name,
            directory=net.folder,
            bridge=("127.0.0.1", BRIDGE_PORT),
            bridge_secret=SECRET,
            nas_networks=("127.0.0.0/8", "::1/128"),
            nas_secret=SECRET,
        )
        self.port = Port(
            net.server, "cable", net.folder, server=server, ca=ca.certificate, user="alice", password="a password"
        )
        self.supplicant = Supplicant(net.client, "cable", net.folder, ca.certificate)

    def start(self) -> None:
        """Everything but the DHCP server and the login."""
        self.forwarder.start().wait_log(freeradius.READY)
        self.port.start()

    def close(self) -> None:
        """Ends what does not end with the wire."""
        self.supplicant.close()
        self.port.close()
        self.forwarder.kill()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with wire(tmp_path, apart=True) as net, ConsulServer(namespace=net.server.name) as consul:
        made = Desk(net, consul)
        try:
            made.start()
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("method", ["TTLS", "PEAP"])
def test_who_logs_on_is_bound_to_the_address_of_his_lease_and_who_logs_off_is_not(desk: Desk, method: Method) -> None:
    desk.net.kea()
    desk.supplicant.log_on("alice", "a password", method)
    address = desk.net.ask()
    wait_until(lambda: desk.bridge.users() == {address: "alice"}, "alice to be bound", timeout=SHORT, every=0.1)
    desk.supplicant.log_off()
    wait_until(lambda: desk.bridge.users() == {}, "her log-off to end it", every=0.1)


def test_an_unplugged_cable_ends_a_login_with_its_lease(desk: Desk) -> None:
    desk.net.kea(lifetime=SHORT)
    desk.supplicant.log_on("alice", "a password")
    address = desk.net.ask()
    wait_until(lambda: desk.bridge.users() == {address: "alice"}, "alice to be bound", timeout=SHORT, every=0.1)
    desk.supplicant.close()
    desk.net.client.run("ip", "link", "set", "cable", "down")
    wait_until(lambda: desk.bridge.users() == {}, "the lease to run out", timeout=SHORT + 10, every=0.1)
