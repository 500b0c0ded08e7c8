"""Which attributes name the user, and which groups they put him into."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.identity.names import Naming
from radius_bridge.radius.addresses import Source
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import Attribute
from radius_bridge.radius.users import USER_NAME, GroupRule, Told, Users, default

CUI, CLASS = Source("Chargeable-User-Identity"), Source("Class", re.compile("^user=(.+)$"))
VENDORS = Source("Cisco-AVPair", re.compile("^username=(.+)$"))


def read(users: Users, *texts: str, station: str = "", allowed: frozenset[str] | None = None) -> Told:
    """What `users` reads in attributes written as NAME=VALUE; octets may be written as text in quotes."""
    attributes: list[Attribute] = []
    for text in texts:
        name, _, value = text.partition("=")
        octets = value[1:-1].encode().hex() if value.startswith("'") else value
        attributes += assign(f"{name}={octets}", standard())
    return users.read(attributes, station, allowed)


def named_by(*sources: Source) -> Users:
    return Users(Naming(), sources, (), standard())


def grouped(*rules: GroupRule) -> Users:
    return Users(Naming(), (USER_NAME,), rules, standard())


def test_without_configuration_the_user_name_counts_and_there_are_no_groups() -> None:
    assert read(default(), "User-Name=Alice", "Class='staff'") == Told(default().names.read(b"alice"))


@pytest.mark.parametrize(
    ("texts", "user"),
    [
        (["User-Name=anonymous@x", "Class='user=alice'"], "alice"),
        (["User-Name=anonymous@x", "Class='radius-42'", "Class='user=alice'"], "alice"),
        (["User-Name=bob", "Class='user=alice'"], "bob"),
        (["User-Name=anonymous@x", "Chargeable-User-Identity='Alice'"], "alice"),
        (["Class='user=carol'", "Chargeable-User-Identity='alice'"], "alice"),
        (["Cisco-AVPair=audit-session-id=1", "Cisco-AVPair=username=CORP\\alice"], "alice@corp"),
        (["User-Name=host/pc.corp", "Class='user=alice'"], "alice"),
        (["User-Name=", "Class='user='"], ""),
        (["User-Name=anonymous", "Class=0x757365723dff"], ""),
        # RFC 4372 §2.2: a single NUL asks for the identity and is none.
        (["User-Name=anonymous", "Chargeable-User-Identity=0x00", "Class='user=alice'"], "alice"),
    ],
)
def test_row_8_the_first_source_that_names_a_user_counts(texts: list[str], user: str) -> None:
    assert read(named_by(USER_NAME, CUI, CLASS, VENDORS), *texts).named.user == user


def test_row_8_what_the_server_says_comes_first_if_it_stands_first() -> None:
    users = named_by(CLASS, USER_NAME)
    assert read(users, "User-Name=mallory", "Class='user=alice'").named.user == "alice"
    assert read(users, "User-Name=mallory", "Class='x'").named.user == "mallory"


def test_if_no_source_names_a_user_the_reason_is_the_first_ones() -> None:
    users = named_by(USER_NAME, CLASS)
    assert read(users, "User-Name=host/pc.corp", "Class='user=anonymous'").named.no_user == "machine"
    assert read(users, "User-Name=anonymous", "Class='user=pc$'").named.no_user == "never-bound"
    assert read(users).named.no_user == "no-name"


STAFF = GroupRule("Class", "radius.staff", value="staff")


@pytest.mark.parametrize(
    ("rule", "text", "matches"),
    [
        (STAFF, "Class='staff'", True),
        (STAFF, "Class='staff2'", False),
        (STAFF, "Class='Staff'", False),
        (STAFF, "Class=0xff", False),
        (GroupRule("Class", "radius.x", pattern=re.compile("role=(it|hr)\\b")), "Class='id=7;role=hr'", True),
        (GroupRule("Filter-Id", "radius.x", value="guest"), "Filter-Id=guest", True),
        (GroupRule("Tunnel-Private-Group-Id", "radius.x", value="42"), "Tunnel-Private-Group-Id:1=42", True),
        (GroupRule("Tunnel-Private-Group-Id", "radius.x", value="42"), "Tunnel-Private-Group-Id=42", True),
        (GroupRule("Service-Type", "radius.x", value="Call-Check"), "Service-Type=Call-Check", True),
        (GroupRule("Service-Type", "radius.x", value="10"), "Service-Type=Call-Check", False),
        (GroupRule("NAS-IP-Address", "radius.x", pattern=re.compile("^192.0.2.")), "NAS-IP-Address=192.0.2.7", True),
        (GroupRule("User-Name", "radius.x", pattern=re.compile("@vpn$")), "User-Name=alice@vpn", True),
        (GroupRule("Aruba-User-Role", "radius.x", value="employee"), "Aruba-User-Role=employee", True),
        (GroupRule("Mikrotik-Group", "radius.x", value="full"), "Mikrotik-Group=full", True),
        (GroupRule("Cisco-AVPair", "radius.x", pattern=re.compile("^role=x$")), "Cisco-AVPair=role=x", True),
    ],
)  # fmt: skip
def test_an_attribute_puts_its_session_into_a_group(rule: GroupRule, text: str, matches: bool) -> None:
    texts = [text] if text.startswith("User-Name") else ["User-Name=alice", text]
    assert read(grouped(rule), *texts).groups == ((rule.group,) if matches else ())


def test_several_groups_match_and_those_beyond_three_are_counted() -> None:
    rules = [GroupRule("Class", f"radius.{name}", pattern=re.compile(name)) for name in "abcde"]
    three = ("radius.a", "radius.b", "radius.c")
    told = read(grouped(*rules), "User-Name=alice", "Class='a'", "Class='bc'")
    assert (told.groups, told.left_out) == (three, 0)
    told = read(grouped(*rules), "User-Name=alice", "Class='abcde'")
    assert (told.groups, told.left_out) == (three, 2)
    twice = grouped(STAFF, GroupRule("Filter-Id", "radius.staff", value="staff"))
    told = read(twice, "User-Name=alice", "Class='staff'", "Filter-Id=staff")
    assert (told.groups, told.left_out) == (("radius.staff",), 0)


def test_a_client_puts_users_only_into_the_groups_that_it_may() -> None:
    users = grouped(STAFF, GroupRule("Class", "radius.all", pattern=re.compile("")))
    told = read(users, "User-Name=alice", "Class='staff'", allowed=frozenset({"radius.all"}))
    assert told.groups == ("radius.all",)


def test_machines_and_devices_may_have_groups_though_they_are_no_users() -> None:
    users = grouped(GroupRule("User-Name", "radius.machines", pattern=re.compile(r"^host/|\$$")))
    told = read(users, "User-Name=host/pc.corp")
    assert (told.named.user, told.groups) == ("", ("radius.machines",))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("Nobody"), "know no attribute of this name"),
        (Source("Session-Timeout"), "has type integer: names are in octets and string"),
        (Source("Vendor-Specific"), "cannot be read as text"),
        (Source("User-Password"), "cannot be read as text"),
        (Source("Class", re.compile("x")), "a pattern needs a group for the name"),
    ],
)
def test_a_source_that_names_nobody_is_refused(source: Source, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_by(source)


@given(st.lists(st.tuples(st.sampled_from([1, 25, 26, 89]), st.binary(max_size=40)), max_size=6))
def test_whatever_comes_it_is_a_user_or_a_reason(attributes: list[Attribute]) -> None:
    users = Users(Naming(), (USER_NAME, CUI, CLASS, VENDORS), (STAFF,), standard())
    told, _, _ = users.explain(attributes, "")
    assert (told.named.user == "") == (told.named.no_user is not None)
