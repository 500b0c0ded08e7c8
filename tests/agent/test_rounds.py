"""Which services are read back though nobody told of a change."""

from agent.desired import Desired
from agent.rounds import IPSET, SUSPECT_RATE, TOLD, Pace, Suspects, Turns
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Service, parse_ports

SSH, WEB = "ssh_tcp_22", "web_tcp_80"
SET = frozenset({f"rb4h.{SSH}", f"rb6h.{SSH}"})
NOW = 1_800_000_000.0


def desired(**members: int) -> Desired:
    """Services with so many members."""
    each = {name: {Prefix(4, number, 32): -1.0 for number in range(count)} for name, count in members.items()}
    return Desired(tuple(Service(name, (parse_ports(name.split("_")[2]),)) for name in members), each)


def looks(wanted: Desired, times: int, pace: Pace = IPSET) -> list[list[str]]:
    """Whose turn it is, every three seconds."""
    turns = Turns(3.0)
    return [turns.next(wanted, NOW + 3 * number, pace) for number in range(times)]


def test_twenty_thousand_members_are_read_back_with_every_look() -> None:
    assert all(SSH in names for names in looks(desired(**{SSH: 20_000}), 10))


def test_a_larger_set_is_read_back_as_seldom_as_the_rate_allows() -> None:
    read = sum(SSH in names for names in looks(desired(**{SSH: 140_000}), 30))
    assert 3 <= read <= 5  # 90 s at 7,500 members a second


def test_a_large_set_keeps_no_small_one_from_its_turn() -> None:
    found = looks(desired(**{SSH: 140_000, WEB: 10}), 30)
    assert sum(WEB in names for names in found) >= 3


def test_a_set_that_would_hold_up_all_others_is_not_read_in_turn() -> None:
    found = looks(desired(**{SSH: TOLD.most + 1, WEB: 10}), 10, TOLD)
    assert all(SSH not in names and WEB in names for names in found)


def test_a_clock_that_is_set_neither_stops_the_rounds_nor_reads_everything_at_once() -> None:
    wanted, turns = desired(**{SSH: 140_000}), Turns(3.0)
    for now in (NOW, NOW - 86_400, NOW + 86_400):
        assert SSH not in turns.next(wanted, now, IPSET)
    assert any(SSH in turns.next(wanted, NOW + 86_400 + 3 * number, IPSET) for number in range(1, 10))


def is_suspect(suspects: Suspects, surplus: int, *, ending: int = 0, now: float = NOW) -> bool:
    """Of a service that should have 100 members and has more."""
    counts = dict.fromkeys(SET, 0) | {f"rb4h.{SSH}": 100 + surplus}
    return suspects.is_one(SSH, SET, counts, 100, ending, now)


def test_a_number_that_is_right_is_not_looked_into() -> None:
    assert not is_suspect(Suspects(), 0)


def test_a_number_that_is_explained_is_no_news_until_something_is_put_back() -> None:
    """Such as a member that the kernel cannot hold."""
    suspects = Suspects()
    assert is_suspect(suspects, -1)
    assert not is_suspect(suspects, -1, now=NOW + 60)
    suspects.forget()
    assert is_suspect(suspects, -1, now=NOW + 120)


def test_members_that_are_about_to_end_may_be_missing_and_nobody_may_be_too_many() -> None:
    suspects = Suspects()
    assert not is_suspect(suspects, -5, ending=5)
    assert is_suspect(suspects, -6, ending=5)
    assert is_suspect(Suspects(), 1, ending=5)


def test_a_set_that_is_missing_is_looked_into_though_nobody_is_in_it() -> None:
    assert Suspects().is_one(SSH, SET, {f"rb4h.{SSH}": 100}, 100, 0, NOW)


def test_a_number_that_changes_all_the_time_is_looked_into_no_more_often_than_the_rate_allows() -> None:
    suspects = Suspects()
    assert is_suspect(suspects, 1)
    assert not is_suspect(suspects, 2, now=NOW + 50 / SUSPECT_RATE)
    assert is_suspect(suspects, 2, now=NOW + 100 / SUSPECT_RATE)
    assert is_suspect(suspects, 3, now=NOW - 3600), "the clock was set back"
