"""Somebody undoes what is put back, again and again: then it is put back ever more slowly, and told. Pure."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

OFTEN: Final = 5
"""So many repairs of one thing within WINDOW are a fight."""

WINDOW: Final = 60.0
"""Seconds; after so long without a repair a fight is over."""

LONGEST: Final = 30.0
"""Seconds between two repairs of what is fought about, at most."""


@dataclass(slots=True)
class _Fight:
    repairs: deque[float] = field(default_factory=lambda: deque(maxlen=OFTEN))
    pause: float = 0.0
    by: str = ""


class Fights:
    """What was put back, how often, and when it may be put back again. Times are epoch seconds."""

    def __init__(self) -> None:
        self._of: dict[str, _Fight] = {}

    def may(self, what: str, now: float) -> bool:
        """True if `what` may be put back now."""
        return self._until(what) <= now or now < self._of[what].repairs[-1]

    def note(self, what: str, now: float, by: str) -> None:
        """`what` is put back now; `by` says who changed it."""
        self._forget(now)
        fight = self._of.setdefault(what, _Fight())
        fight.repairs.append(now)
        fight.by = by or fight.by
        if fight.pause or (len(fight.repairs) == OFTEN and now - fight.repairs[0] < WINDOW):
            fight.pause = min(LONGEST, 2 * fight.pause or 2.0)

    def next(self, now: float) -> float | None:
        """When the next thing may be put back that may not now; None if there is none."""
        return min((until for what in self._of if (until := self._until(what)) > now), default=None)

    def alarms(self, now: float) -> list[str]:
        """The fights that go on."""
        self._forget(now)
        return [
            f"{what}: somebody keeps changing this ({fight.by or 'the kernel does not tell who'}); it is put back, "
            f"but at most every {fight.pause:g} s: end the other writer"
            for what, fight in sorted(self._of.items())
            if fight.pause
        ]

    def _until(self, what: str) -> float:
        fight = self._of.get(what)
        return fight.repairs[-1] + fight.pause if fight else 0.0

    def _forget(self, now: float) -> None:
        for what in [what for what, fight in self._of.items() if not -WINDOW < now - fight.repairs[-1] < WINDOW]:
            del self._of[what]
