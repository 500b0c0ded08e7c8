"""Why an address gets into a service: each link with its end, or what is missing."""

from collections.abc import Mapping

import pytest

from agent.desired import ALLOW, DENY, CustomSet, Desired, Failsafe, Posture, Target
from agent.why import Answer, Situation, around, explain, find_service
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import GroupRef, Member, Prefix, parse_prefix, user_group
from radius_bridge.policy.resolve import resolve
from radius_bridge.policy.services import Service, parse_ports

NOW = 1000.0
SSH = Service("ssh_tcp_22", (parse_ports("22"),))
WEB = Service("web_tcp_80", (parse_ports("80"), parse_ports("8080:8090")))
DNS = Service("dns_udp_53", (parse_ports("53/udp"),))
ALICE = parse_prefix("192.0.2.10")
STAFF, HERS = GroupRef("staff"), user_group("alice")


class Known:
    """What a host knows: grants by service or override, groups with their members."""

    def __init__(
        self, grants: Mapping[str, dict[Member, float]], groups: Mapping[GroupRef, dict[Member, float]]
    ) -> None:
        self._grants = grants
        self._groups = groups

    def grants(self, name: str) -> Mapping[Member, float]:
        return self._grants.get(name, {})

    def holders(self, member: Member) -> Mapping[GroupRef, float]:
        return {group: members[member] for group, members in self._groups.items() if member in members}

    def desired(self, posture: Posture, failsafe: tuple[Failsafe, ...]) -> Desired:
        names = (SSH.name, ALLOW, DENY, *(each.name for each in posture.sets))
        members = {name: resolve(self.grants(name), self._groups, NOW) for name in names}
        return Desired((SSH,), members, failsafe, posture)


def _why(
    grants: Mapping[str, dict[Member, float]],
    groups: Mapping[GroupRef, dict[Member, float]] | None = None,
    *,
    posture: Posture = Posture(),  # noqa: B008 — it is immutable
    failsafe: tuple[Failsafe, ...] = (),
    service: Service = SSH,
    kept: Mapping[str, tuple[Prefix, ...]] | None = None,
) -> Answer:
    known = Known(grants, groups or {})
    situation = Situation(known.desired(posture, failsafe), kept or {})
    return explain(ALICE, service, known, situation, NOW)


def test_a_member_is_told_every_link_with_its_end() -> None:
    found = _why({SSH.name: {STAFF: 5000}}, {STAFF: {HERS: NEVER}, HERS: {ALICE: 3000}})
    assert found.gets_in
    assert found.users == ("alice",)
    (way,) = found.ways
    assert [(link.member, link.what, link.end) for link in way.links] == [
        ("192.0.2.10", "alice", 3000),
        ("alice", "group:staff", NEVER),
        ("group:staff", "grant ssh_tcp_22", 5000),
    ]
    assert way.end == 3000


def test_a_network_that_is_granted_lets_its_addresses_in() -> None:
    found = _why({SSH.name: {parse_prefix("192.0.2.0/24"): NEVER}})
    assert found.gets_in
    assert [link.member for link in found.ways[0].links] == ["192.0.2.0/24"]


def test_without_a_grant_it_says_so() -> None:
    found = _why({})
    assert not found.gets_in
    assert found.reasons[0] == "no grant: nobody is granted ssh_tcp_22 (radius-bridge grant WHO ssh_tcp_22)"
    assert "radius-bridge who 192.0.2.10" in found.reasons[1]


def test_a_user_whose_groups_are_not_granted_is_told_which_they_are() -> None:
    found = _why({SSH.name: {GroupRef("dba"): NEVER}}, {HERS: {ALICE: 3000}})
    assert found.reasons == ("no grant of ssh_tcp_22 names alice, nor a group that holds them",)


def test_an_address_that_no_group_holds_is_no_member() -> None:
    found = _why({SSH.name: {STAFF: NEVER}}, {STAFF: {HERS: NEVER}})
    assert found.reasons[0] == "no member: ssh_tcp_22 is granted to group:staff, none of which holds 192.0.2.10"


def test_the_link_that_is_over_is_named() -> None:
    found = _why({SSH.name: {HERS: NEVER}}, {HERS: {ALICE: 900}})
    assert found.reasons == ("expired: 192.0.2.10 in alice",)
    assert found.ways[0].is_over


def test_overrides_come_first_and_say_by_which_way() -> None:
    groups: dict[GroupRef, dict[Member, float]] = {HERS: {ALICE: 3000}}
    denied = _why({SSH.name: {ALICE: NEVER}, DENY: {HERS: 2000}}, groups)
    assert not denied.gets_in
    assert denied.of == DENY
    assert denied.ways[0].end == 2000
    assert _why({ALLOW: {HERS: 2000}, DENY: {HERS: 2000}}, groups).gets_in


def test_a_custom_set_decides_before_the_service() -> None:
    posture = Posture(sets=(CustomSet("noted", Target.NONE), CustomSet("scanners", Target.DROP)))
    member: dict[Member, float] = {ALICE: NEVER}
    found = _why({SSH.name: member, "noted": member, "scanners": member}, posture=posture)
    assert not found.gets_in
    assert found.reasons == ("a member of the set scanners: drop",)


def test_the_failsafe_comes_before_everything() -> None:
    failsafe = (Failsafe((parse_prefix("192.0.2.0/24"),), SSH.ports),)
    found = _why({DENY: {ALICE: NEVER}}, failsafe=failsafe)
    assert found.gets_in
    assert "failsafe" in found.reasons[0]


def test_a_service_that_was_not_read_yet_is_not_ready() -> None:
    found = _why({WEB.name: {ALICE: NEVER}}, service=WEB)
    assert not found.gets_in
    assert found.reasons[0].startswith("not ready")


def test_what_the_guard_holds_back_is_told() -> None:
    found = _why({SSH.name: {ALICE: NEVER}}, kept={SSH.name: (ALICE,)})
    assert "192.0.2.10: should go, which this host holds back (radius-bridge-agent status)" in found.reasons


def test_before_consul_was_read_nothing_is_enforced() -> None:
    found = explain(ALICE, SSH, Known({}, {}), Situation(None), NOW)
    assert found.reasons == ("nothing is enforced yet: Consul was not read",)


def test_groups_in_a_circle_end() -> None:
    found = _why({SSH.name: {STAFF: NEVER}}, {STAFF: {HERS: NEVER}, HERS: {STAFF: NEVER, ALICE: NEVER}})
    assert found.gets_in


@pytest.mark.parametrize("text", ["ssh_tcp_22", "ssh", "22", "22/tcp"])
def test_a_service_goes_by_its_name_or_port(text: str) -> None:
    assert find_service(text, (SSH, WEB, DNS)) == SSH


@pytest.mark.parametrize(("text", "service"), [("8085/tcp", WEB), ("8085", WEB), ("53", DNS), ("53/udp", DNS)])
def test_a_port_within_a_range_is_enough(text: str, service: Service) -> None:
    assert find_service(text, (SSH, WEB, DNS)) == service


def test_what_could_be_several_services_is_asked_back() -> None:
    other = Service("ssh_tcp_2222", (parse_ports("2222"),))
    with pytest.raises(ValueError, match="'ssh' could be ssh_tcp_22, ssh_tcp_2222: name one of them"):
        find_service("ssh", (SSH, other))
    with pytest.raises(ValueError, match="'ftp' is no service that this host protects; it protects: ssh_tcp_22"):
        find_service("ftp", (SSH,))


def test_an_address_lies_in_all_shorter_prefixes() -> None:
    found = around(ALICE)
    assert len(found) == 33
    assert found[0] == ALICE
    assert parse_prefix("192.0.2.0/24") in found
    assert found[-1] == Prefix(4, 0, 0)
