"""Follows a Kea lease file as Kea rewrites it.

Kea appends to `kea-leases4.csv`. Its clean-up (LFC) renames that to `.1`, begins a new one, and in another process
merges `.2` (the result of the clean-up before) and `.1` into `.output`, which it renames to `.completed`; then `.2` and
`.1` are deleted and `.completed` becomes the new `.2`. So all leases are in `.completed`, or else in `.2` and `.1`, and
then in the file itself, in this order.

What has been opened stays open: a file that is renamed or deleted is read to its end. Absence ends no lease here:
Kea writes a row when a lease ends.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Container
from pathlib import Path
from typing import Final, Self

from msgspec.structs import replace

from radius_bridge.identity.events import Lease
from radius_bridge.leases.kea import Columns
from radius_bridge.leases.outbox import Submit
from radius_bridge.leases.source import Trouble, Watcher
from radius_bridge.policy.members import Prefix

CHUNK: Final = 16 * 1024
"""Octets read, and parsed, before other work has its turn."""

SLICE: Final = 200
"""Leases that are passed on before other work has its turn."""

ROTATION: Final = 0.9
"""Seconds: Kea cleans up once a second at most, so that within this time at most one file came and went."""

_LAST: Final = 256
"""Octets before our place that must still be the same, or else the file has been rewritten."""

_LONGEST: Final = 256 * 1024
"""Octets of a row; more is no lease file."""


class Lost(Trouble):
    """A file cannot be read on from where we were."""


class Reader:
    """One open lease file, and how far it has been read."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._place = 0
        self._last = b""
        self._row = 0
        self.columns: Columns | None = None
        """None until the header has been read."""
        self.rest = b""
        """A row that is not complete yet."""
        self.bad = ""
        """The first row that could not be read, and why."""

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    @property
    def inode(self) -> tuple[int, int]:
        """What tells this file from another one of the same name."""
        status = os.fstat(self._handle)
        return status.st_dev, status.st_ino

    def read(self) -> tuple[list[bytes], float] | None:
        """The next complete lines and when the file was last written; None at the end. Blocks; raises Lost."""
        try:
            data = os.pread(self._handle, len(self._last) + CHUNK, self._place - len(self._last))
            written = os.fstat(self._handle).st_mtime
        except OSError as error:
            raise Lost(f"{self.path} cannot be read: {error.strerror}") from None
        if not data.startswith(self._last):
            raise Lost(f"{self.path} was truncated or rewritten in place, which Kea never does: it is read anew")
        if len(data) == len(self._last):
            return None
        self._place += len(data) - len(self._last)
        fresh = self.rest + data[len(self._last) :]
        self._last = data[-_LAST:]
        *lines, self.rest = fresh.split(b"\n")
        if len(self.rest) > _LONGEST:
            raise Lost(f"{self.path} has a line of more than {_LONGEST} octets: is it Kea's lease file?")
        return lines, written

    def leases(self, lines: list[bytes], written: float, source: str) -> list[Lease]:
        """What the next lines say; rows that cannot be read are left out and noted in `bad`. Raises Lost."""
        found = []
        for line in lines:
            self._row += 1
            try:
                text = line.decode()
                if self.columns is None:
                    self.columns = Columns.of(text)
                elif text:
                    found.append(self.columns.lease(text, source, written))
            except ValueError as error:
                if self.columns is None:
                    raise Lost(f"{self.path}: {error}") from None
                self.bad = self.bad or f"{self.path}, line {self._row}, was left out: {error}"
        return found

    def finish(self) -> str:
        """What is wrong with a file that nobody writes any more; empty if nothing is."""
        return self.bad or (f"{self.path} ended in half a line" if self.rest else "")

    @classmethod
    def all(cls, path: Path) -> list[Self]:
        """Every file that holds leases, in the order in which they must be read. Blocks; raises Trouble."""
        try:
            for _ in range(100):
                readers = cls._opened(path)
                if [reader.inode for reader in readers] == [reader.inode for reader in cls._opened(path)]:
                    return readers
                time.sleep(0.01)  # Kea is cleaning up at this moment
        except OSError as error:
            raise Trouble(f"{path} cannot be read: {error.strerror}") from None
        raise Trouble(f"{path} changes all the time: what cleans it up so often?")

    @classmethod
    def _opened(cls, path: Path) -> list[Self]:
        completed = cls._if_there(path, ".completed")
        older = [completed] if completed else [cls._if_there(path, ".2"), cls._if_there(path, ".1")]
        return [*(each for each in older if each is not None), cls(path)]

    @classmethod
    def _if_there(cls, path: Path, suffix: str) -> Self | None:
        try:
            return cls(path.with_name(path.name + suffix))
        except FileNotFoundError:
            return None


class KeaFile(Watcher):
    """The leases of one Kea server, as its lease file has them."""

    def __init__(self, name: str, networks: Container[Prefix], submit: Submit, path: Path) -> None:
        super().__init__(name, networks, submit)
        self._path = path
        self._reader: Reader | None = None
        self._half = b""
        self._looked = 0.0

    async def look(self) -> None:
        """Offers what is new in the file; everything after a start and whenever something may have been missed."""
        reader = self._reader
        if reader is None:
            reader = await self._load()
        else:
            try:
                reader = await self._follow(reader)
            except Lost:
                self.counters["read_again"] += 1
                self._reader = None
                raise
        if reader.columns is None:
            raise Trouble(f"{self._path} is empty, it has not even a header")
        half, self._half = self._half, reader.rest
        if reader.rest and reader.rest == half:
            raise Trouble(f"{self._path} ends in half a line")
        if reader.bad:
            raise Trouble(reader.bad)

    async def _load(self) -> Reader:
        """Reads everything; of each address the last row holds."""
        self._looked = _clock()
        readers = await asyncio.to_thread(Reader.all, self._path)
        last: dict[Prefix, Lease] = {}
        for reader in readers:
            async for lease in self._rows(reader):
                last[lease.address] = lease
        self.counters["loads"] += 1
        now = time.time()
        for number, lease in enumerate(last.values()):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            if lease.expires > now:
                await self.offer(lease)
            elif lease.expires <= lease.at:  # Kea keeps such rows for long
                await self.offer(replace(lease, is_told_again=True))
        *older, self._reader = readers
        self._reader.bad = next(filter(None, (reader.finish() for reader in older)), self._reader.bad)
        return self._reader

    async def _follow(self, reader: Reader) -> Reader:
        """Reads on; gives the reader of the newest file."""
        await self._read_on(reader)
        try:
            status = await asyncio.to_thread(self._path.stat)
        except OSError as error:
            raise Trouble(f"{self._path} is not there: {error.strerror}") from None
        now = _clock()
        since, self._looked = now - self._looked, now
        if (status.st_dev, status.st_ino) == reader.inode:
            return reader
        self.counters["rotations"] += 1
        await self._read_on(reader)  # what was written between our reading and the rename
        if since > ROTATION:
            return await self._load()
        try:
            self._reader = await asyncio.to_thread(Reader, self._path)
        except OSError as error:
            raise Lost(f"{self._path} cannot be read: {error.strerror}") from None
        self._reader.bad = reader.finish()
        await self._read_on(self._reader)
        return self._reader

    async def _read_on(self, reader: Reader) -> None:
        async for lease in self._rows(reader):
            await self.offer(lease)

    async def _rows(self, reader: Reader) -> AsyncIterator[Lease]:
        while (fresh := await asyncio.to_thread(reader.read)) is not None:
            self.counters["rows"] += len(fresh[0])
            for lease in reader.leases(*fresh, self.name):
                yield lease


def _clock() -> float:
    """Seconds that go on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
