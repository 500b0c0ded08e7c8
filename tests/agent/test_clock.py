"""A clock that is set while the agent is at work."""

from agent.clock import STEP, Steps

NOW = 1_800_000_000.0


def test_time_that_passes_is_no_step() -> None:
    steps = Steps(NOW, 10.0)
    assert steps.take(NOW + 86_400.1, 86_410.0) == 0


def test_a_step_is_told_once_in_either_direction() -> None:
    steps = Steps(NOW, 10.0)
    assert steps.take(NOW + 3601, 11.0) == 3600
    assert steps.take(NOW + 3602, 12.0) == 0
    assert steps.take(NOW + 3, 13.0) == -3600


def test_small_steps_add_up() -> None:
    steps = Steps(NOW, 0.0)
    assert steps.take(NOW + STEP / 2, 0.0) == 0
    assert steps.take(NOW + STEP, 0.0) == STEP
