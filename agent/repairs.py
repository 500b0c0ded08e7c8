"""What was put back: how often, by kind, and who had changed it. Pure: times are arguments (epoch seconds)."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from agent.dataplane.compare import Difference
from agent.dataplane.events import RULES
from agent.fights import Fights

RECENT: Final = 20
"""Repairs that the status names."""

LONGEST_TEXT: Final = 400
"""Characters that are told of what was wrong."""


class Repair(NamedTuple):
    """Something that was put back."""

    at: float
    """Epoch seconds."""
    kind: str
    """`jump`, `rules`, `set` or `members`."""
    what: str
    by: str
    """Who changed it, if the kernel tells."""


def kind_of(difference: Difference) -> str:
    """What is not as it should be: `jump` (its place included), `rules`, a whole `set`, or `members`."""
    if difference.what != RULES:
        return "set" if "the set itself" in (*difference.missing, *difference.extra) else "members"
    lines = (*difference.missing, *difference.extra)
    ways = (" -A INPUT ", " -A OUTPUT ", " -A FORWARD ", " the jumps ")
    return "jump" if lines and all(any(way in line for way in ways) for line in lines) else "rules"


class Repairs:
    """The ledger. What is put back counts when that is done, in the fights too."""

    def __init__(self, fights: Fights) -> None:
        self._fights = fights
        self.by_kind: Counter[str] = Counter()
        self._under_way: list[tuple[Difference, str]] = []
        self._recent: deque[Repair] = deque(maxlen=RECENT)

    def begin(self, found: Sequence[Difference], by: str) -> None:
        """This is going to be put back; `by` changed it (empty if that is not known)."""
        self._under_way += [(each, by) for each in found]

    def done(self, now: float) -> None:
        """The kernel is as it was told to be: what was begun has been put back."""
        for each, by in self._under_way:
            self.note(each, by, now)
        self._under_way.clear()

    def note(self, difference: Difference, by: str, now: float) -> None:
        """This was put back; `by` is as in `begin`."""
        kind = kind_of(difference)
        self._fights.note(difference.what, now, by)
        self.by_kind[kind] += 1
        self._recent.append(Repair(round(now, 3), kind, str(difference)[:LONGEST_TEXT], by))

    def status(self) -> dict[str, Any]:
        """How often, and the last ones."""
        return {"repairs": dict(self.by_kind), "repaired": [each._asdict() for each in self._recent]}
