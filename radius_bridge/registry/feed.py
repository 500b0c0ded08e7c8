"""The change feed: records that say what a writer changed lately, and the rules for reading them. Pure.

Each writer has one record below `$changes$/`, and numbers its entries from 0 for as long as it lives. A follower
knows the number that it expects next of each writer: what it has not read in time shows as a gap. An entry carries
the Raft index of its commit; registry.view orders by it.

A writer's place in the key space says what it may name (its class), and Consul's ACL says who may write there: so
the feed lets nobody change what the ACL keeps from him.
"""

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Final

import msgspec

from radius_bridge.policy.members import USER_PREFIX
from radius_bridge.registry.errors import UNREADABLE
from radius_bridge.registry.keys import ALIAS, BINDING, CONFIRM, IPSET, RESTART, SERVICE, SESSION, Keys

MAX_RECORD: Final = 96 * 1024
"""Octets of one record, at most."""

LONGEST_VALUE: Final = 48 * 1024
"""Octets of a value that is announced: of a longer one, that everything is to be read again. What the bridge writes is
shorter. Escaped, this much becomes six times as long, and as base64 in a transaction a third longer still: what Consul
takes at once is a bit more (`kv.MAX_BYTES`)."""

KEPT_FOR: Final = 2.0
"""Seconds for which an entry stays in its record, so that a follower who was slow to ask again has no gap."""

KEPT_BYTES: Final = 16 * 1024
"""Octets from which on only what is fresh stays: every follower fetches the record (all pages) whenever it wakes."""

FRESH: Final = 0.3
"""Seconds for which an entry is fresh: followers look ten times a second at most (`registry.poll`)."""

STANDS: Final = 0.15
"""Seconds for which an entry stands in any case: what is new waits if there is no room for both (beyond some 10,000
logins a second)."""

PAGE_BYTES: Final = 4 * 1024
"""Octets of a page (`registry.pages`) from which on it is full: each transaction that announces on it carries it."""

QUIET_BYTES: Final = 1024
"""A record that is larger (some ten logins) is emptied when things go quiet: the next wake-up is small again."""

READ_AGAIN: Final = ""
"""An entry with this key says: what you know may be wrong (Consul was restored), read everything again."""

DERIVED_PREFIX: Final = "radius."
"""Groups that the bridge derives from attributes start with this."""

BRIDGE_GROUPS: Final = (USER_PREFIX, DERIVED_PREFIX)
"""How the names of the groups begin that the bridge writes."""

_BRIDGES_GROUPS: Final = tuple(f"{ALIAS}/${name}" for name in BRIDGE_GROUPS)


class Class(Enum):
    """A class of writers: where their records are (below `$changes$/`), and what these may name."""

    BRIDGE = "access/bridge"
    """What the network says: groups of users."""
    ENGINEER = "access/engineer"
    """What engineers say: grants, sets, all other groups, and what they confirm."""
    IDENTITY = "identity"
    """Who is behind which address: sessions, bindings, restarts."""

    def concerns(self, prefix: str) -> bool:
        """True if entries of this class may name something below `prefix` (itself below the root)."""
        if self is Class.BRIDGE:
            return prefix.startswith(_BRIDGES_GROUPS) or f"{ALIAS}/".startswith(prefix)
        return any(prefix.startswith(folder) for folder in self._folders) and not prefix.startswith(_BRIDGES_GROUPS)

    @property
    def _folders(self) -> tuple[str, ...]:
        identity = self is Class.IDENTITY
        folders = (BINDING, SESSION, RESTART) if identity else (ALIAS, SERVICE, IPSET, CONFIRM)
        return tuple(f"{folder}/" for folder in folders)

    def may_name(self, key: str) -> bool:
        """True if entries of this class may name `key` (below the root)."""
        if key == READ_AGAIN:
            return True
        if self is Class.BRIDGE:
            return key.startswith(_BRIDGES_GROUPS)
        return key.startswith(self._folders) and not key.startswith(_BRIDGES_GROUPS)


class Change(msgspec.Struct, frozen=True, gc=False):
    """One key as a commit left it."""

    key: str
    """The whole key, root included; READ_AGAIN names none."""
    value: bytes | None
    """None: it is gone."""
    index: int
    """Raft index of the commit; in what is written, 0 stands for that of the record itself."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a writer announced lately."""

    first: int
    """The number of the first entry."""
    clock: float
    """The writer's clock when it wrote this (epoch seconds)."""
    entries: tuple[tuple[str, str | None, int], ...] = ()
    """Key below the root, value (None: gone), Raft index (0: this record's own)."""
    brief: bool = False
    """True if its writer has ended with it: one call of a command, or a bridge that was stopped."""


class _Clock(msgspec.Struct, frozen=True):
    clock: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode
_decode_clock = msgspec.json.Decoder(_Clock).decode


def record_key(keys: Keys, writers: Class, writer: str) -> str:
    """Where `writer` keeps its record."""
    return f"{keys.changes}{writers.value}/{writer}"


def class_of(keys: Keys, key: str) -> Class | None:
    """The class of the writer whose record is at `key`; None if there is no such class."""
    folder = key.removeprefix(keys.changes).rpartition("/")[0]
    return next((each for each in Class if each.value == folder), None)


def brief_record(keys: Keys, changes: Iterable[Change], now: float) -> bytes:
    """The record of a writer that lives for one transaction, and puts it there together with its data."""
    entries = tuple(_entry(keys, change) for change in changes)
    return _encode(Record(0, now, entries, brief=True))


def class_for(keys: Keys, key: str) -> Class | None:
    """The class of writers whose records may name `key` (whole); None if nobody announces it."""
    below = key.removeprefix(f"{keys.root}/")
    return next((each for each in Class if below and each.may_name(below)), None)


def decode_record(value: bytes) -> Record:
    """Reads a record. Raises ValueError if it is none."""
    try:
        record = _decode(value)
    except UNREADABLE as error:
        raise ValueError(f"no record of changes ({error})") from None
    if record.first < 0 or any(index < 0 for _, _, index in record.entries):
        raise ValueError("no record of changes (a negative number in it)")
    return record


def decode_clock(value: bytes) -> float:
    """The clock of a record of ours, in a fraction of the time. Raises ValueError if it has none."""
    try:
        return _decode_clock(value).clock
    except UNREADABLE as error:
        raise ValueError(f"no record of changes ({error})") from None


class Log:
    """A writer's side: what was announced lately, and the record that says so."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._lines: deque[tuple[bytes, float]] = deque()
        """Each entry as it stands in the record, and when it was added."""
        self._size = 0
        self.first = 0
        """The number of the oldest entry in it."""
        self.crowded = False
        """True if `add` had to leave some for later."""

    @property
    def size(self) -> int:
        """Octets of the entries in it."""
        return self._size

    def add(self, changes: deque[Change], now: float) -> int:
        """Takes as many of `changes` (off its left end) as there is room for, and forgets what is old.

        Gives their number. `now` is in seconds, by a clock that never goes back.
        """
        self.forget_old(now)
        fresh = 0
        self.crowded = False
        while changes:
            line = _encode(_entry(self._keys, changes[0]))
            if not self._make_room(len(line) + 1, now):
                self.crowded = True
                break
            changes.popleft()
            self._lines.append((line, now))
            self._size += len(line) + 1
            fresh += 1
        return fresh

    def lines(self, changes: Iterable[Change]) -> list[bytes]:
        """Changes as they stand in a record that is written in the same transaction."""
        return [_encode(_entry(self._keys, change)) for change in changes]

    def extend(self, lines: Iterable[bytes], index: int, now: float) -> None:
        """Takes such lines, which were announced already, by the commit with that index."""
        for line in lines:
            own = line[: -len(_OWN)] + b",%d]" % index
            self._lines.append((own, now))
            self._size += len(own) + 1

    def forget_old(self, now: float) -> None:
        """Forgets what everybody has read by now."""
        while self._lines and now - self._lines[0][1] > KEPT_FOR:
            self._forget()

    def trim(self) -> None:
        """Forgets all entries: everybody has had the time to read them."""
        self.first += len(self._lines)
        self._lines.clear()
        self._size = 0

    def record(self, now: float, more: Iterable[bytes] = (), *, ended: bool = False) -> bytes:
        """The record as it is to be written, with `more` lines behind what is in it; `ended` if it is the last."""
        lines = [*(line for line, _ in self._lines), *more]
        return b'{"first":%d,"clock":%.3f,"entries":[%b]%b}' % (
            self.first,
            now,
            b",".join(lines),
            b',"brief":true' if ended else b"",
        )

    def _make_room(self, octets: int, now: float) -> bool:
        """Forgets what makes room for so many octets; False if there is none for now."""
        while self._lines:
            age = now - self._lines[0][1]
            if self._size + octets + _ENVELOPE <= (MAX_RECORD if age <= FRESH else KEPT_BYTES):
                return True
            if age < STANDS:
                return False
            self._forget()
        return True

    def _forget(self) -> None:
        line, _ = self._lines.popleft()
        self._size -= len(line) + 1
        self.first += 1


_OWN: Final = b",0]"
"""How a line ends whose entry has the index of the record itself."""

_ENVELOPE: Final = 100
"""Octets of a record around its entries, at most."""


BRIEF_KEPT: Final = 60.0
"""Seconds for which the record of a brief writer stays."""

ABANDONED: Final = 600.0
"""Seconds without a sign of life after which a writer's record is removed. (It may well write another one later.)"""


def is_abandoned(record: Record, now: float) -> bool:
    """True if the record can be removed at `now` (epoch seconds)."""
    return record.clock + (BRIEF_KEPT if record.brief else ABANDONED) <= now


def as_announced(value: bytes) -> bytes:
    """A value as it arrives through the feed: what is not UTF-8 (and so means nothing to anybody) is replaced."""
    return value.decode("utf-8", "replace").encode()


def _entry(keys: Keys, change: Change) -> tuple[str, str | None, int]:
    if change.value is not None and len(change.value) > LONGEST_VALUE:
        return READ_AGAIN, None, 0
    value = None if change.value is None else change.value.decode("utf-8", "replace")
    return change.key.removeprefix(f"{keys.root}/"), value, change.index
