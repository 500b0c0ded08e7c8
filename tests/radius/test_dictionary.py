"""Names, numbers and types of attributes."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.radius.definitions import STRUCTURES, Definition, DictionaryError
from radius_bridge.radius.dictionary import Dictionary, directory, standard, with_sites


@pytest.mark.parametrize(
    ("name", "number", "kind"),
    [
        ("User-Name", 1, "string"),
        ("Framed-IP-Address", 8, "ipaddr"),
        ("Acct-Status-Type", 40, "integer"),
        ("Event-Timestamp", 55, "date"),
        ("Message-Authenticator", 80, "octets"),
        ("NAS-IPv6-Address", 95, "ipv6addr"),
        ("Framed-Interface-Id", 96, "ifid"),
        ("Delegated-IPv6-Prefix", 123, "ipv6prefix"),
        ("Framed-IPv6-Address", 168, "ipv6addr"),
    ],
)
def test_attributes_are_found_by_name_and_number(name: str, number: int, kind: str) -> None:
    assert standard()[name] == standard()[number]
    assert (standard()[name].path, standard()[name].type.name) == ((number,), kind)


def test_no_number_is_given_twice() -> None:
    paths = [attribute.path for attribute in standard()]
    assert len(paths) == len(set(paths)) > 500


def test_values_have_names() -> None:
    assert standard()["Acct-Status-Type"].values["Interim-Update"] == 3
    assert standard()["Acct-Status-Type"].encode("Accounting-Off") == bytes((0, 0, 0, 8))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("User-Name", "Jürgen", "Jürgen"),
        ("Class", "0x00ff", b"\x00\xff"),
        ("Acct-Session-Time", "4294967295", 4294967295),
        ("Event-Timestamp", "1700000000", 1700000000),
        ("Framed-IP-Address", "192.0.2.1", parse_prefix("192.0.2.1")),
        ("Framed-IPv6-Address", "2001:db8::1", parse_prefix("2001:db8::1")),
        ("Framed-IPv6-Prefix", "2001:db8::/32", parse_prefix("2001:db8::/32")),
        ("PMIP6-Home-IPv4-HoA", "192.0.2.0/24", parse_prefix("192.0.2.0/24")),
        ("Framed-Interface-Id", "0200:5eff:fe00:0001", bytes.fromhex("02005efffe000001")),
        ("MIP6-Feature-Vector", "18446744073709551615", (1 << 64) - 1),
        ("PKM-SAID", "65535", 65535),
        ("Fortinet-WirelessController-Device-MAC", "02:00:5e:00:00:01", bytes.fromhex("02005e000001")),
        ("Tunnel-Medium-Type", "IEEE-802", 6),
        ("Originating-Line-Info", "0x003d", b"\x00\x3d"),
    ],
)
def test_what_people_write_is_read_back(name: str, text: str, value: object) -> None:
    octets = standard()[name].encode(text)
    assert standard()[name].decode(octets) == value
    assert standard()[name].encode(standard()[name].show(standard()[name].decode(octets))) == octets


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Acct-Status-Type", "Begin"),
        ("Acct-Session-Time", "-1"),
        ("Acct-Session-Time", "4294967296"),
        ("Framed-IP-Address", "2001:db8::1"),
        ("Framed-IPv6-Prefix", "2001:db8::1/32"),
        ("Class", "xyz"),
        ("PKM-SAID", "65536"),
        ("Tunnel-Medium-Type", "16777216"),
        ("PMIP6-Home-IPv4-HoA", "2001:db8::/32"),
        ("Framed-Interface-Id", "1:2:3"),
        ("Originating-Line-Info", "0x00"),
        ("IPv6-6rd-Configuration", "0x00"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - messages are for people
        standard()[name].encode(text)


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("Acct-Session-Time", b"\0\0\0"),
        ("Event-Timestamp", bytes(8)),
        ("Framed-IP-Address", bytes(16)),
        ("Framed-IPv6-Address", bytes(4)),
        ("Framed-IPv6-Prefix", b"\0"),
        ("Framed-IPv6-Prefix", b"\0\x81" + bytes(16)),
        ("Framed-IPv6-Prefix", b"\0\x40" + bytes(7)),
        ("Framed-IPv6-Prefix", b"\0\x08\x20\x01"),
        ("PMIP6-Home-IPv4-HoA", b"\0\x18\xc0\0\x02"),
        ("PMIP6-Home-IPv4-HoA", b"\0\x21\xc0\0\x02\0"),
        ("Framed-Interface-Id", bytes(7)),
        ("Originating-Line-Info", bytes(3)),
    ],
)
def test_a_value_of_the_wrong_length_is_refused(name: str, octets: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - messages are for people
        standard()[name].decode(octets)


def test_a_prefix_needs_only_the_octets_it_has() -> None:
    octets = b"\0\x20\x20\x01\x0d\xb8"
    assert standard()["Framed-IPv6-Prefix"].decode(octets) == Prefix(6, 0x20010DB8 << 96, 32)


@given(st.sampled_from(list(standard())), st.binary(max_size=253))
def test_any_octets_are_a_value_or_a_value_error(attribute: Definition, octets: bytes) -> None:
    try:
        value = attribute.decode(octets)
    except ValueError:
        return
    if isinstance(value, str):
        assert value.encode("utf-8", "surrogateescape") == octets
    if attribute.type.name not in STRUCTURES and not attribute.has_tag_always:
        assert attribute.decode(attribute.encode(attribute.show(value))) == value


def read(tmp_path: Path, text: str) -> Dictionary:
    """A dictionary of one file, with the extended attributes' and the vendors' own numbers before it."""
    file = tmp_path / "dictionary.site"
    file.write_text(text)
    return Dictionary(directory() / "dictionary.rfc2865", directory() / "dictionary.rfc6929", file)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\nATTRIBUTE Foo 200 whatever\n", 2, "Foo has type whatever; known are .*ipaddr"),
        ("ATTRIBUTE Foo 256 string", 1, "Foo: 256 is not within 0..255"),
        ("ATTRIBUTE Foo x string", 1, "'x' is no number"),
        ("ATTRIBUTE Foo 200 string loud", 1, "has the flag loud"),
        ("ATTRIBUTE User-Name 200 string", 1, "User-Name is 1 already; choose another name for 200"),
        ("ATTRIBUTE Foo 1.2 string", 1, "Foo: 1 is not known to hold other attributes"),
        ("ATTRIBUTE Foo", 1, "'ATTRIBUTE Foo' is none of .*ATTRIBUTE NAME NUMBER TYPE"),
        ("# nothing\nVALUE Foo Bar 1", 2, "the attribute Foo is not known"),
        ("VALUE Service-Type Bar x", 1, "'x' is no number"),
        ("BEGIN-VENDOR Acme", 1, "the vendor Acme is not known"),
        ("VENDOR Acme 4711\nBEGIN-VENDOR Acme\n", 3, "END-VENDOR Acme is missing"),
        ("VENDOR Acme 4711\nEND-VENDOR Acme\n", 2, "END-VENDOR Acme ends nothing"),
        ("VENDOR Acme 4711 format=3,1", 1, "types have 1, 2 or 4 octets, lengths 0, 1 or 2"),
        ("VENDOR Acme 4711 layout=1,1", 1, "write format=1,1"),
        ("VENDOR Acme 0", 1, "0 is no vendor's number"),
        ("BEGIN-TLV User-Name", 1, "User-Name has type string, not tlv"),
        ("VENDOR Acme 4711\nBEGIN-VENDOR Acme format=User-Name", 2, "User-Name has type string; extended vendors"),
        ("$INCLUDE dictionary.gone", 1, "dictionary.gone is not there"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_file_and_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(DictionaryError, match=rf"dictionary\.site:{line}: .*{message}"):
        read(tmp_path, text)


def test_a_file_that_is_not_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "dictionary.site").write_bytes(b"\xff")
    with pytest.raises(DictionaryError, match=r"dictionary\.site: is not UTF-8 \(octet 0\)"):
        with_sites([tmp_path])


def test_a_vendors_layout_limits_its_numbers(tmp_path: Path) -> None:
    vendor = "VENDOR Acme 4711 format=2,1\nBEGIN-VENDOR Acme\nATTRIBUTE Foo {} string\nEND-VENDOR Acme\n"
    assert read(tmp_path, vendor.format(65535))["Foo"].path == (26, 4711, 65535)
    with pytest.raises(DictionaryError, match=r"65536 is not within 0\.\.65535"):
        read(tmp_path, vendor.format(65536))


def test_tlvs_and_extended_vendor_attributes_have_their_place(tmp_path: Path) -> None:
    dictionary = read(
        tmp_path,
        "VENDOR Acme 4711\nBEGIN-VENDOR Acme format=Extended-Vendor-Specific-5\nATTRIBUTE Outer 7 tlv\n"
        "BEGIN-TLV Outer\nATTRIBUTE Inner 0x08 integer\nEND-TLV Outer\nEND-VENDOR Acme\n",
    )
    assert dictionary["Inner"].path == (245, 26, 4711, 7, 8)


def test_a_site_adds_its_own_attributes_and_may_name_ours_anew(tmp_path: Path) -> None:
    (tmp_path / "dictionary.ours").write_text("ATTRIBUTE Badge 224 string\nATTRIBUTE Login 1 string\n")
    (tmp_path / "notes.txt").write_text("not a dictionary")
    dictionary = with_sites([tmp_path])
    assert dictionary["Badge"].path == (224,)
    assert dictionary.name((1,)) == "Login"
    assert dictionary["User-Name"].path == dictionary["Login"].path


def test_a_directory_without_dictionaries_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match="has no file whose name begins with dictionary"):
        with_sites([tmp_path])
    with pytest.raises(DictionaryError, match="gone: cannot be read"):
        with_sites([tmp_path / "gone"])


def test_a_file_that_includes_itself_is_read_once(tmp_path: Path) -> None:
    assert read(tmp_path, "$INCLUDE dictionary.site\nATTRIBUTE Foo 200 string")["Foo"].path == (200,)


def test_what_has_no_name_is_called_by_its_numbers() -> None:
    assert standard().name((26, 9, 200)) == "Attr-26.9.200"


WORDS = """ATTRIBUTE VALUE VENDOR BEGIN-VENDOR END-VENDOR BEGIN-TLV END-TLV $INCLUDE Foo Bar User-Name 1 26 241.26
    1.1 -1 0x string tlv evs integer octets[5] octets[ format=2,2 format= has_tag concat"""

lines = st.lists(
    st.text(max_size=30) | st.lists(st.sampled_from(WORDS.split()), max_size=6).map(" ".join), max_size=8
).map("\n".join)


@given(lines)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_dictionary_or_a_dictionary_error(tmp_path: Path, text: str) -> None:
    with contextlib.suppress(DictionaryError):
        read(tmp_path, text)
