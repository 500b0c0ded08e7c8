"""One change of the kernel: what it did, and the state of one that is under way."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.dataplane.sets import Sets, open_sets

T = TypeVar("T")

MANY = 2_000
"""Working on more entries than this takes milliseconds."""


async def aside(entries: int, work: Callable[[], T]) -> T:
    """Does work on so many entries; if they are many in another thread, so that meanwhile others have their turn."""
    return await in_thread(work) if entries > MANY else work()


async def in_thread(work: Callable[[], T]) -> T:
    """Does work in another thread. Who is cancelled meanwhile waits for its end: no thread is left on a socket that the
    next one uses."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        working.exception()  # nobody is left to hear of it
        raise


@dataclass(slots=True)
class Change:
    """What one apply did. True if it did anything."""

    rebuilt: list[str] = field(default_factory=list)
    """Services and overrides whose sets were built aside and swapped in."""
    added: int = 0
    deleted: int = 0
    refused: list[str] = field(default_factory=list)
    """Entries that the kernel cannot hold, with the reason; they are not tried again."""
    rules: list[int] = field(default_factory=list)
    """The IP versions whose rules were written."""
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.rebuilt or self.added or self.deleted or self.refused or self.rules)

    def summary(self) -> dict[str, Any]:
        """The same in few words, for the log."""
        facts = {
            "rebuilt": len(self.rebuilt),
            "added": self.added,
            "deleted": self.deleted,
            "refused": self.refused[:10],
            "rules": self.rules,
        }
        return {name: fact for name, fact in facts.items() if fact} | {"ms": round(self.seconds * 1000, 2)}


class Run:
    """One apply under way: its time, what it did, what failed, and the sets if it needs them."""

    def __init__(self, now: float, began: float, existing: set[str], stack: AsyncExitStack) -> None:
        """It was `now` (epoch seconds) when it `began` (monotonic).

        `existing` are our sets in the kernel, to be kept up to date; `stack` closes what was opened.
        """
        self.began = began
        self.change = Change()
        self.failures: list[str] = []
        self.existing = existing
        self._now = now
        self._stack = stack
        self._sets: Sets | None = None

    def now(self) -> float:
        """The time (epoch seconds), which goes on while we work."""
        return self._now + time.monotonic() - self.began

    async def sets(self) -> Sets:
        """The sets of this network namespace. Raises DataplaneError."""
        if self._sets is None:
            self._sets = await self._stack.enter_async_context(open_sets())
        return self._sets
