"""What a ClientHello offers (RFC 7301 §3.1), as OpenSSL writes it."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.radius.hello import LONGEST, offered


def hello(*alpn: str) -> bytes:
    """The first octets of a client."""
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols(alpn)
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(here, there, server_hostname="bridge.example.org").do_handshake()
    return there.read()


SENT = hello("radius/1.1", "radius/1.0")


def test_names_are_told_in_their_order() -> None:
    assert offered(SENT) == (b"radius/1.1", b"radius/1.0")
    assert offered(hello()) == ()


@given(st.integers(0, len(SENT) - 1))
def test_of_less_than_the_whole_nothing_is_told(length: int) -> None:
    assert offered(SENT[:length]) is None


@given(st.integers(1, 200))
def test_a_hello_may_be_in_many_records_rfc_8446_5_1(size: int) -> None:
    body = SENT[5:]
    records = [body[at : at + size] for at in range(0, len(body), size)]
    octets = b"".join(b"\x16\x03\x01" + len(record).to_bytes(2) + record for record in records)
    assert offered(octets) == (b"radius/1.1", b"radius/1.0")


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x04\x01\x00\x14" + bytes(16),
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        (b"\x16\x03\x01\x00\x01\x01" + b"\x16\x03\x01\x00\x01\xff" * LONGEST),
    ],
    ids=["http", "no tls", "empty record", "no hello", "empty hello", "endless"],
)
def test_what_is_no_hello_offers_nothing(octets: bytes) -> None:
    assert offered(octets) == ()


@given(st.binary() | st.builds(lambda at, new: SENT[:at] + new + SENT[at + len(new) :], st.integers(0), st.binary()))
def test_any_octets_are_names_or_not(octets: bytes) -> None:
    names = offered(octets)
    assert names is None or all(isinstance(name, bytes) for name in names)
