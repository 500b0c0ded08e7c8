"""What stands in Consul, compared with what the feed has told of it. Pure: the publisher reads, and announces.

A difference is no news at first: its writer is about to announce it. Only what a moment later is still unknown
to those who follow the feed is announced by the publisher.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from radius_bridge.policy.expiry import is_over, parse_expiry
from radius_bridge.registry.announcer import READ_ALL
from radius_bridge.registry.feed import Change, Class, as_announced
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.view import View

TOO_MANY: Final = 10_000
"""Differences from which on it is less to have everybody read again."""


class Comparison:
    """One comparison of a folder that `view` covers; begin it before anything is read.

    `note` what changes in the view from then on; pass everything that was read to `look` and `look_for`; then `settle`.
    """

    def __init__(self, view: View, root: str, folder: str, since: Mapping[Class, int], now: float) -> None:
        """`since`: the classes to compare for, each with the index up to which everything has been announced.

        0: it was empty then, or nobody has announced anything before. `root` ends with a slash; `now` is in epoch
        seconds.
        """
        self._view = view
        self._root = len(root)
        self._since = dict(since)
        self._floor = view.floor(folder)
        self._oldest = min(since.values(), default=self._floor)
        self._now = now
        self._recent: set[str] = set()
        self._suspects: list[tuple[Class, Change]] = []
        self._unwitnessed: list[tuple[Class, Change]] = []
        self._again: set[Class] = set()
        self._newest = 0
        self.folder = folder
        self.index = 0
        """The index of the listing of the folder's keys; set it before `look_for`."""
        self.is_empty = False
        """True if the listing had none: its index then tells of other folders."""

    def note(self, keys: Iterable[str]) -> None:
        """These keys have become others in the view."""
        self._recent.update(keys)

    def concerns(self, key: str) -> bool:
        """True if one of the classes may name the key (whole)."""
        return self._class_of(key) is not None

    def look(self, entries: Iterable[Entry]) -> None:
        """These were read."""
        values, oldest, floor = self._view.below(self.folder), self._oldest, self._floor
        for entry in entries:
            self._newest = max(self._newest, entry.modify_index)
            is_known = values.get(entry.key) == entry.raw
            if is_known and not oldest < entry.modify_index <= floor:
                continue
            writers = self._class_of(entry.key)
            if writers is None:
                continue
            change = Change(entry.key, entry.value, entry.modify_index)
            if self._since[writers] < entry.modify_index <= floor:
                # After the last leader looked, and before we began to follow: we know it, hosts may not.
                self._unwitnessed.append((writers, change))
            if not is_known and values.get(entry.key) not in {entry.value, as_announced(entry.value)}:
                self._suspect(writers, change)

    def look_for(self, known: Iterable[str], stands: Collection[str]) -> None:
        """Of the view's keys `known`, those that are not among what `stands` are gone as of `index`."""
        values = self._view.below(self.folder)
        for key in known:
            value = values.get(key)
            if key in stands or value is None:
                continue
            writers = self._class_of(key)
            if writers is None:
                continue
            gone = Change(key, None, self.index)
            expires = parse_expiry(value)
            if expires is not None and is_over(expires, self._now):
                self._view.apply(gone)  # hosts know the time themselves
            else:
                self._suspect(writers, gone)

    @property
    def is_overtaken(self) -> bool:
        """True if the folder was read again meanwhile: nobody can say what of it hosts were told."""
        return self._view.floor(self.folder) != self._floor

    def done(self, writers: Class) -> int:
        """`since` for the next comparison."""
        if self.is_overtaken:
            return self._since[writers]
        return 0 if self.is_empty else self.index

    def settle(self) -> dict[Class, list[Change]]:
        """What nobody has announced meanwhile, by class.

        A READ_ALL among it says that Consul has gone back, or that it is too much.
        """
        found: dict[Class, list[Change]] = {each: [] for each in self._since}
        for writers, change in self._suspects:
            if self.is_overtaken or self._view.index(change.key) < change.index:
                found[writers].append(change)
        for writers, change in self._unwitnessed:
            found[writers].append(change)
        since = self._since.get(Class.ENGINEER)
        is_deletion = self.index > self._newest and not (self.is_empty and since == 0)
        if since is not None and since < self._floor and is_deletion and not self._is_shared():
            self._again.add(Class.ENGINEER)  # something was deleted, and nobody can say what
        for writers, changes in found.items():
            if writers in self._again or len(changes) > TOO_MANY:
                found[writers] = [READ_ALL]
        return found

    def _suspect(self, writers: Class, change: Change) -> None:
        if change.index > self._view.index(change.key):
            self._suspects.append((writers, change))
        elif change.key not in self._recent:
            self._again.add(writers)

    def _is_shared(self) -> bool:
        """True if bridges delete in this folder all the time. (Of users the NAS repeats it.)"""
        return Class.BRIDGE.concerns(self.folder[self._root :])

    def _class_of(self, key: str) -> Class | None:
        below = key[self._root :]
        return next((writers for writers in self._since if writers.may_name(below)), None)
