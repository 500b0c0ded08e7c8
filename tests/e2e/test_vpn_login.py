"""A real VPN login: OpenVPN's RADIUS plugin – FreeRADIUS – the bridge – the port, felt from the laptop."""

import json
from collections.abc import Iterator

import pytest

from tests.lab.openvpn import SERVER, Vpn
from tests.lab.processes import LabError, wait_until
from tests.lab.site import SERVICE, SERVICE_PORT, Login, Site
from tests.lab.tcp import MakeSocket, Outcome, connect, knock

pytestmark = pytest.mark.e2e

PASSWORD = "correct horse"

GROUP = """
[[group]]
group = "radius.vpn"
attribute = "NAS-Identifier"
value = "gateway"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything; FreeRADIUS knows Alice's password."""
    login = Login("Alice", PASSWORD)
    with Site.of_this_process("rb-vpn", tmp_path_factory.mktemp("site"), login=login, more=GROUP) as site:
        yield site


@pytest.fixture(scope="module")
def vpn(site: Site) -> Iterator[Vpn]:
    with Vpn(site) as vpn:
        yield vpn


def where(site: Site, user: str) -> list[str]:
    """The addresses behind which the bridge says a user is."""
    return [row["address"] for row in json.loads(site.engineer("who", "--json")) if row["user"] == user]


def outcome(make_socket: MakeSocket, address: str) -> Outcome:
    """What becomes of one attempt to reach the service from an address in the tunnel."""
    return knock(make_socket, address, (SERVER, SERVICE_PORT)).outcome


def test_a_wrong_password_opens_nothing(site: Site, vpn: Vpn) -> None:
    with pytest.raises(LabError):
        vpn.dial("Alice", "wrong")
    assert "AUTH_FAILED" in vpn.client.read_log()
    assert where(site, "alice") == []


@pytest.fixture(scope="module")
def address(vpn: Vpn) -> str:
    """Where Alice is once she has dialled in."""
    return vpn.dial("Alice", PASSWORD)


def test_dialling_in_is_recorded_before_the_tunnel_is_up_by_her_name_in_small_letters(site: Site, address: str) -> None:
    assert where(site, "alice") == [address]


def test_a_group_of_attributes_opens_for_everybody_who_is_in_it(site: Site, vpn: Vpn, address: str) -> None:
    assert outcome(vpn.from_laptop, address) is Outcome.REFUSED, "nobody is granted anything yet"
    site.engineer("grant", "group:radius.vpn", SERVICE)
    wait_until(lambda: outcome(vpn.from_laptop, address) is Outcome.OPEN, "the group to get in", timeout=5)
    assert f'"member": "{address}"' in site.engineer("group", "show", "radius.vpn", "--json")
    site.engineer("revoke", "group:radius.vpn", SERVICE)
    wait_until(lambda: outcome(vpn.from_laptop, address) is Outcome.REFUSED, "the group to be out", timeout=5)


def test_dialling_in_opens_and_hanging_up_closes(site: Site, vpn: Vpn, address: str) -> None:
    """Keep this one last: she hangs up."""
    site.engineer("grant", "alice", SERVICE)
    wait_until(lambda: outcome(vpn.from_laptop, address) is Outcome.OPEN, "alice to get in", timeout=5)
    with connect(vpn.from_laptop, address, (SERVER, SERVICE_PORT), every=0.05) as live:
        wait_until(lambda: live.received > 0, "an answer through the tunnel", timeout=2)
        vpn.hang_up()
    wait_until(lambda: where(site, "alice") == [], "the Stop", timeout=20, every=0.5)
    with vpn.passed_on(address) as from_next:
        assert outcome(from_next, address) is Outcome.REFUSED, "nobody inherits her address"
