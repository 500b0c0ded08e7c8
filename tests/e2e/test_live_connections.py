"""A Stop ends what is open: no payload byte passes in either direction later than a second after its response."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.processes import wait_until
from tests.lab.radius_client import Status, accounting
from tests.lab.site import ALICE, SERVER, SERVER6, SERVICE, Person, Site
from tests.lab.tcp import End, Listener, connect

pytestmark = pytest.mark.e2e

PORT = 9001
"""Protected with the site's service; the tests listen there themselves and so hear both ends."""

OFTEN = 0.02

CARL = Person("carl", "192.0.2.30", "2001:db8:2::30")


@dataclass(frozen=True)
class Habit:
    """Who sends, and how often (seconds); None: never by itself."""

    name: str
    client: float | None
    server: float | None


CHATTY = Habit("chatty", OFTEN, OFTEN)
PUSH = Habit("server-push", None, OFTEN)
IDLE = Habit("idle", None, None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything but FreeRADIUS; alice may reach the service once she logs in."""
    with Site.of_this_process("rb-live", tmp_path_factory.mktemp("site"), forwarder=False, ports=(PORT,)) as site:
        site.engineer("grant", "alice", SERVICE)
        yield site


@pytest.fixture(scope="module")
def listeners(site: Site) -> Iterator[dict[int, Listener]]:
    """The service's listening sockets, by IP version."""
    both = {
        version: Listener(site.on_server, family, PORT)
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6))
    }
    yield both
    for listener in both.values():
        listener.close()


@pytest.mark.parametrize("habit", [CHATTY, IDLE, PUSH], ids=lambda habit: habit.name)
def test_no_byte_passes_a_second_after_the_stop(site: Site, listeners: dict[int, Listener], habit: Habit) -> None:
    addresses = (ALICE.address, ALICE.address6)
    with site.accounting_client() as nas:
        assert nas.send(accounting(Status.START, "alice", habit.name, *addresses))
        ends: list[End] = []
        try:
            for version, source, server in ((4, ALICE.address, SERVER), (6, ALICE.address6, SERVER6)):
                ends.append(open_when_let_in(site, source, server, habit))
                ends.append(listeners[version].accept(every=habit.server))
            prove_alive(ends)
            assert nas.send(accounting(Status.STOP, "alice", habit.name, *addresses))
            limit = time.monotonic() + 1.0
            wait_until(lambda: time.monotonic() > limit, "a second to pass")
            # Whoever was silent until now tries again, from both ends.
            for end in ends:
                end.say()
            wait_until(lambda: time.monotonic() > limit + 1.0, "what comes late to come")
            late = [end.last_received - limit for end in ends if end.last_received > limit]
            assert not late, f"bytes passed {max(late) + 1:.3f} s after the Stop was answered"
        finally:
            for end in ends:
                end.close()


def open_when_let_in(site: Site, source: str, server: str, habit: Habit) -> End:
    """Connects as soon as the agent has heard of the login."""
    deadline = time.monotonic() + 2
    while True:
        try:
            return connect(site.from_client, source, (server, PORT), every=habit.client)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise


def prove_alive(ends: list[End]) -> None:
    """Every connection has carried bytes in both directions."""
    for end in ends:
        end.say()
    wait_until(lambda: all(end.received for end in ends), "bytes in both directions")
