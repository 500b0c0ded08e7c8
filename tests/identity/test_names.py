"""User names as they arrive: whom they mean, and those that mean nobody."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from precis_i18n import get_profile

from radius_bridge.identity.names import LONGEST, NameRefused, Names, Naming, NoUser, case_mapped
from radius_bridge.policy.members import user_group

DEFAULT = Names(Naming())
STATION = "00:1b:2c:3d:4e:5f"


def user(name: str, naming: Naming | None = None) -> str:
    """The user, or in brackets why there is none."""
    named = (DEFAULT if naming is None else Names(naming)).read(name.encode("utf-8", "surrogateescape"))
    assert (named.user == "") == (named.no_user is not None)
    return named.user or f"({named.no_user})"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alice", "alice"),
        ("Alice", "alice"),
        ("ALICE@Corp.Example", "alice@corp.example"),
        ("CORP\\Alice", "alice@corp"),
        ("alice@corp", "alice@corp"),
        ("ＡＬＩＣＥ", "alice"),
        ("JÜRGEN", "jürgen"),
        ("Ju\u0308rgen", "jürgen"),
        ("Straße", "straße"),
        ("Mary Ann", "mary ann"),
        ("o'neil+test_1", "o'neil+test_1"),
        ("100%", "100%"),
        ("$a", "$a"),
        ("Realm/user", "realm/user"),
        ("202311220042", "202311220042"),
    ],
)
def test_row_11_domains_realms_and_case_are_one_form_rfc_8265(name: str, expected: str) -> None:
    assert user(name) == expected


def test_row_11_two_realms_are_two_users_unless_the_configuration_says_that_they_are_one() -> None:
    names = ["alice", "alice@a.example", "alice@b.example", "A\\alice"]
    assert len({user(name) for name in names}) == 4
    one = Naming.check({"A.example": "", "a": "", "B.Example": "b.example"}, ())
    assert [user(name, one) for name in names] == ["alice", "alice", "alice@b.example", "alice"]
    assert user("alice@c.example", one) == "alice@c.example"


def test_row_11_a_slash_means_a_realm_only_if_it_is_configured() -> None:
    assert user("Realm/user", Naming(slash_realms=True)) == "user@realm"


@pytest.mark.parametrize(
    "name",
    ["CORP\\alice@evil.example", "alice@a.example@b.example", "A\\B\\alice", "alice@a\\b", "A\\b@"],
)
def test_a_name_that_could_be_in_either_of_two_realms_is_refused(name: str) -> None:
    assert user(name) == "(bad-name)"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a\0b",
            "a\nb",
            "a\u202eb",
            "a\x7f",
            "a\u200bb",
            "\udcff\udcfe",
            "alice@",
            "\\alice",
            "CORP\\",
            "\\",
            "alice ",
        ),
        *(
            " alice",
            "a  b",
            "a\u00a0b",
            "ﬁn",
            "א1a",
            "İ" * 126,
            "host/",
            "host/a/b",
            "host/.corp",
            "host/pc@",
            "alice\0\0",
        ),
    ],
)
def test_what_nobody_could_name_in_a_grant_is_refused(name: str) -> None:
    assert user(name) == "(bad-name)"


@pytest.mark.parametrize("name", ["alice＠corp", "CORP＼alice", "host／pc.corp", "a@b＠c", "alice＠corp@evil.example"])
def test_a_wide_form_of_a_separator_brings_nobody_into_another_realm(name: str) -> None:
    assert user(name) == "(bad-name)"


@pytest.mark.parametrize("name", ["alice\0", "Alice\0"])
def test_one_nul_at_the_end_is_not_of_the_name_rfc_2865_5(name: str) -> None:
    assert user(name) == "alice"
    assert user("CORP\\" + name) == "alice@corp"
    assert user(f"anonymous{name[5:]}") == "(never-bound)"


@pytest.mark.parametrize("name", ["", " ", "   ", "\0"])
def test_no_name_is_nobodys(name: str) -> None:
    assert user(name) == "(no-name)"


@pytest.mark.parametrize("name", ["anonymous", "Anonymous@Example.ORG", "ANON\\anonymous", "@example.org"])
def test_row_8_an_outer_eap_identity_is_never_bound(name: str) -> None:
    assert user(name) == "(never-bound)"


def test_row_8_the_list_of_names_never_bound_is_configured() -> None:
    naming = Naming.check({"corp": ""}, ("Guest", "kiosk@Lab.example"))
    assert user("guest@any.example", naming) == "(never-bound)"
    assert user("CORP\\guest", naming) == "(never-bound)"
    assert user("kiosk@lab.example", naming) == "(never-bound)"
    assert user("kiosk", naming) == "kiosk"
    assert user("anonymous", naming) == "anonymous"


@pytest.mark.parametrize(
    "name", ["host/pc.corp.example", "HOST/pc", "CORP\\PC$", "pc$", "pc$@corp.example", "host/pc.corp@CORP"]
)
def test_row_9_a_machine_account_is_nobody(name: str) -> None:
    assert user(name) == "(machine)"


def test_row_9_machines_are_users_if_configured_and_both_of_their_names_are_one() -> None:
    naming = Naming.check({"CORP": "corp.example"}, (), bind_machines=True)
    assert user("host/PC.corp.example", naming) == user("CORP\\PC$", naming) == "pc$@corp.example"
    assert user("pc@corp.example", naming) == "pc@corp.example"


@pytest.mark.parametrize(
    "spelling",
    [
        *("00:1b:2c:3d:4e:5f", "00-1B-2C-3D-4E-5F", "001b.2c3d.4e5f", "001B-2C3D-4E5F", "001b:2c3d:4e5f"),
        *("00 1b 2c 3d 4e 5f", "00.1b.2c.3d.4e.5f", "001b2c-3d4e5f", "001B2C:3D4E5F", "001b2c3d4e5f", "001B2C3D4E5F"),
    ],
)
def test_row_10_mac_authentication_is_recognised_in_every_spelling(spelling: str) -> None:
    assert DEFAULT.read(spelling.encode(), STATION).no_user is NoUser.MAC


def test_row_10_a_name_of_twelve_hexadecimal_digits_is_a_mac_address_only_if_the_station_has_it() -> None:
    assert DEFAULT.read(b"202311220042", STATION).user == "202311220042"
    assert DEFAULT.read(b"202311220042").user == "202311220042"
    assert DEFAULT.read(b"202311220042", "20:23:11:22:00:42").no_user is NoUser.MAC
    assert user("00:1b:2c:3d:4e:5f@mac.example") == user("CORP\\00-1B-2C-3D-4E-5F") == "(mac)"
    assert user("００-1b-2c-3d-4e-5f") == "(mac)"
    assert user("00:1b:2c:3d:4e:5f-alice") == "00:1b:2c:3d:4e:5f-alice"


words = st.text(st.sampled_from("aAbßüÜİΣ ＡK\u0301@\\/$.%-＠＼／＄－０") | st.characters(codec="utf-8"), max_size=12)


@given(words)
def test_a_users_name_means_himself(name: str) -> None:
    found = user(name)
    if not found.startswith("("):
        assert user(found) == found
        assert len(user_group(found).name) <= 800
        assert found.isprintable()


@given(words, words)
def test_only_names_that_differ_in_case_width_or_notation_are_one_user(one: str, other: str) -> None:
    a, b = DEFAULT.read(one.encode("utf-8", "replace")), DEFAULT.read(other.encode("utf-8", "replace"))
    if a.user and a.user == b.user:
        assert a.realm == b.realm


@given(
    st.binary(max_size=LONGEST)
    | st.from_regex(rb"[A-Za-z0-9._-]+", fullmatch=True)
    | st.from_regex(rb"([0-9A-F]{2}[.-]?){6}x?", fullmatch=True)
)
@example(b"anonymous")
def test_any_octets_are_a_user_or_a_reason(raw: bytes) -> None:
    named, steps = DEFAULT.explain(raw, STATION)
    assert (named.user == "") == (named.no_user is not None)
    assert named == DEFAULT.read(raw, STATION)
    assert named.user or steps


@pytest.mark.parametrize(
    ("typed", "means"), [("Alice", "alice"), ("CORP\\Alice", "alice@corp"), ("alice@corp", "alice@corp")]
)
def test_engineers_may_type_a_name_as_it_logs_in(typed: str, means: str) -> None:
    assert DEFAULT.typed(typed) == means


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("anonymous", "is never bound"),
        ("CORP\\pc$", "is a machine"),
        ("00-1b-2c-3d-4e-5f", "is a MAC address"),
        ("A\\b@c", "has \\\\ and @: it could be a name in either of two realms"),
        ("a  b", "'a  b' is no user name of RFC 8265: empty"),
        ("ﬁn", "is no user name of RFC 8265: has_compat"),
    ],
)
def test_a_name_that_reaches_nothing_is_refused_when_it_is_typed(typed: str, why: str) -> None:
    with pytest.raises(NameRefused, match=why):
        DEFAULT.typed(typed)


@pytest.mark.parametrize(
    ("realms", "never", "why"),
    [
        ({"": "corp"}, (), "names without a realm cannot get one"),
        ({"CORP": "", "corp": "x"}, (), "'corp' is there twice"),
        ({"a@b": ""}, (), "'a@b': write the realm alone"),
        ({"corp\\": ""}, (), "write the realm alone"),
        ({"a": "b", "b": ""}, (), "'a' becomes 'b', and that '': write the last one at once"),
        ({"a\0": ""}, (), "is no user name of RFC 8265"),
        ({}, ("@x",), "'@x': write name, for any realm, or name@realm"),
        ({}, ("a@b@c",), "write name, for any realm"),
        ({}, ("CORP\\a",), "write name, for any realm"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(realms: dict[str, str], never: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("\\", "\\\\")):
        Naming.check(realms, never)


def test_a_realm_may_become_itself_and_others_it() -> None:
    assert Naming.check({"CORP": "corp.example", "corp.example": "corp.example"}, ()).realms["corp"] == "corp.example"


def test_parts_between_single_spaces_are_mapped_each_rfc_8265_3_1() -> None:
    assert case_mapped("Mary ANN") == "mary ann"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_the_short_way_for_ascii_is_what_the_library_does(name: str) -> None:
    assert case_mapped(name) == get_profile("UsernameCaseMapped").enforce(name)
