"""A cheap look at sets of ipset, of whose members the kernel tells nothing: are they as they should be?"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

from agent.dataplane.change import aside
from agent.dataplane.kinds import Kind, set_name
from agent.dataplane.listed import Listed, are_as_wanted
from agent.dataplane.plan import LONGEST_TIMEOUT, Part, Wanted, by_kind
from agent.desired import Desired

FEW: Final = 2000
"""Members of a service up to which each look compares everything."""

ENDS_EVERY: Final = 60.0
"""Seconds after which a larger set is compared in full though the kernel lists the same members as when it last was."""

_EMPTY: Final = Part((), ())


class Looks:
    """Remembers, of each large set, what the kernel listed when it was last as it should be."""

    def __init__(self, versions: Collection[int], read: Callable[[str], Collection[bytes]]) -> None:
        """`versions`: of IP; `read` lists a set, as `Listed` takes it; it may be called in another thread."""
        self._versions = versions
        self._read = read
        self._right: dict[str, tuple[bytes, float]] = {}
        """Who was in a set when it was last right, and when that was (epoch seconds)."""

    async def right(self, desired: Desired, counts: Mapping[str, int], only: Collection[str], now: float) -> set[str]:
        """Which of the sets `only` are as desired at `now` (epoch seconds); of the others nothing is said.

        `counts` are the kernel's numbers of entries, by set. Raises DataplaneError.
        """
        found: set[str] = set()
        for name in desired.names:
            wanted = Wanted(desired.of(name), self._versions, shuts_out=desired.posture.shuts_out(name))
            sets = [(kind, set_name(kind, name)) for kind in wanted.kinds]
            asked = [(kind, each) for kind, each in sets if each in only and each in counts]
            unsure: list[tuple[Kind, str, bytes, dict[Any, int]]] = []
            for kind, each in asked:
                known = self._known(each, now) if len(desired.of(name)) > FEW else None
                try:
                    who, left = await aside(counts[each], partial(self._look, kind, each, known, counts[each]))
                except ValueError:
                    continue
                if left is None:
                    found.add(each)
                else:
                    unsure.append((kind, each, who, left))
            parts = by_kind(wanted.entries(), joined=wanted.shuts_out) if unsure else {}
            for kind, each, who, left in unsure:
                if are_as_wanted(
                    kind, left, parts.get(kind, _EMPTY), now, LONGEST_TIMEOUT, is_permanent=wanted.shuts_out
                ):
                    self._right[each] = who, now
                    found.add(each)
        self._right = {each: known for each, known in self._right.items() if each in counts}
        return found

    def _known(self, kernel_name: str, now: float) -> bytes | None:
        """Who was in a set when it was last right, unless that is long ago."""
        who, at = self._right.get(kernel_name, (None, 0.0))
        return who if 0 <= now - at < ENDS_EVERY else None

    def _look(
        self, kind: Kind, kernel_name: str, known: bytes | None, count: int
    ) -> tuple[bytes, dict[Any, int] | None]:
        """Who is in a set, and what it has, unless that is who was known."""
        listed = Listed(kind, self._read(kernel_name) if count else ())
        who = listed.who()
        return who, None if who == known else listed.left()
