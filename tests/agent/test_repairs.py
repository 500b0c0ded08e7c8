"""What was put back is told by kind, and by whom it was changed."""

from agent.dataplane.compare import Difference
from agent.dataplane.events import RULES
from agent.fights import OFTEN, Fights
from agent.repairs import LONGEST_TEXT, RECENT, Repairs, kind_of

NOW = 1_800_000_000.0
DELETED = Difference("rb4h.ssh_tcp_22", missing=("the set itself",))
ADDED = Difference("rb4h.ssh_tcp_22", extra=("192.0.2.66",))


def test_what_was_changed_is_told_by_kind() -> None:
    moved = Difference(RULES, extra=("ipv4 the jumps are not at the head",))
    deleted = Difference(RULES, missing=("ipv4 -A INPUT -j RB-INPUT",), extra=("ipv4 the jumps are not at the head",))
    assert kind_of(moved) == kind_of(deleted) == "jump"
    assert kind_of(Difference(RULES, extra=("ipv4 -A RB-INPUT -j ACCEPT",))) == "rules"
    assert kind_of(Difference(RULES)) == "rules"  # only their order
    assert kind_of(DELETED) == "set"
    assert kind_of(Difference("rb4h.ssh_tcp_22", missing=("192.0.2.1",))) == "members"


def test_what_is_put_back_counts_once_and_not_before_that_is_done() -> None:
    repairs = Repairs(Fights())
    repairs.begin([DELETED, ADDED], "ipset (pid 7)")
    assert repairs.status() == {"repairs": {}, "repaired": []}
    repairs.done(NOW)
    repairs.done(NOW + 1)
    status = repairs.status()
    assert status["repairs"] == {"set": 1, "members": 1}
    assert status["repaired"][1] == {"at": NOW, "kind": "members", "what": str(ADDED), "by": "ipset (pid 7)"}


def test_of_many_repairs_the_last_ones_are_told_and_not_at_any_length() -> None:
    repairs = Repairs(Fights())
    for number in range(RECENT + 5):
        repairs.note(Difference(f"rb4h.s{number}", extra=("192.0.2.66 " * 100,)), "", NOW + number)
    told = repairs.status()["repaired"]
    assert [each["at"] for each in told] == [NOW + number for number in range(5, RECENT + 5)]
    assert {len(each["what"]) for each in told} == {LONGEST_TEXT}
    assert repairs.by_kind["members"] == RECENT + 5


def test_what_is_put_back_again_and_again_is_a_fight() -> None:
    fights = Fights()
    repairs = Repairs(fights)
    for number in range(OFTEN):
        assert fights.may(ADDED.what, NOW + number)
        repairs.begin([ADDED], "ipset (pid 7)")
        repairs.done(NOW + number)
    assert not fights.may(ADDED.what, NOW + OFTEN)
