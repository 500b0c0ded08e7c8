"""When a bridge must read everything again."""

import pytest

from radius_bridge.registry.neighbours import is_incomplete
from radius_bridge.registry.positions import News

OWN, OTHER = "befw/$changes$/identity/one", "befw/$changes$/identity/two"


@pytest.mark.parametrize(
    ("news", "incomplete"),
    [
        (News(), False),
        (News(gaps={OWN: "12 entries"}), False),
        (News(gaps={OWN: "12 entries", OTHER: "one entry"}), True),
        (News(again=True), True),
        (News(rewound=True), True),
        (News(missed=True), True),
    ],
)
def test_what_a_bridge_missed_of_its_own_record_it_knows(news: News, incomplete: bool) -> None:
    assert is_incomplete(news, OWN) is incomplete
