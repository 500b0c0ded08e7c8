"""The table of who was refused is bounded, and reads what the kernel logs."""

from agent.dataplane.kinds import short_name
from agent.nflog import Logged
from agent.refused import RefusedTable
from radius_bridge.policy.members import Prefix, parse_prefix

ALICE, BOB = parse_prefix("192.0.2.10"), parse_prefix("2001:db8::20")
LONG = "a-service-with-a-name-that-is-too-long_tcp_8080"


def _nobody(_: Prefix) -> str:
    return ""


def test_attempts_are_counted_by_address_and_service_the_last_one_first() -> None:
    table = RefusedTable()
    table.add([Logged("rb:refused:ssh_tcp_22", ALICE), Logged("rb:denied", BOB)], 100.0)
    table.add([Logged("rb:refused:ssh_tcp_22", ALICE)], 160.0)
    assert table.rows(["ssh_tcp_22"], lambda address: "alice" if address == ALICE else "") == [
        {"address": "192.0.2.10", "user": "alice", "service": "ssh_tcp_22", "count": 2, "first": 100.0, "last": 160.0},
        {"address": "2001:db8::20", "user": "", "service": "denied", "count": 1, "first": 100.0, "last": 100.0},
    ]
    assert table.top() == {"192.0.2.10": 2, "2001:db8::20": 1}


def test_a_long_name_is_told_as_grants_have_it() -> None:
    table = RefusedTable()
    table.add([Logged(f"rb:refused:{short_name(LONG)}", ALICE)], 100.0)
    assert [row["service"] for row in table.rows([LONG], _nobody)] == [LONG]


def test_with_too_many_the_one_refused_longest_ago_is_forgotten() -> None:
    table = RefusedTable(most=2)
    for number in range(3):
        table.add([Logged("rb:denied", Prefix(4, number, 32))], float(number))
        table.add([Logged("rb:denied", Prefix(4, 0, 32))], float(number))
    assert [row["address"] for row in table.rows([], _nobody)] == ["0.0.0.0", "0.0.0.2"]
    assert table.counters == {"logged": 6, "forgotten": 1}


def test_what_other_rules_log_to_our_group_is_counted_and_left_out() -> None:
    table = RefusedTable()
    table.add([Logged("dropped: ", ALICE)], 100.0)
    assert table.rows([], _nobody) == []
    assert table.counters == {"foreign": 1}
