"""Who gets through, felt with real packets."""

import socket
import time
from contextlib import suppress
from functools import partial

import pytest

from radius_bridge.policy.expiry import NEVER
from tests.e2e.dataplane.host import (
    ALICE,
    ALICE6,
    BOB,
    BOB6,
    CONTAINER,
    CONTAINER_PORT,
    OPEN_PORT,
    PORT,
    PUBLISHED,
    SERVER,
    SERVER6,
    SERVICE,
    Host,
    reach,
)
from tests.lab.processes import wait_until
from tests.lab.tcp import End

pytestmark = pytest.mark.e2e

CHATTY, IDLE = 0.01, None
FAMILIES = pytest.mark.parametrize(
    ("family", "alice", "bob", "server"),
    [(socket.AF_INET, ALICE, BOB, SERVER), (socket.AF_INET6, ALICE6, BOB6, SERVER6)],
    ids=["v4", "v6"],
)
TALKS = pytest.mark.parametrize(
    "every", [(CHATTY, CHATTY), (CHATTY, IDLE), (IDLE, CHATTY)], ids=["chatty", "client-talks", "server-push"]
)


def _assert_silent(*ends: End) -> None:
    """No payload arrives any more, though both sides try."""
    before = [end.received for end in ends]
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        for end in ends:
            end.say()
        time.sleep(0.02)
    assert [end.received for end in ends] == before


def _heard(end: End) -> bool:
    return bool(end.received)


def _until_ended(*ends: End, timeout: float = 5.0) -> None:
    wait_until(lambda: any(end.ended for end in ends), "the connection's end", timeout=timeout)


@FAMILIES
def test_only_members_get_in_and_others_are_refused_at_once(
    host: Host, family: int, alice: str, bob: str, server: str
) -> None:
    host.listen(family=family)
    assert reach(host.client, alice, server) == "open"  # the service is there, and not protected yet
    host.enforce()
    began = time.monotonic()
    assert reach(host.client, alice, server) == "refused"
    assert time.monotonic() - began < 0.1
    host.enforce({alice: 60})
    assert reach(host.client, alice, server) == "open"
    assert reach(host.client, bob, server) == "refused"
    host.enforce({bob: NEVER})
    assert reach(host.client, alice, server) == "refused"
    assert reach(host.client, bob, server) == "open"


@pytest.mark.parametrize("network", ["192.0.2.8/29", "0.0.0.0/0"])
def test_a_network_lets_its_addresses_in(host: Host, network: str) -> None:
    host.listen()
    host.enforce({network: 60})
    assert reach(host.client, ALICE, SERVER) == "open"
    assert reach(host.client, BOB, SERVER) == ("open" if network == "0.0.0.0/0" else "refused")


def test_ports_that_are_not_protected_are_left_alone(host: Host) -> None:
    host.listen(OPEN_PORT)
    host.enforce()
    assert reach(host.client, BOB, SERVER, OPEN_PORT) == "open"


@TALKS
@pytest.mark.parametrize("source", [ALICE, ALICE6], ids=["v4", "v6"])
def test_a_live_connection_ends_when_its_member_is_removed(
    host: Host, source: str, every: tuple[float | None, float | None]
) -> None:
    listener = host.listen(family=socket.AF_INET6 if ":" in source else socket.AF_INET)
    host.enforce({source: 60})
    client, server = host.connected(listener, source, every=every)
    with client, server:
        wait_until(lambda: bool(client.received or server.received), "traffic")
        host.enforce()
        _until_ended(client, server)
        _assert_silent(client, server)


def test_an_idle_connection_carries_nothing_after_its_member_is_removed(host: Host) -> None:
    listener = host.listen()
    host.enforce({ALICE: 60})
    client, server = host.connected(listener, every=(IDLE, IDLE))
    with client, server:
        host.enforce()
        _assert_silent(client, server)
        assert (client.received, server.received) == (0, 0)


@TALKS
def test_a_live_connection_ends_with_its_time_though_nobody_is_alive(
    host: Host, every: tuple[float | None, float | None]
) -> None:
    listener = host.listen()
    began = time.monotonic()
    host.enforce({ALICE: 2.5})
    client, server = host.connected(listener, every=every)
    host.stop_agent()
    with client, server:
        _until_ended(client, server)
        assert 1.0 < time.monotonic() - began < 4.5
        _assert_silent(client, server)
    assert reach(host.client, ALICE, SERVER) == "refused"


def test_a_renewed_member_stays_connected(host: Host) -> None:
    listener = host.listen()
    host.enforce({ALICE: 1.5})
    client, server = host.connected(listener, every=(CHATTY, CHATTY))
    with client, server:
        assert host.enforce({ALICE: 60}).added == 1
        until = time.monotonic() + 2.5
        wait_until(lambda: time.monotonic() > until or bool(client.ended), "the first lease's end", timeout=5)
        assert not client.ended


def test_udp_of_members_passes_and_of_others_is_refused(host: Host) -> None:
    host.enforce({ALICE: 60})
    with (
        host.server.socket(type=socket.SOCK_DGRAM) as service,
        host.client.socket(type=socket.SOCK_DGRAM) as alice,
        host.client.socket(type=socket.SOCK_DGRAM) as bob,
    ):
        for sock, address in ((alice, ALICE), (bob, BOB)):
            sock.bind((address, 0))
            sock.connect((SERVER, PORT))
            sock.settimeout(1)
        service.bind((SERVER, PORT))
        service.settimeout(1)
        alice.send(b"ping")
        _, back = service.recvfrom(100)
        service.sendto(b"pong", back)
        assert alice.recv(100) == b"pong"
        bob.send(b"ping")
        with pytest.raises(ConnectionRefusedError):
            bob.recv(100)
        host.enforce()
        with pytest.raises(PermissionError):
            service.sendto(b"push", back)
        alice.settimeout(0.2)
        with pytest.raises(TimeoutError):
            alice.recv(100)


def test_allow_lets_in_everywhere_and_wins_over_deny(host: Host) -> None:
    host.listen()
    host.enforce(allow={BOB: 60}, deny={"192.0.2.0/24": 60})
    assert reach(host.client, BOB, SERVER) == "open"
    assert reach(host.client, ALICE, SERVER) == "refused"


def test_deny_wins_over_grants_and_cuts_live_connections_on_every_port(host: Host) -> None:
    protected, unprotected = host.listen(), host.listen(OPEN_PORT)
    host.enforce({ALICE: 60})
    for listener, port in ((protected, PORT), (unprotected, OPEN_PORT)):
        host.enforce({ALICE: 60})
        client, server = host.connected(listener, port=port, every=(CHATTY, CHATTY))
        with client, server:
            wait_until(partial(_heard, client), "traffic")
            host.enforce({ALICE: 60}, deny={ALICE: 60})
            _until_ended(client, server)
            _assert_silent(client, server)
        assert reach(host.client, ALICE, SERVER, port) == "refused"


def test_the_host_itself_still_reaches_a_denied_address(host: Host) -> None:
    host.listen(OPEN_PORT, where=host.client)
    host.enforce(deny={"192.0.2.0/24": NEVER})
    assert reach(host.server, SERVER, ALICE, OPEN_PORT) == "open"
    assert reach(host.client, ALICE, SERVER, OPEN_PORT) == "refused"


def test_failsafe_networks_get_in_whatever_policy_says(host: Host) -> None:
    host.listen()
    host.enforce(deny={"192.0.2.0/24": 60}, failsafe=("192.0.2.16/28",))
    assert reach(host.client, BOB, SERVER) == "open"
    assert reach(host.client, ALICE, SERVER) == "refused"


def test_loopback_is_left_alone(host: Host) -> None:
    host.listen()
    host.enforce(deny={"127.0.0.0/8": NEVER})
    assert reach(host.server, "127.0.0.1", "127.0.0.1") == "open"


@TALKS
def test_a_published_port_is_protected_by_the_port_that_clients_ask_for(
    host: Host, every: tuple[float | None, float | None]
) -> None:
    target = f"{CONTAINER}:{CONTAINER_PORT}"
    dnat = ("-p", "tcp", "--dport", str(PUBLISHED), "-j", "DNAT", "--to-destination", target)
    host.iptables("-t", "nat", "-A", "PREROUTING", *dnat)
    listener = host.listen(CONTAINER_PORT, where=host.container)
    host.enforce({ALICE: 60})
    assert reach(host.client, BOB, SERVER, PUBLISHED) == "refused"
    client, server = host.connected(listener, port=PUBLISHED, every=every)
    with client, server:
        wait_until(lambda: bool(client.received or server.received), "traffic")
        host.enforce()
        _until_ended(client, server)
        _assert_silent(client, server)
    assert reach(host.client, ALICE, SERVER, PUBLISHED) == "refused"
    host.enforce(deny={BOB: 60}, services=(SERVICE,))
    assert reach(host.client, BOB, SERVER, PUBLISHED) == "refused"
    host.enforce(allow={BOB: 60})
    assert reach(host.client, BOB, SERVER, PUBLISHED) == "open"


def test_routed_traffic_that_is_not_published_is_left_alone(host: Host) -> None:
    host.client.run("ip", "route", "add", "198.51.100.0/24", "via", SERVER)
    host.listen(PORT, where=host.container)
    host.enforce()
    assert reach(host.client, BOB, CONTAINER) == "open"


def test_udp_in_both_directions_ends_with_its_time_though_nobody_is_alive(host: Host) -> None:
    with host.server.socket(type=socket.SOCK_DGRAM) as service, host.client.socket(type=socket.SOCK_DGRAM) as alice:
        service.bind((SERVER, PORT))
        alice.bind((ALICE, 0))
        alice.connect((SERVER, PORT))
        for sock in (service, alice):
            sock.setblocking(False)
        began = time.monotonic()
        host.enforce({ALICE: 2.5})
        host.stop_agent()
        last = {service: 0.0, alice: 0.0}
        while time.monotonic() < began + 4:
            with suppress(ConnectionRefusedError):
                alice.send(b"x")
            with suppress(ConnectionRefusedError, PermissionError):
                service.sendto(b"y", alice.getsockname())
            for sock in last:
                with suppress(BlockingIOError, ConnectionRefusedError):
                    sock.recv(100)
                    last[sock] = time.monotonic() - began
            time.sleep(0.01)
        assert all(1.0 < at < 2.6 for at in last.values()), last
