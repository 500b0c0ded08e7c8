"""The order of what a source says."""

from collections.abc import Callable

import pytest

from radius_bridge.identity.events import Lease
from radius_bridge.leases.source import REMEMBERED, Order
from radius_bridge.policy.members import Prefix

NOW = 1000.5


def given(at: float, address: int = 1) -> Lease:
    return Lease(Prefix(4, address, 32), "", at, at + 600, "dhcp")


def ended(at: float, address: int = 1) -> Lease:
    return Lease(Prefix(4, address, 32), "", at, at, "dhcp")


def test_what_is_given_back_and_given_again_within_a_second_is_given() -> None:
    order = Order()
    assert order.put(ended(1000.4), NOW) == ended(1000.4)
    again = order.put(given(1000), NOW)  # Kea tells whole seconds
    assert again.at > 1000.4
    assert again.expires == 1600


def test_what_is_given_and_given_back_within_a_second_has_ended() -> None:
    order = Order()
    order.put(given(1000), NOW)
    last = order.put(ended(1000), NOW)
    assert 1000 < last.at == last.expires


def test_of_another_address_nothing_follows() -> None:
    order = Order()
    order.put(ended(1000.4), NOW)
    assert order.put(given(1000, address=2), NOW) == given(1000, address=2)


def test_late_news_stay_in_the_past_where_the_order_of_arrival_says_little() -> None:
    order = Order(slack=1.0)
    order.put(ended(1000), NOW)
    assert order.put(given(900), NOW) == given(900)
    assert order.put(given(1000), NOW).at > 1000


@pytest.mark.parametrize("what", [given, ended])
def test_nothing_happens_in_the_future(what: Callable[[float], Lease]) -> None:
    lease = Order().put(what(2000.0), NOW)
    assert lease.at == NOW
    assert lease.expires == NOW + (0 if what is ended else 600), "nor does it last longer for that"


def test_what_is_remembered_is_bounded() -> None:
    order = Order()
    for address in range(REMEMBERED + 10):
        order.put(given(1000, address), NOW)
    assert len(order._said) == REMEMBERED
