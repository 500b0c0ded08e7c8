"""A follower's side of the feed: how far it has read each writer, and what is new. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from radius_bridge.registry.feed import ABANDONED, BRIEF_KEPT, READ_AGAIN, Change, class_of, decode_clock, decode_record
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Entry

AWAY: Final = BRIEF_KEPT / 2
"""Seconds without a look at the feed from which on such a record may have come and gone; half, since clocks differ."""

_GONE_LIMIT: Final = 1000
"""Writers that were idle for long and are remembered, at most."""


@dataclass(slots=True)
class News:
    """What one look at the feed brought."""

    changes: list[Change] = field(default_factory=list)
    """What is new, of each writer in its order; between writers, `index` decides."""
    gaps: dict[str, str] = field(default_factory=dict)
    """Writers (the key of their record) of which something was missed, with the reason: read again what they name."""
    forged: list[str] = field(default_factory=list)
    """Entries that were discarded, with the reason: somebody may be trying to get around the ACL."""
    rewound: bool = False
    """True if a record is older than the one seen before, or a recent one is gone: Consul was restored. Nothing
    else was read then."""
    again: bool = False
    """True if a writer says that everything is to be read again."""
    missed: bool = False
    """True if records may have come and gone since the last look: read again what you need."""
    clocks: dict[str, float] = field(default_factory=dict)
    """The clocks of the records that are new (epoch seconds), by writer."""


@dataclass(slots=True)
class _Writer:
    expected: int | None
    """The number of the entry that comes next; None if the last record could not be read."""
    index: int
    """Raft index of the last record seen."""
    clock: float
    brief: bool


class Positions:
    """A follower's side: how far it has read each writer."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._writers: dict[str, _Writer] = {}
        self._gone: dict[str, _Writer] = {}
        """Writers whose record was removed, as a living one's may be when it was idle for long."""
        self._begun = False

    def read(self, records: Iterable[Entry], now: float, own: str = "") -> News:
        """What is new in the feed, given all its records. The first look brings nothing: read prefixes after it.

        A writer never seen before is expected to begin at 0. A record that vanished is no gap. `own` is the key of our
        own record, if there is one: what it says we know.
        """
        found = {entry.key: entry for entry in records if not entry.key.endswith("/")}
        if self._is_rewound(found, now):
            return News(rewound=True)
        news = News()
        seen: dict[str, _Writer] = {}
        for key, entry in found.items():
            known = self._writers.get(key) or self._gone.get(key)
            seen[key] = (
                known
                if known is not None and known.index == entry.modify_index
                else self._read_record(entry, known, news, own)
            )
        for key, writer in self._writers.items():
            if key not in seen and not writer.brief:
                self._gone[key] = writer
        for key in seen.keys() & self._gone.keys():
            del self._gone[key]
        while len(self._gone) > _GONE_LIMIT:
            del self._gone[next(iter(self._gone))]
        self._writers = seen
        self._begun = True
        return news

    def _is_rewound(self, found: dict[str, Entry], now: float) -> bool:
        for key, writer in self._writers.items():
            entry = found.get(key)
            if entry is not None and entry.modify_index < writer.index:
                return True
            # Half the time, since clocks differ.
            if entry is None and writer.clock + (BRIEF_KEPT if writer.brief else ABANDONED) / 2 > now:
                return True
        return False

    def forget(self) -> None:
        """Forgets everything: the next look is a first one (Consul was restored)."""
        self._writers.clear()
        self._gone.clear()
        self._begun = False

    def _read_record(self, entry: Entry, known: _Writer | None, news: News, own: str) -> _Writer:
        writers = class_of(self._keys, entry.key)
        if writers is None:
            news.forged.append(f"{entry.key}: no place for a writer")
            return _Writer(None, entry.modify_index, 0.0, brief=False)
        try:
            if known is not None and entry.key == own:  # a new one of ours may say that everybody is to read again
                news.clocks[own] = decode_clock(entry.value)
                return _Writer(None, entry.modify_index, news.clocks[own], brief=False)
            record = decode_record(entry.value)
        except ValueError as error:
            if entry.key != own:
                news.gaps[entry.key] = str(error)
            return _Writer(None, entry.modify_index, 0.0, brief=False)
        following = record.first + len(record.entries)
        news.clocks[entry.key] = record.clock
        if self._begun:
            expected = 0 if known is None else known.expected
            if expected is None or not record.first <= expected <= following:
                if entry.key != own:
                    news.gaps[entry.key] = f"begins at {record.first}, expected was {expected}"
                expected = record.first
            for below, value, index in record.entries[expected - record.first :]:
                if not writers.may_name(below):
                    news.forged.append(f"{entry.key} names {below!r}, which {writers.value}/ may not")
                elif index > entry.modify_index:
                    news.forged.append(f"{entry.key} names {below!r} at index {index}, later than its own")
                elif below == READ_AGAIN:
                    news.again = True
                else:
                    news.changes.append(
                        Change(
                            f"{self._keys.root}/{below}",
                            None if value is None else value.encode(),
                            index or entry.modify_index,
                        )
                    )
        return _Writer(following, entry.modify_index, record.clock, record.brief)
