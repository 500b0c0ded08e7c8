"""FreeRADIUS before the bridge, with the very files of config/freeradius: what it acknowledges is recorded."""

import json
from collections.abc import Iterator

import pytest

from tests.lab.processes import wait_until
from tests.lab.site import ALICE, NAS, RADIUS, RADIUS6, Site

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything."""
    with Site.of_this_process("rb-fr", tmp_path_factory.mktemp("site")) as site:
        yield site


def users(site: Site) -> dict[str, str]:
    """Users by address, as the bridge recorded them."""
    return {entry["address"]: entry["user"] for entry in json.loads(site.engineer("who", "--json"))}


def packet(status: str, session: str, *more: str) -> str:
    """Accounting of alice as radclient reads it."""
    return ", ".join(
        [
            'User-Name = "alice"',
            f"Acct-Status-Type = {status}",
            f'Acct-Session-Id = "{session}"',
            f"Framed-IP-Address = {ALICE.address}",
            *more,
        ]
    )


@pytest.mark.parametrize("server", [RADIUS, RADIUS6], ids=["IPv4", "IPv6"])
def test_what_is_acknowledged_is_recorded(site: Site, server: str) -> None:
    session = f"forwarded-{server}"
    assert site.nas(packet("Start", session, f"NAS-IP-Address = {NAS}"), server=server).acknowledged
    assert users(site)[ALICE.address] == "alice"
    assert site.nas(packet("Stop", session, f"NAS-IP-Address = {NAS}"), server=server).acknowledged
    assert ALICE.address not in users(site)


def test_a_nas_that_does_not_name_itself_is_named_by_its_address(site: Site) -> None:
    assert site.nas(packet("Start", "nameless")).acknowledged
    assert f'"{NAS}"' in site.engineer("who", "--json")
    assert site.nas(packet("Stop", "nameless")).acknowledged


def test_nothing_is_acknowledged_while_the_bridge_is_away_and_a_repeated_packet_is_when_it_is_back(
    site: Site,
) -> None:
    site.bridge.kill()
    assert not site.nas(packet("Start", "away"), timeout=1).acknowledged
    site.start()
    wait_until(lambda: site.nas(packet("Start", "away"), timeout=1).acknowledged, "the repeated Start", timeout=15)
    assert users(site)[ALICE.address] == "alice"


def test_nothing_is_acknowledged_while_consul_is_away(site: Site) -> None:
    site.consul.kill()
    assert not site.nas(packet("Start", "no-consul"), timeout=2).acknowledged
