"""What the kernel tells of a transaction: what it touched, and who made it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.errors import DataplaneError
from agent.dataplane.events import Touched, read
from agent.dataplane.wire import ATTRIBUTE, HEADER

PORT = 4711


def attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, family: int, *values: tuple[int, bytes]) -> bytes:
    content = struct.pack(">BBH", family, 0, 1) + b"".join(attribute(*each) for each in values)
    return HEADER.pack(HEADER.size + len(content), 10 << 8 | kind, 0, 1, PORT) + content


def test_a_deleted_rule_is_told_with_its_chain_and_who_did_it() -> None:
    deleted = message(8, 2, (1, b"filter\0"), (2, b"RB-INPUT\0"), (3, bytes(8)))
    generation = message(15, 0, (1, bytes(4)), (2, struct.pack(">I", 99)), (3, b"iptables\0"))
    found = read(deleted + generation)
    assert found.port == PORT
    assert found.touched == {Touched(2, "filter", chain="RB-INPUT")}
    assert found.ends == ("iptables", 99)


def test_chains_sets_elements_and_tables_are_told_apart() -> None:
    found = read(
        message(5, 1, (1, b"mine\0"), (3, b"input\0"), (2, bytes(8)))
        + message(11, 1, (1, b"mine\0"), (2, b"gone\0"))
        + message(12, 1, (1, b"mine\0"), (2, b"filled\0"), (3, b""))
        + message(2, 1, (1, b"mine\0"), (3, bytes(4)))
    )
    assert found.ends is None
    assert found.touched == {
        Touched(1, "mine", chain="input"),
        Touched(1, "mine", set_name="gone"),
        Touched(1, "mine", set_name="filled"),
        Touched(1, "mine"),
    }


@given(st.binary(max_size=200))
def test_nonsense_is_refused_or_says_nothing(data: bytes) -> None:
    try:
        read(data)
    except DataplaneError:
        return


def test_what_is_cut_off_is_refused() -> None:
    with pytest.raises(DataplaneError):
        read(message(8, 2, (1, b"filter\0"))[:-3])
