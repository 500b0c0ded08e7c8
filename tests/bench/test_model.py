"""How many hosts a datacenter carries, from what was measured."""

import time
from copy import deepcopy
from typing import Any

import pytest

from bench import model
from bench.main import RESULTS, SCALE
from bench.model import Assumptions, Cost, Leader, Line, capacity, entries, entry_octets, fit
from bench.results import Outcome, Results, decode
from radius_bridge.policy.members import parse_prefix, user_group
from radius_bridge.registry.feed import FRESH, KEPT_BYTES, KEPT_FOR, PAGE_BYTES, Change, decode_record
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.pages import Pages
from tests.registry.fake_consul import FakeConsul

WAKE, ENTRY = 100e-6, 1e-6
"""CPU seconds of a host's server, made up; the figures below follow from them."""

FEW, MANY = entries(3.0, 10.0), entries(1000.0, 10.0)

FIGURES: dict[str, Any] = {
    "fanout": {
        "last_agent_p50_ms": {"1": 4.2, "50": 14.0, "500": 104.0},
        "logins_per_s": {"1": 4.0, "500": 3.0},
        "bytes_per_login_per_agent": {"1": 1500, "500": 1200 + 80 * FEW},
        "consul_cpu_ms_per_login": {str(n): 3 + n * (WAKE + ENTRY * FEW) * 1000 for n in (1, 50, 500)},
        "consul_idle_cpu_percent": {"1": 1.0, "50": 1.0, "500": 1.5},
        "consul_memory_bytes": {"1": 50e6, "500": 100e6},
        "busy_consul_cpu_percent": {str(n): 1 + 100 * (0.4 + n * 10 * (WAKE + ENTRY * MANY)) for n in (1, 50)},
        "busy_logins_per_s": {"1": 1000.0, "50": 1000.0},
        "busy_wakes_per_s_per_agent": {"1": 10.0, "50": 10.0},
        "busy_bytes_per_s_per_agent": {"1": 230_000, "50": 10 * (1200 + 80 * MANY)},
        "check": {
            "agents": 150,
            "consul_cpu_percent": 40.0,
            "logins_per_s": 100.0,
            "wakes_per_s_per_agent": 9.0,
            "bytes_per_s_per_agent": 50_000,
        },
    },
    "herd": {"followers": 500, "most_per_100ms": 50},
}


def _results(figures: dict[str, Any]) -> Results:
    outcomes = {name: Outcome("", "", 1.0, found) for name, found in figures.items()}
    return Results("2026-01-02", False, 60.0, {"cpu": "a processor", "cores": 2}, {"consul": "1.8.7"}, outcomes)


def test_few_and_many_entries_tell_what_an_entry_and_a_wake_up_cost() -> None:
    fitted = fit(FIGURES)
    assert fitted.host == pytest.approx(Cost(WAKE, ENTRY))
    assert fitted.traffic == pytest.approx(Cost(1200, 80))
    assert fitted.leader.at(10, 1000) == pytest.approx(0.4)
    assert fitted.wakes == 10
    assert fitted.herd_peak == 0.1


def test_a_wake_up_brings_what_pages_keep() -> None:
    assert entries(0, 10) == 0
    assert entries(0.1, 10) == 1, "the login itself"
    assert entries(10, 10) == KEPT_FOR * 10
    page = PAGE_BYTES / entry_octets()
    kept = KEPT_BYTES / entry_octets()
    assert entries(80, 10) == KEPT_FOR * 80 + page / 2, "full ones for two seconds, and half of one"
    assert entries(200, 10) == entries(300, 10) == kept - page / 2, "as much as is kept, but half of one"
    assert entries(2000, 10) == FRESH * 2000 + page


@pytest.mark.parametrize("per_s", [20, 50, 200, 1000, 5000])
async def test_pages_keep_as_much_as_the_model_says(per_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, consul, now, tidied = Keys(), FakeConsul(), [0.0], 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pages = Pages(consul, keys, lambda: 1_795_351_740.123)
    change = Change(keys.group_member(user_group("user12345"), parse_prefix("10.66.129.123")), b"1795351740", 0)
    consul.index, kept = 1_000_000, []
    pace = max(0.01, 1 / per_s)
    while now[0] < 6:
        now[0] += pace
        some = [change] * round(per_s * pace)
        page = pages.take()
        page.committed(consul.commit(page.ops(some)).modified[page.key])
        pages.give_back(page)
        if now[0] - tidied >= FRESH:
            await pages._tidy(now[0])
            tidied = now[0]
        records = [decode_record(entry.value) for entry in consul.store.values() if entry.value]
        kept.append(sum(len(record.entries) for record in records))
    late = kept[len(kept) // 2 :]
    assert sum(late) / len(late) == pytest.approx(entries(per_s, 10), rel=0.15)


def test_a_line_goes_through_its_points_and_never_falls() -> None:
    assert Line.through({"1": 3.0, "11": 23.0}) == pytest.approx(Line(1.0, 2.0))
    assert Line.through({"1": 3.0, "11": 1.0}) == Line(2.0, 0.0)
    with pytest.raises(ValueError, match="one number of hosts"):
        Line.through({"50": 1.0})


def test_noise_makes_no_cost_negative() -> None:
    assert Cost.through((1, 5.0), (300, 1.0)) == Cost(5.0, 0.0)
    assert Cost.through((10, 1.0), (20, 90.0)).per_wake == 0.0
    assert Leader.solve(alone=5.0, busy=1.0, wakes=10, logins=1000) == Leader(5.0, 0.0)


def test_figures_in_which_logins_share_no_wake_up_are_refused() -> None:
    idle = deepcopy(FIGURES)
    idle["fanout"]["busy_logins_per_s"]["50"] = 10.0
    with pytest.raises(ValueError, match="no load was measured"):
        fit(idle)
    with pytest.raises(ValueError, match="no load was measured"):
        Cost.through((5, 1.0), (5, 2.0))


def test_few_logins_leave_the_limit_to_gossip_and_watches() -> None:
    found = capacity(fit(FIGURES), 3, 1)
    assert (found.hosts, found.limit) == (5000, "gossip")
    assert found.datacenters(16_000) == 4
    without_gossip = capacity(fit(FIGURES), 3, 1, Assumptions(agents=10**6))
    assert (without_gossip.hosts, without_gossip.limit) == (8992, "watches")
    assert capacity(fit(FIGURES), 5, 1, Assumptions(agents=10**6)).hosts == 8992, "more servers do not help watches"


def test_many_logins_are_a_matter_of_cpu_which_servers_share() -> None:
    three, five = (capacity(fit(FIGURES), servers, 1000, Assumptions(agents=10**6)) for servers in (3, 5))
    assert three.limit == "CPU"
    assert five.limits["CPU"] == pytest.approx(three.limits["CPU"] * 5 / 3)
    wakes, read = 10, 2 * entries(500, 10)  # ten times a second, and the records of two bridges each time
    assert (three.wakes, three.read) == (wakes, read)
    per_host = wakes * (WAKE + ENTRY * read) + WAKE / 30
    leader = fit(FIGURES).leader.at(wakes, 1000)
    assert three.limits["CPU"] == pytest.approx(3 * (8 * 0.5 - leader) / per_host)


def test_a_server_that_cannot_even_take_the_logins_carries_nobody() -> None:
    found = capacity(fit(FIGURES), 3, 1_000_000)
    assert found.hosts == 0
    assert found.datacenters(16_000) == 0


def test_hosts_wake_for_each_login_until_they_pause() -> None:
    assert [capacity(fit(FIGURES), 3, logins).wakes for logins in (1, 10, 100)] == [1, 10, 10]


def test_the_report_says_what_was_foretold_of_figures_it_was_not_fitted_to() -> None:
    text = model.report(_results(FIGURES))
    read = entries(100, 9)
    cpu = 0.01 + fit(FIGURES).leader.at(9, 100) + 150 * 9 * (WAKE + ENTRY * read)
    assert f"{cpu:.0%} of a core (measured: 40%)" in text
    assert f"{9 * (1200 + 80 * read) / 1000:.0f} kB/s (measured: 50)" in text
    assert "**5,000** (gossip)" in text


def test_missing_figures_are_named_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="herd: run script/bench all"):
        fit({"fanout": FIGURES["fanout"]})
    older = deepcopy(FIGURES)
    del older["fanout"]["check"]
    with pytest.raises(ValueError, match="'check': run script/bench all"):
        model.report(_results(older))


def test_a_report_takes_the_place_of_the_one_before() -> None:
    document = "before\n<!-- script/bench model -->\nold\n<!-- end model -->\nafter\n"
    once = model.put_into(document, "new\n")
    assert once == "before\n<!-- script/bench model -->\nnew\n<!-- end model -->\nafter\n"
    assert model.put_into(once, "new\n") == once
    with pytest.raises(ValueError, match=r"docs/scale\.md"):
        model.put_into("no place", "new\n")


def test_the_document_says_what_the_model_says_of_the_latest_figures() -> None:
    document = SCALE.read_text(encoding="utf-8")
    report = model.report(decode(RESULTS.read_bytes()))
    assert model.put_into(document, report) == document, "run script/bench model"
