"""Capture files: what is UDP comes out, what is something else is counted, what is damaged is an error."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.radius.capture import Capture, CaptureError, Datagram

V4 = ("192.0.2.1", 1813), ("198.51.100.1", 40000)
V6 = ("2001:db8::1", 1813), ("2001:db8::2", 40000)
Endpoints = tuple[tuple[str, int], tuple[str, int]]


def ip(
    endpoints: Endpoints, payload: bytes, *, extensions: bytes = b"", protocol: int = 17, fragment: int = 0
) -> bytes:
    """An IP packet with a UDP datagram; of IPv6, `extensions` before it, whose first is of type 0."""
    (source, source_port), (destination, destination_port) = endpoints
    udp = struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
    addresses = ip_address(source).packed + ip_address(destination).packed
    if len(addresses) == 8:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, fragment, 64, protocol, 0) + addresses + udp
    following = 0 if extensions else protocol
    head = struct.pack("!IHBB", 6 << 28, len(extensions) + len(udp), following, 64)
    return head + addresses + extensions + udp


def ethernet(packet: bytes, vlans: bytes = b"") -> bytes:
    return bytes(12) + vlans + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


def cooked(packet: bytes) -> bytes:
    return bytes(14) + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


def cooked_2(packet: bytes) -> bytes:
    return (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + bytes(18) + packet


def pcap(link: int, *frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4, cut: int = 0) -> bytes:
    """A classic capture; every frame was `cut` octets longer on the wire."""
    records = b"".join(struct.pack(order + "IIII", 1700000000, 500, len(f), len(f) + cut) + f for f in frames)
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link) + records


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, 0) + options, order)


def enhanced(frame: bytes, number: int = 0, ticks: int = 1_700_000_000_000_500, order: str = "<") -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, head + frame, order)


def simple(frame: bytes) -> bytes:
    return block(3, struct.pack("<I", len(frame)) + frame)


def read(octets: bytes) -> tuple[list[Datagram], int]:
    capture = Capture(octets)
    return list(capture), capture.skipped


@pytest.mark.parametrize("endpoints", [V4, V6])
@pytest.mark.parametrize(
    ("link", "wrap"),
    [(1, ethernet), (113, cooked), (276, cooked_2), (101, bytes)],
    ids=["ethernet", "sll", "sll2", "raw"],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_datagrams_come_out_of_every_kind_of_file(endpoints: Endpoints, link: int, wrap: object, order: str) -> None:
    assert callable(wrap)
    frame = wrap(ip(endpoints, b"payload"))
    ((time, *rest),), skipped = read(pcap(link, frame, order=order))
    assert (rest, skipped) == ([*endpoints, b"payload"], 0)
    assert time == pytest.approx(1700000000.0005)
    ((time, *rest),), skipped = read(section(order) + interface(link, order=order) + enhanced(frame, order=order))
    assert (rest, skipped) == ([*endpoints, b"payload"], 0)
    assert time == pytest.approx(1700000000.0005)


def test_times_may_count_nanoseconds_or_fractions_of_two() -> None:
    frame = ip(V4, b"x")
    assert read(pcap(101, frame, magic=0xA1B23C4D))[0][0].time == pytest.approx(1700000000.0000005, abs=1e-6)
    nanoseconds = struct.pack("<HHBxxx", 9, 1, 9) + struct.pack("<HH", 0, 0)
    file = section() + interface(101, nanoseconds) + enhanced(frame, ticks=1_700_000_000_000_000_000)
    assert read(file)[0][0].time == pytest.approx(1.7e9)
    halves = struct.pack("<HHBxxx", 9, 1, 0x81)
    assert read(section() + interface(101, halves) + enhanced(frame, ticks=7))[0][0].time == 3.5


def test_a_simple_packet_has_no_time() -> None:
    assert read(section() + interface(101) + simple(ip(V4, b"x"))) == ([Datagram(None, *V4, b"x")], 0)


def test_vlan_tags_and_headers_of_ipv6_are_passed_over() -> None:
    tagged = ethernet(ip(V4, b"x"), b"\x88\xa8\0\x01\x81\x00\0\x02")
    assert read(pcap(1, tagged))[0][0].payload == b"x"
    extensions = b"\x3c\0" + bytes(6) + b"\x11\x01" + bytes(14)  # hop by hop, then destination options
    assert read(pcap(101, ip(V6, b"x", extensions=extensions)))[0][0].payload == b"x"


def test_octets_behind_the_datagram_are_padding() -> None:
    assert read(pcap(1, ethernet(ip(V4, b"x")) + bytes(20)))[0][0].payload == b"x"


@pytest.mark.parametrize(
    "file",
    [
        pcap(101, ip(V4, b"x", protocol=6)),
        pcap(101, ip(V6, b"x", protocol=6)),
        pcap(101, ip(V4, b"x", fragment=0x2000)),
        pcap(101, ip(V4, b"x", fragment=100)),
        pcap(101, ip(V4, b"x"), cut=1),
        pcap(101, ip(V4, b"x")[:-1]),
        pcap(101, b""),
        pcap(101, b"\x45"),
        pcap(1, bytes(12) + b"\x08\x06" + ip(V4, b"x")),
        pcap(1, b"short"),
        pcap(999, ip(V4, b"x")),
    ],
)
def test_what_is_no_whole_datagram_is_counted(file: bytes) -> None:
    assert read(file) == ([], 1)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        (b"", "neither pcap nor pcapng"),
        (b"GIF89a", "neither pcap nor pcapng"),
        (pcap(1)[:-1], "ends within its header"),
        (pcap(1) + b"x", r"ends within a record \(octet 24\)"),
        (pcap(1, b"frame")[:-1], r"runs past the file's end \(octet 24\)"),
        (section()[:-1], "does not fit"),
        (section() + b"\0" * 8, r"ends within a block \(octet 28\)"),
        (section() + b"\x06\0\0\0" + b"\x0d\0\0\0" + bytes(5), "a block of 13 octets"),
        (section()[:-4] + b"\x20\0\0\0", "two lengths differ"),
        (section()[:8] + b"\0" * 4 + section()[12:], "without its byte order"),
        (section() + enhanced(b""), "a packet of interface 0, of which nothing was said"),
        (section() + block(1, b"1234"), "an interface of 4 octets"),
        (section() + interface(1) + block(6, b"1234"), "a packet of 4 octets"),
        (section() + interface(1) + block(6, struct.pack("<IIIII", 0, 0, 0, 9, 9)), "9 captured octets"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_where(file: bytes, what: str) -> None:
    with pytest.raises(CaptureError, match=what):
        read(file)


whole = [
    pcap(1, ethernet(ip(V4, b"payload")), ethernet(ip(V6, b"payload"))),
    section() + interface(113) + enhanced(cooked(ip(V4, b"payload"))) + simple(cooked(ip(V6, b"payload"))),
]


@given(
    st.sampled_from(whole),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
    st.integers(0, 300),
)
def test_any_file_has_datagrams_or_is_damaged(file: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    octets = bytearray(file[:-cut] if cut else file)
    for at, value in changes:
        if at < len(octets):
            octets[at] = value
    try:
        datagrams, _ = read(bytes(octets))
    except CaptureError:
        return
    assert all(len(datagram.payload) <= len(octets) for datagram in datagrams)
