"""What a follower of the change feed knows of Consul: the parts it covers, each key with its index. Pure.

An entry of the feed counts only if its commit is newer than what is known of its key: so no slow writer, repetition
or late answer puts back what has been revoked. Two ways lead into a view: reads of whole prefixes, *asked of the
leader* and announced by `begin` before they are sent; and entries, in any order, by `apply`.

Why this converges: what was applied before `begin` had been committed before, so the read contains it (or what
replaced it). What is applied between `begin` and `complete` may be missing in the read, and is laid over it if its
index is newer. What was never applied (a gap) leads to a new read. Nothing of this needs indexes that only grow: after
a restored snapshot, or when Consul forgets old deletions, they become smaller.
"""

from collections.abc import Collection, Iterator, Mapping, Set
from typing import NamedTuple

from radius_bridge.registry.feed import Change
from radius_bridge.registry.kv import Entry

_SHORT = 16
"""Octets: as long as an expiry."""


class Changed(NamedTuple):
    """A key whose value in the view has become another one."""

    key: str
    old: bytes | None
    """None: it was not there."""
    new: bytes | None
    """None: it is not there any more."""


class _Cover:
    """One covered prefix."""

    __slots__ = ("complete", "floor", "indexes", "later", "reading", "values")

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.indexes: dict[str, int] = {}
        """Of each key that is known by something newer than `floor`, the index; deletions included."""
        self.floor = 0
        """The index of the last read: what is not in `indexes` is known as of it."""
        self.complete = False
        self.reading = False
        self.later: dict[str, Change] = {}
        """What was applied since `begin` or, of an incomplete prefix, at all."""


class View:
    """Keys and values below the covered prefixes. All keys are whole (root included), all prefixes end with `/`.

    Prefixes may lie within each other: each is kept by itself.
    """

    def __init__(self) -> None:
        self._covers: dict[str, _Cover] = {}

    @property
    def covered(self) -> Set[str]:
        """All covered prefixes, as they are now and will be."""
        return self._covers.keys()

    @property
    def incomplete(self) -> frozenset[str]:
        """The covered prefixes that must be read (again) before the view can be relied on."""
        return frozenset(prefix for prefix, cover in self._covers.items() if not cover.complete)

    def is_complete(self, prefix: str) -> bool:
        """True if `prefix` is covered, and was read since it is covered or since the last `rewind`."""
        cover = self._covers.get(prefix)
        return cover is not None and cover.complete

    def get(self, key: str) -> bytes | None:
        """The value of a key; None if it is not there or not covered."""
        return next((cover.values[key] for cover in self._covering(key) if key in cover.values), None)

    def index(self, key: str) -> int:
        """The Raft index by which the key (or that it is gone) is known; 0 if it is not covered."""
        return max((max(cover.floor, cover.indexes.get(key, 0)) for cover in self._covering(key)), default=0)

    def floor(self, prefix: str) -> int:
        """The index of the last whole read of a covered prefix; 0 if there was none yet. Raises KeyError."""
        return self._covers[prefix].floor

    def below(self, prefix: str) -> Mapping[str, bytes]:
        """Keys and values below a covered prefix (exactly as it was covered). Raises KeyError if it is not."""
        return self._covers[prefix].values

    def cover(self, prefix: str) -> None:
        """From now on everything below `prefix` is kept; nothing is known of it before `complete`.

        Raises ValueError if `prefix` does not end with a slash.
        """
        if not prefix.endswith("/"):
            raise ValueError(f"{prefix!r}: a prefix ends with a slash")
        self._covers.setdefault(prefix, _Cover())

    def uncover(self, prefix: str) -> list[Changed]:
        """Forgets everything below `prefix`; gives what that was."""
        cover = self._covers.pop(prefix, None)
        return [] if cover is None else [Changed(key, value, None) for key, value in cover.values.items()]

    def begin(self, prefix: str) -> None:
        """A read of `prefix` is about to be sent to the leader. One read of a prefix at a time."""
        cover = self._covers.get(prefix)
        if cover is not None:
            if cover.complete:
                cover.later.clear()
            cover.reading = True

    def complete(self, prefix: str, index: int, entries: Collection[Entry]) -> list[Changed]:
        """The read that `begin` announced was answered: `index` is its X-Consul-Index, `entries` all below `prefix`.

        The read may have been of a larger prefix; entries elsewhere are ignored. Does nothing if `prefix` is not
        covered, or was covered or rewound only after `begin`: what was asked before that is too old.
        """
        cover = self._covers.get(prefix)
        if cover is None or not cover.reading:
            return []
        values, before = cover.values, dict[str, bytes | None]()
        cover.indexes, cover.floor = {}, index
        # In place: what is the same, mostly all, stays where it is in memory.
        same: dict[bytes, bytes] = {}
        found, last = 0, ""
        for entry in entries:
            key, value = entry.key, entry.value
            if not key.startswith(prefix):
                continue
            found += key > last  # Consul lists keys in order; were one there twice, it would count once
            last = key
            if entry.modify_index > index:
                cover.indexes[key] = entry.modify_index
            old = values.get(key)
            if old != value:
                before[key] = old
                # Many members end at the same time: one value for all of them.
                values[key] = same.setdefault(value, value) if len(value) <= _SHORT else value
        if found < len(values):
            for key in values.keys() - {entry.key for entry in entries}:
                before[key] = values.pop(key)
        cover.complete, cover.reading = True, False
        later, cover.later = cover.later, {}
        for change in later.values():
            before.setdefault(change.key, values.get(change.key))
            _apply(cover, change)
        return [Changed(key, old, values.get(key)) for key, old in before.items() if values.get(key) != old]

    def abort(self, prefix: str) -> None:
        """The read that `begin` announced has failed."""
        cover = self._covers.get(prefix)
        if cover is not None:
            cover.reading = False
            if cover.complete:
                cover.later.clear()

    def apply(self, change: Change) -> list[Changed]:
        """An entry of the feed. Gives what it changed: nothing if its key is not covered or known better.

        Below an incomplete prefix it is kept for `complete`: what was known before a `rewind` can be newer, and
        nothing is to be granted that has been revoked since.
        """
        changed: list[Changed] = []
        for cover in self._covering(change.key):
            if cover.reading or not cover.complete:
                waiting = cover.later.get(change.key)
                if waiting is None or waiting.index < change.index:
                    cover.later[change.key] = change
            if cover.complete:
                old = cover.values.get(change.key)
                if _apply(cover, change) and old != change.value:
                    changed.append(Changed(change.key, old, change.value))
        return changed

    def rewind(self) -> None:
        """Consul was restored from an older snapshot: everything must be read again.

        What is known stays until it is replaced: that Consul was restored revokes nothing and grants nothing.
        """
        for cover in self._covers.values():
            cover.complete = cover.reading = False
            cover.later.clear()

    def _covering(self, key: str) -> Iterator[_Cover]:
        end = key.find("/") + 1
        while end:
            cover = self._covers.get(key[:end])
            if cover is not None:
                yield cover
            end = key.find("/", end) + 1


def _apply(cover: _Cover, change: Change) -> bool:
    """True if it is newer than what is known of its key."""
    if change.index <= max(cover.floor, cover.indexes.get(change.key, 0)):
        return False
    cover.indexes[change.key] = change.index
    if change.value is None:
        cover.values.pop(change.key, None)
    else:
        cover.values[change.key] = change.value
    return True
