"""The agent's view: nothing is programmed before everything was read once."""

from typing import NamedTuple

from agent.desired import ALLOW, DENY
from agent.view import View
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import Service, parse_ports
from radius_bridge.registry.keys import Keys, Scope

KEYS = Keys()
NOW = 1000.0


class Entry(NamedTuple):
    key: str
    value: bytes


def test_an_incomplete_view_gives_nothing_to_enforce() -> None:
    view = View(KEYS, Scope("dc1", "web1"))
    view.learn(KEYS.groups, [])
    view.learn(KEYS.services, [])
    view.services = ()
    assert view.desired(NOW) is None
    assert view.missing() == ["sets"]
    view.learn(KEYS.sets, [])
    assert view.desired(NOW) is not None


def test_grants_of_this_host_and_groups_make_what_is_enforced() -> None:
    view = View(KEYS, Scope("dc1", "web1"))
    view.services = (Service("ssh_tcp_22", (parse_ports("22"),)),)
    view.learn(KEYS.groups, [Entry("befw/$alias$/$user.alice$/10.0.0.1", b"2000")])
    view.learn(
        KEYS.services,
        [
            Entry("befw/$service$/dc1/web1/ssh_tcp_22/$user.alice$", b"-1"),
            Entry("befw/$service$/dc1/web2/ssh_tcp_22/10.0.0.9", b"-1"),
            Entry("befw/$service$/ssh_tcp_22/10.0.0.8", b"nonsense"),
        ],
    )
    view.learn(KEYS.sets, [Entry("befw/$ipset$/rules_deny/10.6.6.0/24", b"nonsense")])
    wanted = view.desired(NOW)
    assert wanted is not None
    assert wanted.members["ssh_tcp_22"] == {parse_prefix("10.0.0.1"): 2000}
    assert wanted.members[ALLOW] == {}
    assert wanted.members[DENY] == {parse_prefix("10.6.6.0/24"): NEVER}
    assert len(view.problems()) == 2
