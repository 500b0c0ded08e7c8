"""A login that names no address, and the lease that does: a bridge, FreeRADIUS' client, and a real Kea."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.consul import ConsulServer
from tests.lab.dhcp import Wire, wire
from tests.lab.leasebridge import Bridge
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e


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
