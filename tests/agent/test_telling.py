"""What a host tells of itself: what is news, and what is told with it."""

import copy
from typing import Any

from agent.telling import essence, record_of

STATUS: dict[str, Any] = {
    "datacenter": "dc1",
    "enforcing": True,
    "restored": None,
    "refused_state": "",
    "applied": 990.0,
    "contact_age_s": {"feed": 1.0},
    "services": [{"name": "ssh_tcp_22", "members": 3}],
    "overrides": {"rules_allow": {"members": 0}, "rules_deny": {"members": 2}},
    "absent_services": {},
    "held": [],
    "errors": {},
    "problem_count": 0,
    "alarms": [],
    "limits": {"members": {"now": 3, "most": 1_000_000, "near": False, "way_out": "grant networks"}},
    "feed": {"complete": True, "polls": 7},
}


def changed(**more: Any) -> dict[str, Any]:
    return copy.deepcopy(STATUS) | more


def test_who_logs_in_and_how_long_ago_things_were_is_no_news() -> None:
    later = changed(
        applied=1000.0,
        contact_age_s={"feed": 30.0},
        services=[{"name": "ssh_tcp_22", "members": 4}],
        feed={"complete": True, "polls": 9},
    )
    assert essence(record_of(later, 1010.0)) == essence(record_of(STATUS, 1000.0))
    assert record_of(later, 1010.0).services == {"ssh_tcp_22": 4}
    assert record_of(later, 1010.0).counters == {"polls": 9}


def test_what_a_person_should_know_is_news() -> None:
    held = {"digest": "d", "kind": "removal", "of": "s", "members": 3, "since": 1.0, "waits_for": "second read"}
    near = {"members": {"now": 850_000, "most": 1_000_000, "near": True, "way_out": "grant networks"}}
    usual = essence(record_of(STATUS, 1000.0))
    for news in (
        changed(errors={"kernel": "out of order"}),
        changed(held=[held]),
        changed(services=[]),
        changed(absent_services={"ssh_tcp_22": 1.0}),
        changed(enforcing=False),
        changed(refused_state="damaged"),
        changed(problem_count=1),
        changed(alarms=["forged"]),
        changed(limits=near),
    ):
        assert essence(record_of(news, 1000.0)) != usual
    assert record_of(changed(limits=near), 1000.0).limits == {"members": 0.85}
    assert record_of(changed(limits=near), 1000.0).needs_help
    waiting = changed(held=[held | {"waits_for": "confirm"}])
    assert essence(record_of(waiting, 1.0)) != essence(record_of(changed(held=[held]), 1.0))


def test_before_consul_answers_it_enforces_what_was_restored_or_nothing() -> None:
    assert record_of(changed(enforcing=False, restored=900.0), 1000.0).enforcing == "restored"
    nothing = record_of(changed(enforcing=False), 1000.0)
    assert nothing.enforcing == "nothing"
    assert nothing.needs_help


def test_a_record_stays_small_whatever_happens() -> None:
    services = [{"name": f"service{number}_tcp_{number}", "members": 1} for number in range(5000)]
    record = record_of(changed(services=services, errors={"kernel": "x" * 100_000}), 1000.0)
    assert len(record.services) == 200
    assert record.service_count == 5000
    assert len(record.errors["kernel"]) == 300
