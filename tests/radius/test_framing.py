"""Packets out of a TCP stream (RFC 6613 §2.6.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.radius.framing import Frames
from radius_bridge.radius.packet import HEADER, MAX_LENGTH, Malformed

packets = st.integers(HEADER, MAX_LENGTH).map(lambda length: b"\x04\x01" + length.to_bytes(2) + bytes(length - 4))


@given(st.lists(packets, max_size=5), st.lists(st.integers(1, 5000), max_size=10))
def test_packets_come_out_as_they_went_in_however_the_stream_is_cut(sent: list[bytes], cuts: list[int]) -> None:
    stream, frames, out = b"".join(sent), Frames(), []
    for size in [*cuts, len(stream)]:
        out += list(frames.feed(stream[:size]))
        stream = stream[size:]
        assert len(frames) < MAX_LENGTH
    assert out == sent
    assert len(frames) == 0


@pytest.mark.parametrize("length", [0, HEADER - 1, MAX_LENGTH + 1, 65535])
def test_a_length_that_no_packet_has_is_malformed_rfc_6613_2_6_4(length: int) -> None:
    good = b"\x04\x01" + HEADER.to_bytes(2) + bytes(16)
    frames = Frames().feed(good + b"\x04\x01" + length.to_bytes(2))
    assert next(frames) == good
    with pytest.raises(Malformed, match=f"a Length of {length} "):
        next(frames)
