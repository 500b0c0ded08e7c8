"""The main job, felt from a user's place: packets through the kernel, every part real."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.processes import wait_until
from tests.lab.radius_client import AccountingClient, Status, accounting
from tests.lab.site import ALICE, BOB, SERVER, SERVER6, SERVICE, SERVICE_PORT, Person, Site
from tests.lab.tcp import Knock, Outcome, connect, knock

pytestmark = pytest.mark.e2e

RESET = 0.5
"""Seconds within which even a busy machine tells a reset from a packet that was dropped (a second at least)."""

AT_ONCE = 0.1
"""Seconds within which a refusal must be felt."""

SOON = 2.0
"""Seconds within which a login opens and a logout closes, on a machine that does much else."""

families = pytest.mark.parametrize("version", [4, 6])

Login = Callable[..., None]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything but FreeRADIUS; alice and bob may reach the service once they log in."""
    with Site.of_this_process("rb-job", tmp_path_factory.mktemp("site"), forwarder=False) as site:
        site.engineer("grant", "alice", SERVICE)
        yield site


@pytest.fixture
def nas(site: Site) -> Iterator[AccountingClient]:
    """A NAS."""
    with site.accounting_client() as client:
        yield client


@pytest.fixture
def login(site: Site, nas: AccountingClient, request: pytest.FixtureRequest) -> Iterator[Login]:
    """Logs a person in, with both addresses; logs them out after the test."""
    sessions: list[tuple[Person, str]] = []

    def login(person: Person, session_timeout: int | None = None) -> None:
        session = f"{request.node.name}-{len(sessions)}"
        attributes = accounting(
            Status.START, person.name, session, person.address, person.address6, session_timeout=session_timeout
        )
        assert nas.send(attributes) is not None
        sessions.append((person, session))

    yield login
    if site.bridge.is_running and site.consul.is_running:
        for person, session in sessions:
            assert nas.send(accounting(Status.STOP, person.name, session, person.address, person.address6))
        wait_until(lambda: not (is_open(site, ALICE, 4) or is_open(site, ALICE, 6)), "the end of the test's logins")


def try_it(site: Site, person: Person, version: int) -> Knock:
    """One attempt of `person` to reach the service over IPv4 or IPv6."""
    source, server = (person.address, SERVER) if version == 4 else (person.address6, SERVER6)
    return knock(site.from_client, source, (server, SERVICE_PORT))


def is_open(site: Site, person: Person, version: int) -> bool:
    return try_it(site, person, version).outcome is Outcome.OPEN


def wait_open(site: Site, person: Person, version: int) -> None:
    wait_until(lambda: is_open(site, person, version), f"{person.name} to get in", timeout=SOON)


@families
def test_before_the_login_a_refusal_is_felt_at_once(site: Site, version: int) -> None:
    attempt = try_it(site, ALICE, version)
    assert attempt.outcome is Outcome.REFUSED
    assert attempt.seconds < RESET


@families
def test_a_login_lets_the_users_address_in(site: Site, login: Login, version: int) -> None:
    login(ALICE)
    wait_open(site, ALICE, version)


@families
def test_a_login_lets_nobody_in_who_is_not_granted(site: Site, login: Login, version: int) -> None:
    login(BOB)
    login(ALICE)
    wait_open(site, ALICE, version)
    attempt = try_it(site, BOB, version)
    assert attempt.outcome is Outcome.REFUSED
    assert attempt.seconds < RESET


@families
def test_a_stop_closes(site: Site, nas: AccountingClient, version: int) -> None:
    session = f"stop-{version}"
    addresses = (ALICE.address, ALICE.address6)
    assert nas.send(accounting(Status.START, "alice", session, *addresses))
    wait_open(site, ALICE, version)
    assert nas.send(accounting(Status.STOP, "alice", session, *addresses))
    wait_until(lambda: not is_open(site, ALICE, version), "alice to be out", timeout=1)


def test_an_address_that_passes_to_another_user_opens_nothing_more(site: Site, login: Login) -> None:
    login(ALICE)
    wait_open(site, ALICE, 4)
    login(Person("mallory", ALICE.address, ALICE.address6))
    wait_until(lambda: not is_open(site, ALICE, 4), "the address to be closed", timeout=SOON)


def test_a_grant_taken_back_closes_though_the_user_stays(site: Site, login: Login) -> None:
    login(ALICE)
    wait_open(site, ALICE, 4)
    site.engineer("revoke", "alice", SERVICE)
    try:
        wait_until(lambda: not is_open(site, ALICE, 4), "alice to be out", timeout=SOON)
    finally:
        site.engineer("grant", "alice", SERVICE)


def test_a_packet_with_a_wrong_secret_opens_nothing(site: Site) -> None:
    with site.accounting_client(secret=b"not-the-secret") as stranger:
        assert stranger.send(accounting(Status.START, "alice", "forged", ALICE.address), timeout=0.5) is None
    assert not is_open(site, ALICE, 4)


def test_an_address_outside_the_clients_networks_is_answered_and_not_bound(site: Site, nas: AccountingClient) -> None:
    assert nas.send(accounting(Status.START, "alice", "elsewhere", "198.51.100.77"))
    assert "198.51.100.77" not in site.engineer("who", "--json")


@families
def test_a_login_ends_by_itself(site: Site, login: Login, version: int) -> None:
    began = time.monotonic()
    login(ALICE, session_timeout=3)
    wait_open(site, ALICE, version)
    let_in = [began]

    def is_over() -> bool:
        tried = time.monotonic()
        if is_open(site, ALICE, version):
            let_in.append(tried)
            return False
        return True

    wait_until(is_over, "the end of the lease", timeout=6)
    assert let_in[-1] - began < 3 + AT_ONCE


def test_an_agent_with_the_other_backend_takes_over_from_the_one_before(site: Site, login: Login) -> None:
    login(ALICE)
    login(BOB)
    wait_open(site, ALICE, 4)
    with connect(site.from_client, ALICE.address, (SERVER, SERVICE_PORT), every=0.02) as live:
        for backend in ("nftables", "ipset"):
            site.restart_agent(backend)
            assert site.agent_status()["backend"] == backend
            for version in (4, 6):
                assert is_open(site, ALICE, version)
                assert try_it(site, BOB, version).outcome is Outcome.REFUSED
            assert backend == "ipset" or not live.ended
            site.engineer("revoke", "alice", SERVICE)
            wait_until(lambda: not is_open(site, ALICE, 6), "alice to be out", timeout=SOON)
            site.engineer("grant", "alice", SERVICE)
            wait_open(site, ALICE, 6)
        assert live.ended  # by the first revoke, and by no change of the backend before it


def test_a_login_ends_with_bridge_consul_and_agent_dead(site: Site, login: Login) -> None:
    """Keep this one last: it leaves the site without Consul's content."""
    began = time.monotonic()
    login(ALICE, session_timeout=4)
    wait_open(site, ALICE, 4)
    wait_open(site, ALICE, 6)
    with connect(site.from_client, ALICE.address, (SERVER, SERVICE_PORT), every=0.02) as live:
        for part in (site.agent, site.consul, site.bridge):
            part.kill()
        heard = live.received
        wait_until(lambda: live.received > heard, "the connection to live on", timeout=1)
        wait_until(lambda: bool(live.ended), "the kernel to cut it", timeout=6)
        assert live.last_received - began < 4 + AT_ONCE
    for version in (4, 6):
        assert try_it(site, ALICE, version).outcome is Outcome.REFUSED
