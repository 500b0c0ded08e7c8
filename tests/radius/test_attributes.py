"""What is inside attributes: vendors' own, TLVs, extended and long ones, fragments."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.radius.attributes import Leaf, assign, pack, unpack
from radius_bridge.radius.definitions import STRUCTURES, Definition
from radius_bridge.radius.dictionary import Dictionary, directory, standard
from radius_bridge.radius.packet import HEADER, MAX_VALUE, Attribute, Malformed, accounting_request, parse

SITE = """
VENDOR Wide 4711 format=2,2
BEGIN-VENDOR Wide
ATTRIBUTE Wide-Name 300 string
ATTRIBUTE Wide-Outer 301 tlv
ATTRIBUTE Wide-Middle 301.1 tlv
ATTRIBUTE Wide-Inner 301.1.2 integer
END-VENDOR Wide
VENDOR Bare 4712 format=1,0
BEGIN-VENDOR Bare
ATTRIBUTE Bare-Name 1 string
END-VENDOR Bare
VENDOR Huge 4713 format=4,0
BEGIN-VENDOR Huge
ATTRIBUTE Huge-Name 100000 string
END-VENDOR Huge
VENDOR Going 4714 format=1,1,c
BEGIN-VENDOR Going
ATTRIBUTE Going-Text 1 octets
ATTRIBUTE Going-Outer 2 tlv
ATTRIBUTE Going-Inner 2.1 string
END-VENDOR Going
VENDOR Acme 4715
BEGIN-VENDOR Acme format=Extended-Vendor-Specific-1
ATTRIBUTE Acme-Short 1 string
END-VENDOR Acme
BEGIN-VENDOR Acme format=Extended-Vendor-Specific-5
ATTRIBUTE Acme-Long 1 octets
END-VENDOR Acme
ATTRIBUTE Long-Text 245.1 octets
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Dictionary:
    file: Path = tmp_path_factory.mktemp("site") / "dictionary.site"
    file.write_text(SITE)
    return Dictionary(directory() / "dictionary", file)


def leaves(dictionary: Dictionary, *attributes: Attribute) -> list[Leaf]:
    return list(unpack(attributes, dictionary))


def shown(dictionary: Dictionary, *attributes: Attribute) -> list[str]:
    return [f"{dictionary.name(leaf.path)} = {leaf.show()}" for leaf in leaves(dictionary, *attributes)]


def vendors(number: int, payload: bytes) -> Attribute:
    return 26, number.to_bytes(4) + payload


def test_one_vendor_attribute_may_hold_several_of_the_vendors_rfc_2865_5_26(site: Dictionary) -> None:
    several = vendors(9, b"\x01\x05a=b" + b"\x02\x06Gi01" + b"\xc8\x03x")
    assert shown(site, several) == ["Cisco-AVPair = a=b", "Cisco-NAS-Port = Gi01", "Attr-26.9.200 = 0x78"]


def test_a_vendor_that_is_not_known_lays_out_its_attributes_as_recommended_rfc_2865_5_26(site: Dictionary) -> None:
    assert shown(site, vendors(99999, b"\x01\x03x")) == ["Attr-26.99999.1 = 0x78"]


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"\x01", "lacks its length"),
        (b"\x01\x01", "a length of 1 within an attribute is less than 2"),
        (b"\x01\x00", "a length of 0 within an attribute is less than 2"),
        (b"\x01\x05ab", "5 octets within an attribute run past its end"),
        (b"\x01\x03x\x02", "lacks its length"),
    ],
)
def test_a_vendors_octets_that_are_no_attributes_stay_whole_rfc_2865_5_26(
    site: Dictionary, payload: bytes, what: str
) -> None:
    before, leaf = leaves(site, (1, b"alice"), vendors(9, payload))
    assert before.value() == "alice"
    assert (leaf.path, leaf.octets) == ((26, 9), payload)
    with pytest.raises(Malformed, match=what) as caught:
        leaf.value()
    assert caught.value.offset == HEADER + len(b"..alice")


@pytest.mark.parametrize("octets", [b"", b"\0\0\0", b"\0\0\0\x09"])
def test_a_vendor_specific_attribute_needs_a_vendor_and_something_of_it(site: Dictionary, octets: bytes) -> None:
    (leaf,) = leaves(site, (26, octets))
    assert (leaf.path, leaf.octets) == ((26,), octets)
    with pytest.raises(Malformed, match="has a vendor's number and a value"):
        leaf.show()


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        (vendors(4711, b"\x01\x2c\x00\x06ab" + b"\x01\x2c\x00\x05c"), ["Wide-Name = ab", "Wide-Name = c"]),
        (vendors(4711, b"\x01\x2d\x00\x0c" + b"\x01\x08" + b"\x02\x06\0\0\0\x07"), ["Wide-Inner = 7"]),
        (vendors(4712, b"\x01all the rest"), ["Bare-Name = all the rest"]),
        (vendors(4713, b"\x00\x01\x86\xa0rest"), ["Huge-Name = rest"]),
    ],
)
def test_vendors_with_a_layout_of_their_own(site: Dictionary, attribute: Attribute, expected: list[str]) -> None:
    assert shown(site, attribute) == expected


def test_a_value_in_pieces_is_put_together(site: Dictionary) -> None:
    first = vendors(4714, b"\x01\x06\x80abc")
    assert shown(site, first, vendors(4714, b"\x01\x04\x00d"), (1, b"x")) == [
        "Going-Text = 0x61626364",
        "User-Name = x",
    ]
    (missing, other) = leaves(site, first, (1, b"x"))
    assert missing.malformed is not None
    assert missing.malformed.what == "the last piece of a vendor's attribute is missing"
    assert other.value() == "x"


def test_eap_message_goes_on_in_the_attributes_right_behind_rfc_3579_3_1(site: Dictionary) -> None:
    (whole, name, other) = leaves(site, (79, b"a" * 253), (79, b"b"), (1, b"alice"), (79, b"c"))
    assert whole.octets == b"a" * 253 + b"b"
    assert (name.value(), name.offset) == ("alice", HEADER + 255 + 3)
    assert other.octets == b"c"


def test_an_extended_attribute_has_a_type_of_its_own_rfc_6929_2_1(site: Dictionary) -> None:
    assert shown(site, (241, b"\x03\0\0\x10\0"), (241, b"\xc8x")) == ["Response-Length = 4096", "Attr-241.200 = 0x78"]
    (leaf,) = leaves(site, (241, b"\x03"))
    assert leaf.malformed is not None


def test_a_long_extended_attribute_comes_in_fragments_rfc_6929_2_2(site: Dictionary) -> None:
    fragments = pack((245, 1), b"x" * 600, site)
    assert [(kind, octets[:2], len(octets)) for kind, octets in fragments] == [
        (245, b"\x01\x80", 253),
        (245, b"\x01\x80", 253),
        (245, b"\x01\x00", 100),
    ]
    whole, name = leaves(site, *fragments, (1, b"alice"))
    assert (whole.path, whole.octets) == ((245, 1), b"x" * 600)
    assert name.offset == HEADER + 255 + 255 + 102


@pytest.mark.parametrize(
    ("attributes", "what"),
    [
        ([(245, b"\x01\x80" + b"x" * 251)], "the last fragment of a long extended attribute is missing"),
        ([(245, b"\x01\x80" + b"x" * 251), (1, b"x"), (245, b"\x01\0y")], "the last fragment"),
        ([(245, b"\x01\x80" + b"x" * 251), (245, b"\x02\0y")], "the last fragment"),
        ([(245, b"\x01\x80x"), (245, b"\x01\0y")], "not full says that there is more"),
        ([(245, b"\x01\x00")], "too few"),
        ([(245, b"\x01")], "too few"),
        ([(245, b"")], "too few"),
    ],
)
def test_fragments_that_do_not_make_a_whole_are_no_value_rfc_6929_2_2(
    site: Dictionary, attributes: list[Attribute], what: str
) -> None:
    first = leaves(site, *attributes)[0]
    assert (first.path, first.octets) == ((245,), attributes[0][1])
    assert first.malformed is not None
    assert what in first.malformed.what


def test_reserved_flags_of_a_fragment_are_ignored_rfc_6929_2_2(site: Dictionary) -> None:
    assert shown(site, (245, b"\x01\x7fx")) == ["Long-Text = 0x78"]


def test_tlvs_may_hold_tlvs_rfc_6929_2_3(site: Dictionary) -> None:
    mapping = (241, b"\x07" + b"\x03\x06\xc0\x00\x02\x01" + b"\x06\x06\0\0\x1f\x90")
    assert shown(site, mapping) == ["IP-Port-Map-Ext-IPv4-Addr = 192.0.2.1", "IP-Port-Map-Int-Port = 8080"]


@pytest.mark.parametrize("inner", [b"\x03", b"\x03\x01", b"\x03\x06\xc0\x00\x02\x01\x06\x07\0\0\x1f\x90"])
def test_of_tlvs_all_hold_or_none_rfc_6929_2_3(site: Dictionary, inner: bytes) -> None:
    (leaf,) = leaves(site, (241, b"\x07" + inner))
    assert leaf.path == (241,)
    assert leaf.malformed is not None


def test_vendors_have_extended_attributes_too_rfc_6929_2_4(site: Dictionary) -> None:
    acme = (4715).to_bytes(4)
    assert shown(site, (241, b"\x1a" + acme + b"\x01hello")) == ["Acme-Short = hello"]
    long = pack((245, 26, 4715, 1), b"y" * 1000, site)
    assert len(long) == 5
    (leaf,) = leaves(site, *long)
    assert (leaf.definition, leaf.octets) == (site["Acme-Long"], b"y" * 1000)
    (short,) = leaves(site, (241, b"\x1a" + acme + b"\x01"))
    assert short.malformed is not None


def test_an_attribute_that_is_wrong_inside_does_not_spoil_the_others_rfc_6929_2_8(site: Dictionary) -> None:
    first, wrong, last = leaves(site, (1, b"alice"), (241, b""), (44, b"1"))
    assert (first.value(), last.value()) == ("alice", "1")
    assert wrong.malformed is not None


@pytest.mark.parametrize(
    ("name", "octets", "tag", "text"),
    [
        ("Tunnel-Type", b"\x01\0\0\x0d", 1, "VLAN"),
        ("Tunnel-Type", b"\x00\0\0\x0d", None, "VLAN"),
        ("Tunnel-Private-Group-Id", b"\x1f42", 31, "42"),
        ("Tunnel-Private-Group-Id", b"42", None, "42"),
        ("Tunnel-Private-Group-Id", b"\x0042", None, "42"),
        ("Tunnel-Private-Group-Id", b"", None, ""),
        ("Tunnel-Password", b"\x01\x80\x01secret", 1, "0x8001736563726574"),
        ("User-Name", b"\x01a", None, "\x01a"),
    ],
)
def test_tunnel_attributes_may_begin_with_a_tag_rfc_2868_3(
    name: str, octets: bytes, tag: int | None, text: str
) -> None:
    (leaf,) = leaves(standard(), (standard()[name].number, octets))
    assert leaf.split_tag()[0] == tag
    assert leaf.show() == text


@pytest.mark.parametrize(
    ("text", "attribute"),
    [
        ("User-Name=alice", (1, b"alice")),
        ("User-Name = a = b ", (1, b"a = b")),
        ("Tunnel-Type:1=VLAN", (64, b"\x01\0\0\x0d")),
        ("Tunnel-Type=VLAN", (64, b"\0\0\0\x0d")),
        ("Tunnel-Private-Group-Id=42", (81, b"42")),
        ("Tunnel-Private-Group-Id:2=42", (81, b"\x0242")),
        ("Cisco-AVPair=a=b", (26, b"\0\0\0\x09\x01\x05a=b")),
        ("IPv6-6rd-BR-IPv4-Address=192.0.2.1", (173, b"\x03\x06\xc0\x00\x02\x01")),
        ("IP-Port-Map-Int-Port=80", (241, b"\x07\x06\x06\0\0\0\x50")),
    ],
)
def test_attributes_can_be_written_by_name(text: str, attribute: Attribute) -> None:
    assert assign(text, standard()) == [attribute]


@pytest.mark.parametrize("text", ["User-Name", "=x", "Nobody=x", "User-Name:1=x", "Tunnel-Type:32=VLAN", "Class=x"])
def test_what_names_no_attribute_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - messages are for people
        assign(text, standard())


@pytest.mark.parametrize(("path", "most"), [((1,), 253), ((26, 9, 1), 247), ((241, 200), 252), ((241, 7, 11), 250)])
def test_a_value_too_long_for_its_place_is_not_packed(path: tuple[int, ...], most: int) -> None:
    assert len(pack(path, bytes(most), standard())[0][1]) == MAX_VALUE
    with pytest.raises(Malformed, match=f"{most + 1} octets does not fit"):
        pack(path, bytes(most + 1), standard())


leaf_definitions = st.sampled_from([each for each in standard() if each.type.name not in STRUCTURES])


@given(st.lists(st.tuples(leaf_definitions, st.binary(min_size=1, max_size=245)), max_size=12))
def test_what_is_packed_is_unpacked(values: list[tuple[Definition, bytes]]) -> None:
    # Values of the same concatenated attribute, one right behind the other, are one value.
    apart = [
        (each, octets)
        for at, (each, octets) in enumerate(values)
        if not (each.concatenated and at and values[at - 1][0].path == each.path)
    ]
    attributes = [pair for each, octets in apart for pair in pack(each.path, octets, standard())]
    packet = parse(accounting_request(1, attributes, b"secret"))
    assert [(leaf.path, leaf.octets) for leaf in unpack(packet.attributes, standard())] == [
        (each.path, octets) for each, octets in apart
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from([26, 79, 241, 245, 246, 173, 64, 1]) | st.integers(0, 255), st.binary(max_size=253))
        | st.builds(
            lambda vendor, rest: (26, vendor.to_bytes(4) + rest),
            st.sampled_from([9, 311, 4711, 4712, 4713, 4714, 25053]),
            st.binary(max_size=30),
        )
        | st.builds(
            lambda kind, head, rest: (kind, head + rest),
            st.sampled_from([241, 245]),
            st.sampled_from([b"\x07", b"\x01\x80", b"\x1a\0\0\x12\x6b\x01", b"\x1a\0\0\0\0\x09\x01"]),
            st.binary(max_size=40) | st.just(b"x" * 247),
        ),
        max_size=12,
    )
)
def test_any_attributes_come_apart_and_nothing_of_them_is_lost(site: Dictionary, attributes: list[Attribute]) -> None:
    found = list(unpack(attributes, site))
    offsets = {HEADER + sum(2 + len(octets) for _, octets in attributes[:at]) for at in range(len(attributes))}
    assert {leaf.offset for leaf in found} <= offsets
    for leaf in found:
        try:
            assert leaf.show() is not None
        except Malformed as error:
            assert error.offset == leaf.offset  # noqa: PT017 - the error is one of two right outcomes
    # An attribute that is taken apart without a complaint says something, unless it is an empty structure.
    assert len(found) >= sum(1 for leaf in found if leaf.malformed is not None)
