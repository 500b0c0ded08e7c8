"""The bytes of nftables' elements; pyroute2 is the oracle."""

import struct
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.nftsocket import nft_set_elem_list_msg

from agent.dataplane.errors import DataplaneError
from agent.dataplane.nft_netlink import Do, Elements, Form, Step, batch, encode
from agent.dataplane.wire import attributes, split

FORMS = [Form(octets, hosts) for octets in (4, 16) for hosts in (True, False)]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    form = draw(st.sampled_from(FORMS))
    most = (1 << 8 * form.octets) - 1
    elements: list[tuple[int, int, int]] = []
    for _ in range(draw(st.integers(1, 5))):
        first = draw(st.integers(0, most))
        last = first if form.hosts else draw(st.integers(first, most))
        elements.append((first, last, draw(st.integers(0, 1 << 40))))
    return Step(draw(st.sampled_from(Do)), "rb4h.ssh_tcp_22", form, Elements(*zip(*elements, strict=True)))


def _expected(step: Step) -> list[tuple[int, int, int]]:
    """First, last, timeout; deleting asks for no timeout."""
    elements = zip(*step.elements or (), strict=True)
    return sorted((first, last, timeout if step.do is Do.ADD else 0) for first, last, timeout in elements)


def _read(elements: list[tuple[int, bool, int | None]], form: Form) -> list[tuple[int, int, int]]:
    """The same from addresses, whether they close a range, and timeouts; what closes a range comes right after it."""
    found: list[tuple[int, int, int]] = []
    for address, closes, timeout in elements:
        if closes:
            first, _, of_first = found.pop()
            found.append((first, address - 1, of_first))
        else:
            found.append((address, address if form.hosts else (1 << 8 * form.octets) - 1, timeout or 0))
    return sorted(found)


@given(st.lists(steps(), min_size=1, max_size=4), st.integers(1, 1 << 30))
def test_pyroute2_reads_what_we_write(wanted: list[Step], sequence: int) -> None:
    data, of = batch("radius_bridge", wanted, sequence)
    messages = list(split(data))
    assert [(kind, number) for kind, number, _ in messages] == [
        (16, sequence),
        *((10 << 8 | step.do, sequence + place) for place, step in enumerate(of, 1)),
        (17, sequence + len(of) + 1),
    ]
    assert [step for step, _ in groupby(of, id)] == [id(step) for step in wanted]
    at = 20  # after the batch's begin
    for step, (_, same) in zip(
        wanted, groupby(zip(of, messages[1:-1], strict=True), lambda each: id(each[0])), strict=True
    ):
        found = []
        for _, (kind, number, content) in same:
            length = 16 + len(content)
            read = nft_set_elem_list_msg(data[at : at + length])
            read.decode()
            assert (read["header"]["type"], read["header"]["sequence_number"]) == (kind, number)
            assert read.get_attr("NFTA_SET_ELEM_LIST_TABLE") == "radius_bridge"
            assert read.get_attr("NFTA_SET_ELEM_LIST_SET") == "rb4h.ssh_tcp_22"
            found += [
                (
                    int.from_bytes(element.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE")),
                    element.get_attr("NFTA_SET_ELEM_FLAGS") is not None,
                    element.get_attr("NFTA_SET_ELEM_TIMEOUT"),
                )
                for element in read.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
            ]
            at += length
        assert _read(found, step.form) == _expected(step)


@pytest.mark.parametrize("form", FORMS)
def test_no_message_is_longer_than_an_attribute_can_be(form: Form) -> None:
    step = Step(Do.ADD, "x", form, Elements(range(5_000), range(5_000), [1] * 5_000))
    messages = [content for _, content in encode("t", step)]
    assert 2 <= len(messages) < 8
    assert all(len(content) < 66_000 for content in messages)
    lists = [value for content in messages for kind, value in attributes(content) if kind == 3]
    assert sum(len(list(attributes(each))) for each in lists) == 5_000 * (1 if form.hosts else 2)


def test_emptying_a_set_names_no_element() -> None:
    ((kind, content),) = encode("t", Step(Do.DELETE, "x", FORMS[0], None))
    assert kind == 10 << 8 | 14
    assert [name for name, _ in attributes(content)] == [1, 2]


@pytest.mark.parametrize("data", [b"abc", struct.pack("=IHHII", 99, 2, 0, 0, 0), struct.pack("=IHHII", 1, 2, 0, 0, 0)])
def test_a_cut_answer_is_an_error_and_not_success(data: bytes) -> None:
    with pytest.raises(DataplaneError, match="cut off"):
        list(split(data))


@pytest.mark.parametrize("data", [struct.pack("=HH", 9, 1), struct.pack("=HH", 3, 1)])
def test_a_cut_attribute_is_an_error(data: bytes) -> None:
    with pytest.raises(DataplaneError, match="cut off"):
        list(attributes(data))
