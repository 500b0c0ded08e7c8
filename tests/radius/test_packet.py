"""The codec of RADIUS packets; pyrad is the independent opinion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad.packet import AcctPacket

from radius_bridge.radius.packet import (
    HEADER,
    MAX_LENGTH,
    Attribute,
    Code,
    Malformed,
    accounting_request,
    accounting_response,
    is_genuine,
    is_response,
    parse,
)

SECRET = b"a shared secret!"

attributes = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind != 80), st.binary(max_size=253)), max_size=15
)


def headed(body: bytes) -> bytes:
    """Octets with a header whose Length is right."""
    return b"\x04\x01" + (HEADER + len(body)).to_bytes(2) + bytes(16) + body


TABLE: dict[str, list[Attribute]] = {
    "empty": [],
    "start": [
        (40, bytes((0, 0, 0, 1))),
        (1, b"alice"),
        (44, b"5E2A-01"),
        (8, bytes((192, 0, 2, 1))),
        (4, bytes((192, 0, 2, 254))),
        (55, (1_700_000_000).to_bytes(4)),
    ],
    "proxied": [(40, bytes((0, 0, 0, 2))), (33, b"first"), (44, b"x"), (33, b"\0\1\2"), (33, b"")],
    "vendor": [(26, bytes((0, 0, 0, 9, 1, 7)) + b"a=b=c"), (1, "Jürgen".encode())],
    "longest value": [(1, b"\xff" * 253)],
    "unknown type": [(241, b"\x01data"), (0, b"zero")],
}


@given(st.integers(0, 255), attributes, st.binary(min_size=1, max_size=64), st.booleans())
def test_what_is_built_is_read_back_and_genuine(
    identifier: int, pairs: list[Attribute], secret: bytes, signed: bool
) -> None:
    packet = parse(accounting_request(identifier, pairs, secret, message_authenticator=signed))
    assert packet.code == Code.ACCOUNTING_REQUEST
    assert packet.identifier == identifier
    assert packet.attributes[int(signed) :] == pairs
    assert is_genuine(packet, secret)
    assert not is_genuine(packet, secret + b"x")


@given(st.binary(max_size=300) | st.binary(max_size=200).map(headed))
def test_any_octets_are_a_packet_or_malformed(data: bytes) -> None:
    try:
        packet = parse(data)
    except Malformed as error:
        offset = error.offset
    else:
        assert HEADER <= len(packet.raw) <= min(len(data), MAX_LENGTH)
        assert HEADER + sum(2 + len(value) for _, value in packet.attributes) == len(packet.raw)
        is_genuine(packet, SECRET)
        offset = len(packet.raw)
    assert 0 <= offset <= len(data)


@given(attributes, st.data())
def test_a_changed_octet_is_malformed_or_not_genuine_rfc_5080_2_3_3(
    pairs: list[Attribute], data: st.DataObject
) -> None:
    request = bytearray(accounting_request(7, pairs, SECRET))
    position = data.draw(st.integers(0, len(request) - 1))
    request[position] ^= data.draw(st.integers(1, 255))
    try:
        packet = parse(bytes(request))
    except Malformed:
        return
    assert not is_genuine(packet, SECRET)


@given(attributes, st.data())
def test_a_packet_that_was_cut_is_malformed_rfc_2866_3(pairs: list[Attribute], data: st.DataObject) -> None:
    request = accounting_request(7, pairs, SECRET)
    with pytest.raises(Malformed):
        parse(request[: data.draw(st.integers(0, len(request) - 1))])


def test_octets_behind_the_length_are_ignored_rfc_2866_3() -> None:
    request = accounting_request(1, TABLE["start"], SECRET)
    packet = parse(request + b"padding")
    assert packet.raw == request
    assert is_genuine(packet, SECRET)


@pytest.mark.parametrize(
    ("attribute_octets", "offset"),
    [
        (b"\x01", 20),  # a type and no length
        (b"\x01\x00", 21),  # lengths include the two octets of type and length
        (b"\x01\x01", 21),
        (b"\x01\x03", 21),  # past the end
        (b"\x01\x05abc\x2c\xff123", 26),
    ],
)
def test_an_attribute_that_does_not_fit_is_malformed_and_says_where(attribute_octets: bytes, offset: int) -> None:
    length = (HEADER + len(attribute_octets)).to_bytes(2)
    with pytest.raises(Malformed) as caught:
        parse(b"\x04\x01" + length + bytes(16) + attribute_octets + b"padding" * 50)
    assert caught.value.offset == offset


@pytest.mark.parametrize("length", [0, 19, 4097, 65535])
def test_a_length_that_no_packet_has_is_malformed_rfc_2866_3(length: int) -> None:
    with pytest.raises(Malformed):
        parse(b"\x04\x01" + length.to_bytes(2) + bytes(70000))


def test_the_longest_packet_is_taken_rfc_7930_2() -> None:
    filling = [(26, bytes(253))] * 15 + [(26, bytes(MAX_LENGTH - HEADER - 15 * 255 - 2))]
    assert len(parse(accounting_request(1, filling, SECRET)).raw) == MAX_LENGTH
    with pytest.raises(Malformed):
        accounting_request(1, [*filling, (1, b"")], SECRET)


def test_a_value_that_is_too_long_is_not_built() -> None:
    with pytest.raises(Malformed, match="253"):
        accounting_request(1, [(1, bytes(254))], SECRET)


@pytest.mark.parametrize("signature", [bytes(16), b"", bytes(15), bytes(17)])
def test_a_wrong_message_authenticator_is_not_genuine_though_the_authenticator_is_right_rfc_3579_3_3(
    signature: bytes,
) -> None:
    request = accounting_request(1, [(1, b"alice"), (80, signature)], SECRET)
    assert not is_genuine(parse(request), SECRET)


def test_a_second_message_authenticator_must_be_right_too() -> None:
    signed = parse(accounting_request(1, [(1, b"alice")], SECRET, message_authenticator=True))
    twice = accounting_request(1, [*signed.attributes, signed.attributes[0]], SECRET)
    assert not is_genuine(parse(twice), SECRET)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("signed", [False, True])
def test_pyrad_takes_our_requests(name: str, signed: bool) -> None:
    data = accounting_request(9, TABLE[name], SECRET, message_authenticator=signed)
    theirs = AcctPacket(packet=data, secret=SECRET)
    assert theirs.VerifyAcctRequest()
    assert not signed or theirs.verify_message_authenticator()


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("signed", [False, True])
def test_we_take_pyrads_requests_and_pyrad_our_responses(name: str, signed: bool) -> None:
    theirs = AcctPacket(id=200, secret=SECRET)
    for kind, value in TABLE[name]:
        if kind != 26:  # pyrad has its own way to write these
            theirs.setdefault(kind, []).append(value)
    if signed:
        theirs.add_message_authenticator()
    data = theirs.RequestPacket()
    ours = parse(data)
    assert is_genuine(ours, SECRET)
    assert not is_genuine(ours, b"another")

    response = accounting_response(ours, SECRET)
    assert theirs.VerifyReply(theirs.CreateReply(packet=response), response)
    assert response == AcctPacket(packet=data, secret=SECRET).CreateReply().ReplyPacket()
    assert is_response(response, data, SECRET)


def test_a_response_has_the_proxy_states_in_order_and_nothing_else_rfc_2866_2_1() -> None:
    request = parse(accounting_request(3, TABLE["proxied"], SECRET))
    response = parse(accounting_response(request, SECRET))
    assert response.code == Code.ACCOUNTING_RESPONSE
    assert response.identifier == 3
    assert response.attributes == [(33, b"first"), (33, b"\0\1\2"), (33, b"")]


def test_only_the_response_to_this_request_is_one() -> None:
    request = accounting_request(3, TABLE["start"], SECRET)
    other = accounting_request(3, TABLE["proxied"], SECRET)
    response = accounting_response(parse(request), SECRET)
    assert is_response(response, request, SECRET)
    assert not is_response(response, other, SECRET)
    assert not is_response(response, request, b"another")
    assert not is_response(response[:-1], request, SECRET)
    assert not is_response(request, request, SECRET)
