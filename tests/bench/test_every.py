"""All benchmarks in one run."""

import pytest

from bench import every
from bench.frame import Bench, Result


def _not_run(quick: bool) -> Result:
    raise AssertionError("benchmarks run in a process of their own")


def test_one_that_fails_says_why_and_the_others_go_on() -> None:
    found = every.measure([Bench("nonsense", "none", _not_run), Bench("rubbish", "none", _not_run)], quick=True)
    assert list(found.benches) == ["nonsense", "rubbish"]
    for name, outcome in found.benches.items():
        assert outcome.failure.startswith(f"exit code 2\nthere is no benchmark '{name}'")
        assert outcome.figures == {}
    assert found.machine["cores"]
    assert found.versions["python"]


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "LONGEST", 0.0)
    found = every.measure([Bench("ingest", "none", _not_run)], quick=True)
    assert found.benches["ingest"].failure.startswith("did not end within 0 s")
