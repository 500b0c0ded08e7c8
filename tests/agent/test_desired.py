"""What a host must enforce, from services, grants, static sets and groups."""

from agent.desired import ALLOW, DENY, Failsafe, desired
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import GroupRef, parse_prefix, user_group
from radius_bridge.policy.resolve import Members
from radius_bridge.policy.services import Service, parse_ports

NOW = 1_800_000_000.0
SSH = Service("ssh_tcp_22", (parse_ports("22"),))
WEB = Service("web_tcp_80", (parse_ports("80"),))
ADDRESS = parse_prefix("192.0.2.1")
ALICE = user_group("alice")


def test_a_grant_to_a_user_admits_the_addresses_of_the_user_until_the_earlier_end() -> None:
    grants: dict[str, Members] = {SSH.name: {ALICE: NOW + 100}, "not-here_tcp_1": {ALICE: NEVER}}
    wanted = desired([WEB, SSH], grants, {}, {ALICE: {ADDRESS: NOW + 50}}, [], NOW)
    assert wanted.services == (SSH, WEB)
    assert wanted.members == {SSH.name: {ADDRESS: NOW + 50}, WEB.name: {}, ALLOW: {}, DENY: {}}


def test_overrides_hold_groups_too() -> None:
    staff = GroupRef("staff")
    wanted = desired([], {}, {ALLOW: {staff: NEVER}}, {staff: {ADDRESS: NEVER}}, [], NOW)
    assert wanted.members == {ALLOW: {ADDRESS: NEVER}, DENY: {}}


def test_what_is_over_is_not_wanted() -> None:
    assert desired([SSH], {SSH.name: {ADDRESS: NOW}}, {}, {}, [], NOW).members[SSH.name] == {}


def test_the_failsafe_is_passed_on() -> None:
    failsafe = Failsafe((parse_prefix("10.9.0.0/16"),), SSH.ports)
    assert desired([], {}, {}, {}, [failsafe], NOW).failsafe == (failsafe,)
