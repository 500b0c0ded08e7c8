"""The agent's metrics are its status, in a form that Prometheus reads."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agent.metrics import exposition

STATUS: dict[str, Any] = {
    "enforcing": True,
    "mode": "enforce",
    "applied": 990.5,
    "last_change": {"woken": 980.0, "programmed": 980.25},
    "contact_age_s": {"feed": 1.5},
    "feed": {"covered": 4, "complete": True, "gaps": 2, "reads": 5},
    "errors": {"kernel": 'out of "order"'},
    "services": [{"name": "ssh_tcp_22", "members": 3, "soonest_expiry": 1200.0}],
    "overrides": {"rules_deny": {"members": 2, "soonest_expiry": None}},
    "limits": {"members": {"now": 850_000, "most": 1_000_000, "near": True, "way_out": "grant networks"}},
    "repairs": {"jump": 1},
    "refused": {'refused:a"b\\c': 7},
    "held": [],
    "absent_services": {},
    "problem_count": 1,
    "alarms": ["850,000 members"],
}


def _read(status: dict[str, Any]) -> dict[tuple[str, str], float]:
    """By name and value of the label, as Prometheus' own parser reads it."""
    return {
        (sample.name.removeprefix("radius_bridge_agent_"), "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(exposition(status))
        for sample in family.samples
    }


def test_prometheus_reads_what_the_status_says() -> None:
    found = _read(STATUS)
    assert found["enforcing", ""] == 1
    assert found["change_lag_seconds", ""] == 0.25
    assert found["contact_age_seconds", "feed"] == 1.5
    assert found["errors", "kernel"] == 1
    assert found["desired_members", "ssh_tcp_22"] == 3
    assert found["desired_members", "rules_deny"] == 2
    assert found["soonest_expiry_seconds", "ssh_tcp_22"] == 1200
    assert ("soonest_expiry_seconds", "rules_deny") not in found
    assert found["repairs_total", "jump"] == 1
    assert found["refused_total", 'refused:a"b\\c'] == 7
    assert found["feed_total", "gaps"] == 2


def test_the_limit_of_members_and_how_many_there_are_can_be_compared() -> None:
    found = _read(STATUS)
    assert found["programmed_members", ""] / found["members_limit", ""] == 0.85


def test_before_anything_was_heard_there_are_metrics_too() -> None:
    found = _read(
        STATUS | {"enforcing": False, "applied": None, "last_change": None, "contact_age_s": {}, "services": []}
    )
    assert found["enforcing", ""] == 0
    assert ("applied_seconds", "") not in found
