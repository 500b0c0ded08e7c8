"""What all benchmarks measured, as a file and for people."""

import pytest

from bench.results import Outcome, Results, decode, encode, render

LOGIN = Outcome(
    "from login to kernel",
    "One after the other.",
    12.0,
    {"p50_ms": 3.5, "idle": {"p50_ms": 3.5, "p99_ms": 40.0}, "loaded": {"p50_ms": 90.25, "p99_ms": 200.0}},
    {"watch_p50_ms": 7.0},
)
SCALE = Outcome("bytes", "", 3.0, {"bytes_per_login": {"100": 3024, "100000": 3109}}, {"read_bytes": {"100": 20583}})
BROKEN = Outcome("it fails", "", 1.0, failure="exit code 1\nbench: Consul is not there")


def _results(**benches: Outcome) -> Results:
    machine: dict[str, str | int] = {"cpu": "a processor", "cores": 2, "memory_bytes": 24 << 30, "kernel": "6.1"}
    return Results("2026-01-02", False, 754.0, machine, {"consul": "1.8.7", "nft": "1.0.6"}, benches)


def test_a_file_keeps_everything() -> None:
    results = _results(login=LOGIN, broken=BROKEN)
    assert decode(encode(results)) == results


def test_another_file_is_refused() -> None:
    with pytest.raises(ValueError, match="no results of benchmarks"):
        decode(b'{"date": 5}')


def test_the_document_says_by_what_when_and_where_it_was_written() -> None:
    text = render(_results())
    assert "Written by `script/bench all` on 2026-01-02, which took 13 minutes." in text
    assert "a processor, 2 cores, 24 GiB, kernel 6.1" in text
    assert "consul 1.8.7, nft 1.0.6" in text


def test_groups_of_figures_are_columns_and_what_is_said_twice_is_shown_once() -> None:
    lines = render(_results(login=LOGIN)).splitlines()
    assert "| | " in lines[lines.index("One after the other.") + 2]
    assert "| p50 ms |  | 3.5 | 90.2 |" in lines
    assert "| *without us:* watch p50 ms | 7 |  |  |" in lines


def test_figures_by_number_have_a_column_for_each_beside_their_peers() -> None:
    lines = render(_results(scale=SCALE)).splitlines()
    assert "| | 100 | 100,000 |" in lines
    assert "| bytes per login | 3,024 | 3,109 |" in lines
    assert "| *without us:* read bytes | 20,583 |  |" in lines


def test_a_failure_stands_where_the_figures_would() -> None:
    text = render(_results(broken=BROKEN, scale=SCALE))
    assert "**Failed** after 1 s:\n\n```\nexit code 1\nbench: Consul is not there\n```" in text
    assert text.index("## broken") < text.index("## scale")


def test_a_quick_run_says_so() -> None:
    assert "first look only" in render(Results("2026-01-02", True, 30.0, {}, {}, {}))
