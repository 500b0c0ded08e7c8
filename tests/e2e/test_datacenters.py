"""Two federated datacenters with a real bridge and real hosts; `script/acceptance datacenters` is the long form."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.lab.cluster import Federation, of_this_process
from tests.lab.estate import Estate, Nas, Protected
from tests.lab.processes import LabError, wait_until
from tests.lab.radius_client import Status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

DENIED = "rb4n.rules_deny"


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """dc1, where the bridge records, and dc2."""
    with Federation(of_this_process("rb-dcs"), tmp_path_factory.mktemp("dcs"), servers=1) as wan:
        yield wan


@pytest.fixture(scope="module")
def estate(wan: Federation) -> Iterator[Estate]:
    """A bridge, and a protected host in each datacenter."""
    with Estate(wan.dc1, wan.dc2, users=100) as estate:
        yield estate


@pytest.fixture
def nas(estate: Estate) -> Iterator[Nas]:
    with estate.nas() as nas:
        yield nas


def test_a_login_opens_and_a_logout_closes_in_both(estate: Estate, nas: Nas) -> None:
    assert nas.send(Status.START, 1).opens
    nas.settle(15)
    assert all(host.holds(1) for host in estate.hosts.values())
    nas.send(Status.STOP, 1)
    nas.settle(5)
    assert not any(host.holds(1) for host in estate.hosts.values())


def test_a_cut_wan_delays_nobody_at_home_and_the_copy_catches_up(wan: Federation, estate: Estate, nas: Nas) -> None:
    home, there = estate.hosts["dc1"], estate.hosts["dc2"]
    nas.send(Status.START, 2)
    short = nas.send(Status.START, 3, seconds=8)
    nas.settle(15)
    wan.cut()
    with ThreadPoolExecutor(1) as background, ExitStack() as stack:
        stack.callback(wan.restore)
        gone = background.submit(_until_gone, there, 3)
        nas.send(Status.START, 4)
        nas.send(Status.STOP, 2)
        wait_until(lambda: home.holds(4) and not home.holds(2), "the login and the logout at home", timeout=3)
        with pytest.raises(LabError, match="not in dc2"):
            estate.bridge.engineer("grant", "user9", "other_tcp_9")
        assert there.holds(2), "nobody has told it"
        assert not there.holds(4)
        assert gone.result() < short.sent + 8 + 1, "the kernel there keeps time by itself"
    wait_until(lambda: there.holds(4) and not there.holds(2), "the copy to be the same again", timeout=30)


def test_a_block_holds_in_both(estate: Estate, nas: Nas) -> None:
    nas.send(Status.START, 5)
    nas.settle(15)
    estate.bridge.engineer("block", "10.66.0.6", "--for", "1h")
    hosts = estate.hosts.values()
    wait_until(lambda: all(host.holds(5, DENIED) for host in hosts), "the block", timeout=5)
    estate.bridge.engineer("unblock", "10.66.0.6")
    wait_until(lambda: not any(host.holds(5, DENIED) for host in hosts), "the end of the block", timeout=5)


def _until_gone(host: Protected, number: int) -> float:
    """Waits for the end of a login whose time is over; gives the moment (monotonic)."""
    wait_until(lambda: not host.holds(number), "the end of a login", timeout=30)
    return time.monotonic()
