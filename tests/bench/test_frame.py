"""What all benchmarks rest on."""

import json

import pytest

from bench.frame import Bench, Result, milliseconds, percentile
from bench.main import BENCHES, as_object


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 201)]
    assert percentile(values, 50) == 100
    assert percentile(values, 99) == 198
    assert percentile(values, 100) == 200
    assert percentile([3.0], 1) == 3.0


def test_nothing_measured_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 50)


def test_the_unit_stands_in_the_key() -> None:
    assert milliseconds([0.001, 0.002], "recorded_") == {"recorded_p50_ms": 1.0, "recorded_p99_ms": 2.0}


def test_the_json_object_has_what_was_measured_and_on_what() -> None:
    bench = Bench("none", "nothing", lambda quick: Result({"p50_ms": 1.0}))
    found = json.loads(json.dumps(as_object(bench, Result({"p50_ms": 1.0}, {"peer_p50_ms": 2.0}))))
    assert set(found) == {"bench", "figures", "peers", "machine", "versions"}
    assert found["bench"] == "none"
    assert found["figures"] == {"p50_ms": 1.0}
    assert found["machine"]["cores"] >= 1


def test_benches_are_listed_by_their_names() -> None:
    assert all(name == bench.name for name, bench in BENCHES.items())
