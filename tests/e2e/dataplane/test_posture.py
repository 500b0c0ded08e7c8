"""How the host is configured to act: closed or not, observing or not, custom sets, and who is told of refusals."""

import asyncio
import socket
import struct
from collections.abc import Mapping

import pytest

from agent.dataplane.rules import CLOSED, DENIED, REFUSED
from agent.desired import CustomSet, Opening, Posture, RefusedLog, Target
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import Service, parse_ports
from tests.e2e.dataplane.host import (
    ALICE,
    ALICE6,
    BOB,
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
from tests.lab.nflog import Nflog
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

GROUP = 77
LOG = RefusedLog(GROUP, 100)


def _refused(host: Host) -> Mapping[str, int]:
    counts = host.server.call(lambda: asyncio.run(host.dataplane.count_refused()))
    return {what: count for what, count in counts.items() if count}


def _is_pinged(host: Host, source: str) -> bool:
    """True if an ICMP echo from `source` is answered."""
    request = struct.pack(">BBHHH", 8, 0, 0xFFFF - 0x0800 - 77, 0, 77)  # its checksum, and an identifier
    with host.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as sock:
        sock.bind((source, 0))
        sock.sendto(request, (SERVER, 0))
        sock.settimeout(0.3)
        try:
            while True:
                packet = sock.recv(1000)
                if packet[20:21] == b"\0" and packet[24:28] == request[4:]:
                    return True
        except TimeoutError:
            return False


def _hears_its_dhcp_server(host: Host) -> bool:
    """True if what a DHCPv6 server says from its link-local address is heard."""
    shown = host.server.run("ip", "-6", "address", "show", "dev", "eth0", "scope", "link").stdout
    address = shown.partition("inet6 ")[2].partition("/")[0]
    cable = host.client.call(lambda: socket.if_nametoindex("eth0"))
    with (
        host.server.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
        host.client.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
    ):
        client.bind(("::", 546))
        client.settimeout(0.5)
        server.bind(("::", 547))
        server.sendto(b"advertise", (address, 546, 0, cable))
        try:
            return client.recv(100) == b"advertise"
        except TimeoutError:
            return False


def test_a_closed_host_lets_in_members_openings_failsafe_and_answers_to_its_own_connections(host: Host) -> None:
    host.listen()
    host.listen(OPEN_PORT)
    host.listen(OPEN_PORT, family=socket.AF_INET6)
    host.listen(6666)
    host.listen(OPEN_PORT, where=host.client)
    opening = Opening((parse_prefix(f"{BOB}/32"),), (parse_ports(str(OPEN_PORT)),))
    assert _is_pinged(host, ALICE)
    host.enforce({ALICE: 60}, failsafe=("192.0.2.16/28",), posture=Posture(closed=True, openings=(opening,)))
    assert _hears_its_dhcp_server(host), "or it loses its address"
    assert reach(host.client, ALICE, SERVER) == "open"
    assert reach(host.client, BOB, SERVER, OPEN_PORT) == "open"
    assert reach(host.client, BOB, SERVER) == "open"  # by the failsafe
    assert reach(host.client, ALICE, SERVER, OPEN_PORT, timeout=0.3) == "silence"
    assert reach(host.client, ALICE6, SERVER6, OPEN_PORT, timeout=0.3) == "silence"
    assert reach(host.client, BOB, SERVER, 6666, timeout=0.3) == "silence"
    assert reach(host.server, SERVER, ALICE, OPEN_PORT) == "open"
    assert reach(host.server, "127.0.0.1", "127.0.0.1", 6666) == "open"
    assert not _is_pinged(host, ALICE)
    assert _refused(host)[CLOSED] >= 3
    assert host.differences() == []
    host.enforce({ALICE: 60}, posture=Posture(closed=True, openings=(Opening((parse_prefix("192.0.2.0/24"),), ()),)))
    assert _is_pinged(host, ALICE)
    assert reach(host.client, ALICE, SERVER, OPEN_PORT) == "open"
    assert reach(host.client, BOB, SERVER) == "refused"


def test_who_only_observes_refuses_nobody_and_counts_who_would_have_been(host: Host) -> None:
    host.iptables("-A", "INPUT", "-p", "tcp", "--dport", "6666", "-j", "DROP")
    for port in (PORT, OPEN_PORT, 6666):
        host.listen(port)
    observe = Posture(observe=True, closed=True, sets=(CustomSet("scanners", Target.DROP),), log=LOG)
    with Nflog(host.server, GROUP) as log:
        host.enforce({ALICE: 60}, deny={"192.0.2.16/28": 60}, posture=observe)
        assert reach(host.client, ALICE, SERVER) == "open"
        assert _refused(host) == {}
        assert reach(host.client, BOB, SERVER) == "open"
        assert _refused(host) == {DENIED: 1}
        host.enforce({ALICE: 60}, posture=observe, sets={"scanners": {ALICE: 60}})
        assert reach(host.client, ALICE, SERVER) == "open"
        assert reach(host.client, BOB, SERVER) == "open"
        assert reach(host.client, BOB, SERVER, OPEN_PORT) == "open"
        # The rules were written anew in between, and no count is lost.
        assert _refused(host) == {DENIED: 2, REFUSED + SERVICE.name: 1, CLOSED: 1}
        assert sorted(log.prefixes()) == ["rb:closed", "rb:denied", "rb:denied", f"rb:refused:{SERVICE.name}"]
    # The host's own rules go on as if we were not there.
    assert reach(host.client, ALICE, SERVER, 6666, timeout=0.3) == "silence"


def test_refused_attempts_are_logged_and_counted_and_the_log_has_a_limit(host: Host) -> None:
    host.listen()
    with Nflog(host.server, GROUP) as log:
        host.enforce({ALICE: 60}, posture=Posture(log=RefusedLog(GROUP, 3)))
        assert reach(host.client, ALICE, SERVER) == "open"
        assert log.prefixes() == []
        for _ in range(30):
            assert reach(host.client, BOB, SERVER) == "refused"
        prefixes = log.prefixes()
    assert set(prefixes) == {f"rb:refused:{SERVICE.name}"}
    assert 6 <= len(prefixes) < 20
    assert _refused(host) == {REFUSED + SERVICE.name: 30}


def test_what_is_refused_at_a_published_port_is_told_too(host: Host) -> None:
    target = f"{CONTAINER}:{CONTAINER_PORT}"
    dnat = ("-p", "tcp", "--dport", str(PUBLISHED), "-j", "DNAT", "--to-destination", target)
    host.iptables("-t", "nat", "-A", "PREROUTING", *dnat)
    host.listen(CONTAINER_PORT, where=host.container)
    with Nflog(host.server, GROUP) as log:
        host.enforce({ALICE: 60}, posture=Posture(log=LOG))
        assert reach(host.client, ALICE, SERVER, PUBLISHED) == "open"
        assert reach(host.client, BOB, SERVER, PUBLISHED) == "refused"
        assert log.prefixes() == [f"rb:refused:{SERVICE.name}"]


@pytest.mark.parametrize(
    ("target", "protected", "unprotected"),
    [
        (Target.ACCEPT, "open", "open"),
        (Target.REJECT, "refused", "refused"),
        (Target.DROP, "silence", "silence"),
        (Target.NONE, "refused", "open"),
    ],
)
def test_a_custom_set_does_to_its_members_what_its_target_says(
    host: Host, target: Target, protected: str, unprotected: str
) -> None:
    host.listen()
    host.listen(OPEN_PORT)
    host.listen(OPEN_PORT, where=host.client)
    posture = Posture(sets=(CustomSet("custom.set", target),))
    host.enforce({ALICE: 60}, posture=posture, sets={"custom.set": {"192.0.2.16/28": 60}})
    assert reach(host.client, BOB, SERVER, timeout=0.3) == protected
    assert reach(host.client, BOB, SERVER, OPEN_PORT, timeout=0.3) == unprotected
    assert reach(host.client, ALICE, SERVER) == "open"
    assert reach(host.server, SERVER, BOB, OPEN_PORT) == "open"  # what the host opens itself goes on
    shuts_out_by_ipset = target.shuts_out and host.backend != "nftables"
    assert host.sets()["rb4n.custom.set"] == (2 if shuts_out_by_ipset else 1), "there, one is an address of nobody's"
    assert host.differences() == []


def test_overrides_come_before_custom_sets(host: Host) -> None:
    host.listen()
    sets = (CustomSet("good", Target.ACCEPT), CustomSet("bad", Target.DROP))
    members = {"good": {ALICE: 60}, "bad": {BOB: 60}}
    host.enforce(allow={BOB: 60}, deny={ALICE: 60}, posture=Posture(sets=sets), sets=members)
    assert reach(host.client, ALICE, SERVER) == "refused"
    assert reach(host.client, BOB, SERVER) == "open"


def test_an_isolated_segment_reaches_nothing_and_other_segments_do(host: Host) -> None:
    listener = host.listen(OPEN_PORT)
    host.enforce({ALICE: 60})
    client, server = host.connected(listener, BOB, OPEN_PORT, every=(0.01, 0.01))
    with client, server:
        host.enforce({ALICE: 60}, deny={"192.0.2.16/28": NEVER, "2001:db8::20/124": NEVER})
        wait_until(lambda: bool(client.ended or server.ended), "the segment's connection to end")
    assert reach(host.client, BOB, SERVER, OPEN_PORT) == "refused"
    assert reach(host.client, ALICE, SERVER, OPEN_PORT) == "open"


def test_services_that_share_a_port_admit_each_others_members(host: Host) -> None:
    host.listen()
    other = Service("range_tcp_2000", (parse_ports("2000:3000"),))
    host.enforce({ALICE: 60}, services=(SERVICE, other))
    desired = host.desired
    members = {**desired.members, SERVICE.name: {}, other.name: {parse_prefix(ALICE): NEVER}}
    host.apply(type(desired)(desired.services, members))
    assert reach(host.client, ALICE, SERVER) == "open"
    assert reach(host.client, BOB, SERVER) == "refused"
    assert reach(host.client, BOB, SERVER, 2999) == "refused"
    assert _refused(host) == {REFUSED + SERVICE.name: 1, REFUSED + other.name: 2}
