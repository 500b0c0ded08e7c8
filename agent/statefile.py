"""The file that keeps the last good state over a reboot: it is whole or the one before it, whenever the power fails."""

import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.state import State, StateError, decode

ASIDE_KEPT: Final = 5
"""Refused files that are kept for a person to look at."""

MAX_SIZE: Final = 1 << 28
"""Octets: a million members take a seventh of it."""

_NAME: Final = "state"


class StateFile:
    """`state` in the agent's directory. One writer at a time: who holds the dataplane's lock."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / _NAME
        self._building = directory / f"{_NAME}.new"
        self._writing = threading.Lock()
        self._is_over = False

    def write(self, lines: Iterable[bytes]) -> int:
        """Puts `lines` in the file's place, on the disk when this returns; gives the octets written.

        Raises OSError; then the file is as it was before. A thread whose task was cancelled may still be writing: this
        waits for it. After `remove` nothing is written any more.
        """
        with self._writing:
            return 0 if self._is_over else self._write(lines)

    def _write(self, lines: Iterable[bytes]) -> int:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        size = 0
        try:
            with open(self._building, "wb", opener=_private) as file:
                for line in lines:
                    size += file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._building.replace(self.path)
        except BaseException:
            with suppress(OSError):
                self._building.unlink(missing_ok=True)
            raise
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return size

    def read(self) -> State | None:
        """The state; None if there is no file.

        Raises StateError if the file cannot be relied on, or cannot be read at all.
        """
        try:
            with open(self.path, "rb", opener=_not_linked) as file:
                _check(os.fstat(file.fileno()))
                return decode(file.read(MAX_SIZE + 1))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(str(error.strerror)) from None

    def set_aside(self, now: float) -> Path:
        """Renames a refused file, so that it is not read again; gives its new name. The oldest such files go.

        Raises OSError.
        """
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self.path.with_name(f"{_NAME}.corrupt-{moment}")
        self.path.replace(aside)
        for old in sorted(self.path.parent.glob(f"{_NAME}.corrupt-*"))[:-ASIDE_KEPT]:
            old.unlink()
        return aside

    def remove(self) -> None:
        """Removes the file, if it is there, for good: waits for a thread that still writes. Raises OSError."""
        with self._writing:
            self._is_over = True
            self.path.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _not_linked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _check(found: os.stat_result) -> None:
    """Raises StateError if others could have written it: who writes here opens ports."""
    if not stat.S_ISREG(found.st_mode):
        raise StateError("no regular file")
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(f"others may write it (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o})")
    if found.st_size > MAX_SIZE:
        raise StateError(f"{found.st_size} octets are too many")
