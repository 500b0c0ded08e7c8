"""Status-Server (RFC 5997): pyrad, which has its own code for it, asks; and reads the answer."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pyrad.client import Client as PyradClient
from pyrad.dictionary import Dictionary
from pyrad.packet import StatusServer

from radius_bridge.radius import status
from radius_bridge.radius.packet import Malformed, is_response, parse

SECRET = b"a shared secret!"


def pyrads(secret: bytes = SECRET) -> bytes:
    """A Status-Server of pyrad's."""
    packet = PyradClient("127.0.0.1", secret=secret, dict=Dictionary()).CreateAuthPacket(code=StatusServer)
    packet.add_message_authenticator()
    made: bytes = packet.RequestPacket()
    return made


def test_rfc_5997_3_the_message_authenticator_is_needed_and_checked() -> None:
    assert status.is_genuine(parse(pyrads()), SECRET)
    assert not status.is_genuine(parse(pyrads(b"another secret!!")), SECRET)
    assert not status.is_genuine(parse(b"\x0c\x01\x00\x14" + bytes(16)), SECRET)
    twice = status.request(1, SECRET)
    twice = twice[:2] + (56).to_bytes(2) + twice[4:] + twice[20:]
    assert not status.is_genuine(parse(twice), SECRET)


def test_rfc_5997_the_response_has_a_message_authenticator_and_the_proxy_states_and_no_more() -> None:
    asked = parse(status.request(7, SECRET))
    asked = replace(asked, attributes=[(33, b"first"), (1, b"alice"), *asked.attributes, (33, b"second")])
    answer = status.response(asked, SECRET)
    assert is_response(answer, asked.raw, SECRET)
    mark, *states = parse(answer).attributes
    assert mark[0] == 80
    assert states == [(33, b"first"), (33, b"second")]


@given(st.binary(max_size=60), st.integers(0, 60))
def test_nothing_that_was_changed_is_genuine(noise: bytes, at: int) -> None:
    good = status.request(1, SECRET)
    bad = good[:at] + noise + good[at + len(noise) :]
    try:
        packet = parse(bad)
    except Malformed:
        return
    assert status.is_genuine(packet, SECRET) == (packet.raw == good)
