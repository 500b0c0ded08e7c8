"""The cheap look at large sets of ipset sees what somebody has changed."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from agent.dataplane.kinds import KINDS, set_name
from agent.dataplane.looks import FEW, Looks
from agent.dataplane.netlink import MemberSocket
from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix, parse_prefix
from tests.e2e.dataplane.host import SERVICE, Host

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("host", ["nft"], indirect=True)]

SETS = {set_name(kind, SERVICE.name) for kind in KINDS}
HOSTS, NETWORKS = f"rb4h.{SERVICE.name}", f"rb4n.{SERVICE.name}"


@contextmanager
def looking(host: Host) -> Iterator[Looks]:
    """A service of many members of all kinds, and looks at its sets."""
    now = time.time()
    members: dict[Prefix, float] = {Prefix(4, 0x0A000000 + each, 32): now + 5000 + each for each in range(FEW)}
    members |= {Prefix(6, 0x20010DB8 << 96 | each, 128): (now + 1e8, NEVER)[each % 2] for each in range(500)}
    members |= dict.fromkeys(map(parse_prefix, ("192.0.2.0/24", "198.51.100.0/25")), now + 9000)
    members |= dict.fromkeys(map(parse_prefix, ("::/0", "2001:db8::/32")), NEVER)
    host.apply(Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: {}}))
    with closing(host.server.call(MemberSocket)) as members_of:
        yield Looks((4, 6), members_of.read)


def right(host: Host, looks: Looks) -> set[str]:
    found = host.server.call(lambda: asyncio.run(looks.right(host.desired, host.sets(), SETS, time.time())))
    assert found <= SETS
    return found


def test_what_nobody_has_touched_is_as_it_should_be(host: Host) -> None:
    with looking(host) as looks:
        assert right(host, looks) == SETS
        assert right(host, looks) == SETS


def test_one_member_exchanged_for_another_is_seen_at_once(host: Host) -> None:
    with looking(host) as looks:
        assert right(host, looks) == SETS
        host.server.run("ipset", "del", HOSTS, "10.0.3.7")
        host.server.run("ipset", "add", HOSTS, "203.0.113.66")
        assert right(host, looks) == SETS - {HOSTS}
        host.server.run("ipset", "del", NETWORKS, "192.0.2.0/24")
        host.server.run("ipset", "add", NETWORKS, "192.0.2.0/23")
        assert right(host, looks) == SETS - {HOSTS, NETWORKS}
        assert host.differences()


def test_another_end_is_seen_when_ends_are_compared_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with looking(host) as looks:
        assert right(host, looks) == SETS
        host.server.run("ipset", "add", HOSTS, "10.0.3.7", "timeout", "0", "-exist")
        assert right(host, looks) == SETS
        monkeypatch.setattr("agent.dataplane.looks.ENDS_EVERY", 0.0)
        assert right(host, looks) == SETS - {HOSTS}


def test_a_set_that_is_not_there_is_not_as_it_should_be(host: Host) -> None:
    with looking(host) as looks:
        host.server.run("ipset", "flush", HOSTS)
        host.uninstall()
        assert right(host, looks) == set()
