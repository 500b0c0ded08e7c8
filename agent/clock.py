"""A clock that is set while the agent is at work. The kernel counts seconds, whatever the clock says. Pure."""

from typing import Final

STEP: Final = 2.0
"""Seconds by which the clock must have been set to be noticed."""


class Steps:
    """Tells by how much the clock was set since the kernel was told all ends."""

    def __init__(self, now: float, passed: float) -> None:
        """It is `now` (epoch seconds), or so the kernel was told; `passed` is of a clock that nobody sets (seconds)."""
        self._ahead = now - passed

    def take(self, now: float, passed: float) -> float:
        """Seconds by which it was set, which are not told again; 0 if it was not."""
        step = now - passed - self._ahead
        if abs(step) < STEP:
            return 0.0
        self._ahead += step
        return step
