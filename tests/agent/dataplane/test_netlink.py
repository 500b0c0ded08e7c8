"""The bytes of bulk messages; pyroute2 is the oracle."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.ipset import ipset_msg

from agent.dataplane.errors import DataplaneError
from agent.dataplane.kinds import KINDS, Kind
from agent.dataplane.netlink import Answer, Entries, Operation, capacity, decode, encode
from radius_bridge.policy.members import Prefix


@st.composite
def messages(draw: st.DrawFn) -> tuple[Kind, Entries]:
    kind = draw(st.sampled_from(KINDS))
    bits = 32 if kind.version == 4 else 128
    prefixes, timeouts = [], []
    for _ in range(draw(st.integers(1, 5))):
        length = bits if kind.hosts else draw(st.integers(1, bits - 1))
        number = draw(st.integers(0, (1 << length) - 1)) << (bits - length)
        prefixes.append(Prefix(kind.version, number, length))
        timeouts.append(draw(st.integers(0, 2_147_483)))
    return kind, Entries(prefixes, timeouts)


@given(messages(), st.sampled_from(Operation), st.integers(1, 0xFFFFFFFF))
def test_pyroute2_reads_what_we_write(message: tuple[Kind, Entries], operation: Operation, sequence: int) -> None:
    kind, entries = message
    data = encode(operation, "rb4h.ssh_tcp_22", kind, entries, sequence)
    read = ipset_msg(data)
    read.decode()
    assert read["header"]["length"] == len(data)
    assert read["header"]["type"] == 6 << 8 | operation
    assert read["header"]["sequence_number"] == sequence
    assert read.get_attr("IPSET_ATTR_SETNAME") == "rb4h.ssh_tcp_22"
    found = read.get_attr("IPSET_ATTR_ADT").get_attrs("IPSET_ATTR_DATA")
    assert len(found) == len(entries.prefixes)
    for line, (attributes, prefix, timeout) in enumerate(zip(found, *entries, strict=True), 1):
        address = attributes.get_attr("IPSET_ATTR_IP_FROM").get_attr(f"IPSET_ATTR_IPADDR_IPV{kind.version}")
        assert int(ipaddress.ip_address(address)) == prefix.number
        assert attributes.get_attr("IPSET_ATTR_CIDR") == (None if kind.hosts else prefix.length)
        assert attributes.get_attr("IPSET_ATTR_TIMEOUT") == timeout
        (native,) = struct.unpack("=I", struct.pack(">I", attributes.get_attr("IPSET_ATTR_CADT_LINENO")))
        assert native == line


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_message_stays_within_the_16_bits_of_an_attribute(kind: Kind) -> None:
    bits = 32 if kind.version == 4 else 128
    prefix = Prefix(kind.version, 0, bits if kind.hosts else 8)
    full = encode(Operation.ADD, "x", kind, Entries([prefix] * capacity(kind), [0] * capacity(kind)), 1)
    assert 63_000 < len(full) < 66_000


def test_an_answer_names_the_entry_that_failed() -> None:
    sent = encode(Operation.ADD, "rb4h.x", KINDS[0], Entries([Prefix(4, 1, 32)], [5]), 7)
    echo = bytearray(sent)
    line_at = 16 + 4 + 8 + 12 + 4  # headers, protocol, name (7 octets, padded), and the line's own header
    struct.pack_into("=I", echo, line_at, 1)
    answer = struct.pack("=IHHIIi", 20 + len(echo), 2, 0, 7, 0, -4353) + bytes(echo)
    assert decode(answer, "rb4h.x", 7) == Answer(4353, 1)
    assert decode(answer, "rb4h.x", 8) is None


def test_a_cut_answer_is_an_error_and_not_success() -> None:
    with pytest.raises(DataplaneError, match="only 3 octets"):
        decode(b"abc", "rb4h.x", 1)
