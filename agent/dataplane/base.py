"""What the backends of the dataplane share: what a host is made for, their lock, what others left, running programs."""

import asyncio
import fcntl
import os
import signal
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from agent.dataplane.errors import DataplaneError
from agent.desired import ALLOW, DENY, Desired

CHECK_SECONDS = 30.0
"""How often the rules and their place are compared with what was installed."""

MOST_MEMBERS = 1_000_000
"""So many entries a host is made for; the sets of the kernel would take more."""

ALARM_SHARE = 0.8
"""The share of it from which on there is an alarm."""

WAY_OUT = "grant networks instead of addresses, or protect some of the services on another host"
"""What to do about too many."""


class Lock:
    """Keeps a second writer out, with a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def take(self) -> None:
        """Raises DataplaneError if another process has it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataplaneError(f"lock {self._path}: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise DataplaneError(
                f"lock {self._path}: another agent is at work; stop it first, for example with "
                "`systemctl stop radius-bridge-agent` (one writer at a time)"
            ) from None

    def release(self) -> None:
        """Lets the next one in."""
        os.close(self._file)


class Leftover(Protocol):
    """Something of another backend's."""

    async def enforces(self) -> bool:
        """True if it is in the kernel, and packets meet it. Raises DataplaneError."""

    async def remove(self) -> None:
        """Removes it, if it is there. Raises DataplaneError."""


class Leftovers:
    """What other backends have left in the kernel: it goes when ours stands, so that there is no moment without."""

    def __init__(self, each: Iterable[Leftover] = ()) -> None:
        self._each = list(each)

    async def enforce(self) -> bool:
        """True if any of them still does. Raises DataplaneError."""
        return any([await each.enforces() for each in self._each])

    async def remove(self) -> None:
        """Removes them; what is gone is not looked for again. Raises DataplaneError."""
        while self._each:
            await self._each[0].remove()
            del self._each[0]


def check_names(desired: Desired) -> None:
    """Raises DataplaneError if a service is called like an override or a custom set: they would share sets."""
    taken = {ALLOW, DENY, *(each.name for each in desired.posture.sets)}
    for service in desired.services:
        if service.name in taken:
            raise DataplaneError(f"service {service.name!r} ({service.origin}): an override or a set has this name")


def limit_alarms(entries: int) -> list[str]:
    """Tells that a host has come near to what it is made for."""
    if entries < ALARM_SHARE * MOST_MEMBERS:
        return []
    return [f"{entries:,} members on this host, which is made for {MOST_MEMBERS:,}: {WAY_OUT}"]


_KILLED = 5.0
"""Seconds for a program that was killed to be gone; after that nobody waits for it."""

CHILDREN: deque[int] = deque(maxlen=256)
"""Programs that we ran, the last ones: the port of their netlink socket is mostly their process' number."""


async def call(argv: Sequence[str], text: str, timeout: float, package: str) -> str:
    """Runs a program with `text` as its input and gives its output.

    Raises DataplaneError if it is missing (it comes with `package`), fails, or takes longer than `timeout` seconds.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise DataplaneError(f"{argv[0]}: {error}; the agent needs the package {package}") from error
    CHILDREN.append(process.pid)
    try:
        async with asyncio.timeout(timeout):
            output, errors = await process.communicate(text.encode())
    except TimeoutError:
        raise DataplaneError(f"{argv[0]} did not end within {timeout:g} s") from None
    finally:
        if process.returncode is None:
            # All of it: what a wrapper has started would keep the pipes open, and us waiting. What has a session of its
            # own, or hangs in the kernel, does so all the same.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILLED):
                    await process.wait()
    if process.returncode:
        complaint = errors.decode(errors="replace").strip()
        raise DataplaneError(f"{argv[0]}: {complaint or f'exit code {process.returncode}'}")
    return output.decode(errors="replace")
