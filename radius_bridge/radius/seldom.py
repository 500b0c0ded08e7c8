"""A log that a flood of packets cannot fill: the counters have them all, the log has one of each kind."""

import time
from collections.abc import Hashable

import structlog

INTERVAL = 10.0
"""Seconds between two lines about the same topic."""


class SeldomLog:
    """Says the same thing at most every `INTERVAL` seconds, and how often it was silent.

    First `is_due(topic)`, which is cheap, then `warning` with whatever must be gathered for it. Topics come from
    short lists of ours (reasons, clients' names), never from packets.
    """

    def __init__(self) -> None:
        self._next: dict[Hashable, tuple[float, int]] = {}
        self._silent = 0

    def is_due(self, topic: Hashable) -> bool:
        """True if a line about `topic` may be written now; what is not written is counted."""
        now = time.monotonic()
        due, silent = self._next.get(topic, (0.0, 0))
        if now < due:
            self._next[topic] = (due, silent + 1)
            return False
        self._next[topic] = (now + INTERVAL, 0)
        self._silent = silent
        return True

    def warning(self, event: str, **fields: object) -> None:
        """Writes the line that `is_due` has just allowed."""
        if self._silent:
            fields["not_logged_since"] = self._silent
        structlog.get_logger().warning(event, **fields)
