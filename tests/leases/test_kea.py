"""The rows of Kea's lease files."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.leases.kea import FOREVER, INFINITE, Columns, lease
from radius_bridge.policy.members import parse_prefix

HEADER4 = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context"
HEADER6 = (
    "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,"
    "hwaddr,state,user_context,hwtype,hwaddr_source"
)
MAC = "8a:e9:12:04:01:d0"
DUID = "00:03:00:01:36:47:4e:ac:9c:49"
WRITTEN = 1_000_400.0


def row4(address: str = "192.0.2.100", *, lifetime: int = 600, state: int = 0, given: int = 1_000_000) -> str:
    return f"{address},{MAC},01:{MAC},{lifetime},{given + lifetime},1,0,0,a&#x2cname,{state},"


def row6(address: str, kind: int, length: int, hardware: str = "") -> str:
    return f"{address},{DUID},600,1000600,1,300,{kind},7,{length},0,0,,{hardware},0,,1,0"


def of(row: str, header: str = HEADER4) -> tuple[str, str, float, float]:
    found = Columns.of(header).lease(row, "dhcp", WRITTEN)
    assert found.source == "dhcp"
    return str(found.address), found.mac, found.at, found.expires


def test_a_row_says_who_holds_an_address_from_when_until_when() -> None:
    assert of(row4()) == ("192.0.2.100", MAC, 1_000_000, 1_000_600)


def test_columns_are_found_by_their_names() -> None:
    assert of("0,600,192.0.2.1,1000600", "state,valid_lifetime,address,expire") == ("192.0.2.1", "", 1e6, 1_000_600)


def test_an_infinite_lease_ends_in_the_year_9999() -> None:
    assert of(row4(lifetime=INFINITE)) == ("192.0.2.100", MAC, 1_000_000, FOREVER)


@pytest.mark.parametrize(
    ("row", "ended"),
    [
        (row4(lifetime=0), WRITTEN),  # released: when is not said, but that it was before the file was written
        (row4(state=1), 1_000_000),  # declined: the row's own time is that of the decline
        (row4(state=2), 1_000_600),  # expired and reclaimed
        (row4(state=3), WRITTEN),  # released, as Kea writes it from 2.7 on
    ],
)
def test_a_lease_that_ended_expires_no_later_than_it_is_told(row: str, ended: float) -> None:
    assert of(row) == ("192.0.2.100", MAC, ended, ended)


def test_a_registered_address_is_a_lease() -> None:
    assert of(row4(state=4))[3] == 1_000_600


def test_an_ipv6_address_and_a_delegated_prefix_belong_to_the_mac_in_the_duid_unless_the_row_has_a_better_one() -> None:
    assert of(row6("2001:db8::1", 0, 128), HEADER6)[:2] == ("2001:db8::1", "36:47:4e:ac:9c:49")
    assert of(row6("2001:db8:100::", 2, 56), HEADER6)[:2] == ("2001:db8:100::/56", "36:47:4e:ac:9c:49")
    assert of(row6("2001:db8::1", 0, 128, MAC), HEADER6)[:2] == ("2001:db8::1", MAC)


@pytest.mark.parametrize(
    "row",
    [
        "",
        row4()[:30],
        row4() + ",",
        row4("192.0.2.0/24"),
        row4("nowhere"),
        row4(state=9),
        row4().replace("600", "-600"),
        row4().replace("600", "६००"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error(row: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        of(row)


def test_a_prefix_with_host_bits_is_an_error() -> None:
    with pytest.raises(ValueError, match="host bits"):
        of(row6("2001:db8::1", 2, 56), HEADER6)


@pytest.mark.parametrize("header", ["", row4(), "address,hwaddr,valid_lifetime,expire", HEADER4[:20]])
def test_what_is_no_header_is_an_error_that_says_what_it_lacks(header: str) -> None:
    with pytest.raises(ValueError, match=r"lacks .*state"):
        Columns.of(header)


@given(st.text())
def test_no_row_crashes_the_reader(row: str) -> None:
    with suppress(ValueError):
        Columns.of(HEADER4).lease(row, "dhcp", WRITTEN)


def test_a_state_that_kea_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="state 7"):
        lease(parse_prefix("192.0.2.1"), "", state=7, given=0, lifetime=1, source="", written=0)
