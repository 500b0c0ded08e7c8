"""What the kernel logs: the rule's prefix, and where the packet came from."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.errors import DataplaneError
from agent.dataplane.wire import HEADER
from agent.nflog import Logged, answer, read
from radius_bridge.policy.members import address_prefix
from tests.agent.dataplane.test_events import attribute

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def packet(source: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    if source.version == 4:
        return b"\x45" + bytes(11) + source.packed + bytes(20)
    return b"\x60" + bytes(7) + source.packed + bytes(16)


def logged(prefix: str, payload: bytes) -> bytes:
    content = struct.pack(">BBH", 0, 0, 2086) + attribute(10, prefix.encode() + b"\0") + attribute(9, payload)
    return HEADER.pack(HEADER.size + len(content), 4 << 8, 0, 0, 0) + content


@given(st.lists(ADDRESSES, max_size=5))
def test_every_packet_of_a_datagram_is_read(sources: list[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> None:
    data = b"".join(logged("rb:refused:ssh_tcp_22", packet(source)) for source in sources)
    assert list(read(data)) == [Logged("rb:refused:ssh_tcp_22", address_prefix(source)) for source in sources]


@pytest.mark.parametrize("payload", [b"", b"\x45" + bytes(10), b"\x60" + bytes(30), b"\x00" * 60])
def test_what_is_no_ip_packet_is_left_out(payload: bytes) -> None:
    assert list(read(logged("rb:denied", payload))) == []


def test_packets_that_come_before_an_answer_are_not_taken_for_it() -> None:
    packets = logged("rb:denied", packet(ipaddress.ip_address("192.0.2.66")))
    busy = HEADER.pack(HEADER.size + 20, 2, 0, 0, 0) + struct.pack("=i", -16) + bytes(16)
    assert answer(packets) is None
    assert answer(busy) == 16
    assert answer(HEADER.pack(HEADER.size + 20, 2, 0, 0, 0) + bytes(20)) == 0


@given(st.binary(max_size=200))
def test_nonsense_is_refused_or_says_nothing(data: bytes) -> None:
    try:
        list(read(data))
    except DataplaneError:
        return
