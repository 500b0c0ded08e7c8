"""The bytes of nftables' elements; pyroute2 is the oracle."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.nftsocket import nft_set_elem_list_msg

from agent.dataplane.errors import DataplaneError
from agent.dataplane.nft_netlink import Do, Element, Form, Step, batch, encode
from agent.dataplane.wire import attributes, split

FORMS = [Form(octets, hosts) for octets in (4, 16) for hosts in (True, False)]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    form = draw(st.sampled_from(FORMS))
    most = (1 << 8 * form.octets) - 1
    elements: list[Element] = []
    for _ in range(draw(st.integers(1, 5))):
        first = draw(st.integers(0, most))
        last = first if form.hosts else draw(st.integers(first, most))
        elements.append((first, last, draw(st.integers(0, 1 << 40))))
    return Step(draw(st.sampled_from(Do)), "rb4h.ssh_tcp_22", form, elements)


def _expected(step: Step) -> list[tuple[int, bool, int | None]]:
    """Address, whether it closes a range, timeout."""
    found: list[tuple[int, bool, int | None]] = []
    for first, last, timeout in step.elements or ():
        found.append((first, False, timeout or None if step.do is Do.ADD else None))
        if not step.form.hosts and last + 1 < 1 << 8 * step.form.octets:
            found.append((last + 1, True, None))
    return found


@given(st.lists(steps(), min_size=1, max_size=4), st.integers(1, 1 << 30))
def test_pyroute2_reads_what_we_write(wanted: list[Step], sequence: int) -> None:
    data, of = batch("radius_bridge", wanted, sequence)
    messages = list(split(data))
    assert [(kind, number) for kind, number, _ in messages] == [
        (16, sequence),
        *((10 << 8 | step.do, sequence + place) for place, step in enumerate(wanted, 1)),
        (17, sequence + len(wanted) + 1),
    ]
    assert of == wanted
    at = 0
    for step, (kind, number, content) in zip([None, *wanted, None], messages, strict=True):
        length = 16 + len(content)
        if step is not None:
            read = nft_set_elem_list_msg(data[at : at + length])
            read.decode()
            assert (read["header"]["type"], read["header"]["sequence_number"]) == (kind, number)
            assert read.get_attr("NFTA_SET_ELEM_LIST_TABLE") == "radius_bridge"
            assert read.get_attr("NFTA_SET_ELEM_LIST_SET") == "rb4h.ssh_tcp_22"
            found = [
                (
                    int.from_bytes(element.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE")),
                    element.get_attr("NFTA_SET_ELEM_FLAGS") is not None,
                    element.get_attr("NFTA_SET_ELEM_TIMEOUT"),
                )
                for element in read.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
            ]
            assert found == _expected(step)
        at += length


@pytest.mark.parametrize("form", FORMS)
def test_no_message_is_longer_than_an_attribute_can_be(form: Form) -> None:
    step = Step(Do.ADD, "x", form, [(number, number, 1) for number in range(5_000)])
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
