"""Reads prefixes into a view: many of one folder together, and none is taken for empty that is only lost."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

from radius_bridge.process import together
from radius_bridge.registry import meta
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Entry, Snapshot
from radius_bridge.registry.parts import gently
from radius_bridge.registry.poll import confirmed
from radius_bridge.registry.view import Changed, View

READS: Final = 4
"""Reads at the same time."""

SLICE: Final = 1000
"""Entries or prefixes that are taken in between two turns of the event loop (some milliseconds)."""

WHOLE: Final = 64
"""From so many prefixes of one folder on, the folder is read whole."""


class Failure(NamedTuple):
    """One read that failed."""

    what: str
    """The prefix that was asked for."""
    prefixes: set[str]
    """Those that it was to tell of."""
    error: RegistryError


class Found(NamedTuple):
    """What reads that go together brought."""

    changed: list[Changed]
    taken: list[str]
    """The prefixes that the view has taken in."""
    failures: list[Failure]


class _Answer(NamedTuple):
    what: str
    prefixes: set[str]
    snapshot: Snapshot


class PrefixReader:
    """Reads prefixes of a view; one round at a time.

    `counters` gets `reads`, `entries_read` and `confirmed` (answers that were asked of the leader again).
    """

    def __init__(self, consul: Consul, keys: Keys, view: View, counters: Counter[str]) -> None:
        self._consul = consul
        self._keys = keys
        self._view = view
        self._counters = counters

    async def read(self, prefixes: set[str], begin: Callable[[str], None], *, consistent: bool) -> Found:
        """Reads them into the view, as far as that works; `begin` is told of each right before it is asked for."""
        folders: defaultdict[str, set[str]] = defaultdict(set)
        async for prefix in gently(prefixes, SLICE):
            folders[_folder(prefix)].add(prefix)
        jobs: list[tuple[str, set[str]]] = []
        for folder, within in folders.items():
            jobs += [(folder, within)] if len(within) > WHOLE else [(prefix, {prefix}) for prefix in within]
        gate = asyncio.Semaphore(READS)
        answers: list[_Answer] = []
        failures: list[Failure] = []

        async def work(what: str, covers: set[str]) -> None:
            async with gate:
                async for prefix in gently(covers, SLICE):
                    begin(prefix)
                    self._view.begin(prefix)
                try:
                    answers.append(_Answer(what, covers, await self._ask(what, covers, consistent)))
                except RegistryError as error:
                    failures.append(Failure(what, covers, error))

        async with together() as tasks:
            for what, covers in jobs:
                tasks.create_task(work(what, covers))
        if doubtful := await self._doubt([answer for answer in answers if answer.snapshot.missing]):
            failures += doubtful
            answers = [answer for answer in answers if not answer.snapshot.missing]
        for failure in failures:
            for prefix in failure.prefixes:
                self._view.abort(prefix)
        changed: list[Changed] = []
        for answer in answers:
            changed += await self._take(answer)
        return Found(changed, [prefix for answer in answers for prefix in answer.prefixes], failures)

    async def _ask(self, what: str, covers: set[str], consistent: bool) -> Snapshot:
        """The leader's answer; one that would take away all or most of what we have, asked for twice."""
        snapshot = await self._consul.read(what, consistency="consistent" if consistent else "default")
        self._counters["reads"] += 1
        self._counters["entries_read"] += len(snapshot.entries)
        known = 0
        async for prefix in gently(covers, SLICE):
            known += len(self._view.below(prefix)) if prefix in self._view.covered else 0
        if 2 * len(snapshot.entries) < known:
            self._counters["confirmed"] += 1
            for prefix in covers:
                self._view.begin(prefix)
            snapshot = await confirmed(self._consul, self._keys, what)
        return snapshot

    async def _doubt(self, empty: list[_Answer]) -> list[Failure]:
        """What Consul said is not there: the sentinel, read after all of it, tells that from a lost registry."""
        if not empty:
            return []
        self._counters["confirmed"] += 1
        try:
            await meta.expect(self._consul, self._keys, empty[0].what)
        except RegistryError as error:
            return [Failure(answer.what, answer.prefixes, error) for answer in empty]
        return []

    async def _take(self, answer: _Answer) -> list[Changed]:
        """Takes an answer into the view, prefix by prefix, with turns for others in between."""
        entries = answer.snapshot.entries
        lots: dict[str, list[Entry]] = {prefix: [] for prefix in answer.prefixes}
        if len(lots) == 1:
            lots[answer.what].extend(entries)
        else:  # all of one folder
            start = len(answer.what)
            async for entry in gently(entries, SLICE):
                prefix = entry.key[: entry.key.find("/", start) + 1]
                if prefix in lots:
                    lots[prefix].append(entry)
        changed: list[Changed] = []
        async for prefix, lot in gently(lots.items(), SLICE):
            changed += self._view.complete(prefix, answer.snapshot.index, lot)
        return changed


def _folder(prefix: str) -> str:
    return prefix[: prefix.rindex("/", 0, -1) + 1]
