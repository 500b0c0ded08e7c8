"""Keys and values as Consul keeps them, and the operations of its transactions. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final, Self

import msgspec

MAX_OPS: Final = 64
"""Operations in one transaction (a limit of Consul's)."""

MAX_BYTES: Final = 512 * 1024
"""Body of one transaction (a limit of Consul's)."""

_AROUND: Final = 128
"""Octets of an operation besides its key, value and session, at most."""


class Entry(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """One key in Consul."""

    key: str
    modify_index: int
    """Raft index of the last change of the value: what check-and-set compares."""
    session: str = ""
    """The session that holds the key as a lock; empty if none does."""
    raw: bytes | None = msgspec.field(name="Value", default=None)

    @property
    def value(self) -> bytes:
        """The value; empty if the key has none."""
        return self.raw or b""


class Snapshot(msgspec.Struct, frozen=True):
    """What stood below one prefix at one moment."""

    index: int
    """X-Consul-Index, at least 1: pass it on to wait for the next change."""
    entries: tuple[Entry, ...]
    missing: bool
    """True if Consul said 404: the prefix is empty, *or* hidden from this token."""
    last_contact: float
    """Seconds since the server that answered heard from its leader."""
    known_leader: bool
    """False if that server knew no leader."""


class Listing(msgspec.Struct, frozen=True):
    """The keys that stood below one prefix at one moment."""

    index: int
    """X-Consul-Index, at least 1."""
    keys: tuple[str, ...]
    """In their order."""
    missing: bool
    """True if Consul said 404: the prefix is empty, *or* hidden from this token."""


class Op(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """One operation of a transaction; made by the class methods."""

    verb: str
    key: str
    value: bytes = b""
    index: int = 0
    session: str = ""

    @classmethod
    def set(cls, key: str, value: bytes) -> Self:
        """Writes `value`. An unchanged value wakes nobody."""
        return cls("set", key, value)

    @classmethod
    def cas(cls, key: str, value: bytes, index: int) -> Self:
        """Writes `value` if the key still has `index`; 0 means that it must not exist."""
        return cls("cas", key, value, index)

    @classmethod
    def delete(cls, key: str) -> Self:
        """Deletes the key; that it does not exist is no error."""
        return cls("delete", key)

    @classmethod
    def delete_cas(cls, key: str, index: int) -> Self:
        """Deletes the key if it still has `index`."""
        return cls("delete-cas", key, index=index)

    @classmethod
    def check(cls, key: str, index: int) -> Self:
        """Holds if the key still has `index`; 0 means that it must not exist."""
        return cls("check-index", key, index=index) if index else cls("check-not-exists", key)

    @classmethod
    def check_session(cls, key: str, session: str) -> Self:
        """Holds if `session` holds the key as a lock."""
        return cls("check-session", key, session=session)

    @property
    def writes(self) -> bool:
        """False for what only checks."""
        return not self.verb.startswith(("check", "get"))

    @property
    def size(self) -> int:
        """Octets that it takes in the body of a transaction, at most."""
        return octets((self,))


def octets(ops: Iterable[Op]) -> int:
    """Octets that operations take in the body of a transaction, at most."""
    total = 0
    for op in ops:
        # A character of a key becomes six octets at most (an escape), three octets of a value four (base64).
        total += 6 * (len(op.key) + len(op.session)) + (len(op.value) + 2) // 3 * 4 + _AROUND
    return total


class Committed(msgspec.Struct, frozen=True):
    """A transaction that was carried out."""

    index: int
    """Raft index of the commit; 0 if nothing was set."""
    modified: Mapping[str, int]
    """The new modify index of each key that was set or checked."""
