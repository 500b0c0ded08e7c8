"""When the kernel is programmed or looked at again though nothing was heard."""

import pytest

from agent.dataplane.base import CHECK_SECONDS
from agent.enforce import pause

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        pytest.param([NOW + 10, NOW + 3], 3.0, id="what comes first"),
        pytest.param([NOW - 1], 0.02, id="what is due already, with a breath"),
        pytest.param([NOW + 3600 + CHECK_SECONDS, NOW + 3603], CHECK_SECONDS, id="the clock was set back by an hour"),
    ],
)
def test_nothing_waits_longer_than_the_kernel_may_go_unwatched(due: list[float], expected: float) -> None:
    assert pause(NOW, *due) == pytest.approx(expected)
