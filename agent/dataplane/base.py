"""The one interface of a dataplane, and what its backends share."""

import asyncio
import fcntl
import os
import signal
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol, Self

from agent.dataplane.change import Change
from agent.dataplane.compare import Difference, Listing
from agent.dataplane.errors import DataplaneError
from agent.dataplane.events import Touched
from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.members import Prefix

CHECK_SECONDS = 30.0
"""How often the rules and their place are compared with what was installed."""

MOST_MEMBERS = 1_000_000
"""So many entries a host is made for; the sets of the kernel would take more."""

ALARM_SHARE = 0.8
"""The share of it from which on there is an alarm."""

WAY_OUT = "grant networks instead of addresses, or protect some of the services on another host"
"""What to do about too many."""


class Dataplane(Protocol):
    """What programs the kernel of this network namespace: one writer at a time, held with `with`."""

    @property
    def name(self) -> str:
        """The backend: `ipset` or `nftables`."""

    def __enter__(self) -> Self:
        """Takes the lock. Raises DataplaneError if another process has it, or without CAP_NET_ADMIN."""

    def __exit__(self, *_: object) -> None:
        """Lets go of it; what was programmed stays."""

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Prefix]] | None = None
    ) -> Change:
        """Makes the kernel enforce `desired` at `now` (epoch seconds). Repeating it changes nothing.

        Without `changed` everything is compared with what was programmed. With it, nothing but these members (by
        service, override and custom set) can differ from the `desired` of the last apply, which did not fail and had
        the same services: that costs the same for a set of ten and of a million.

        Raises DataplaneError naming all that failed; the rest was done, and what failed is built anew by the
        next apply, which must compare everything.
        """

    def next_refresh(self, now: float) -> float:
        """When apply is due again although policy stays the same (epoch seconds, `now` at the earliest)."""

    def alarms(self) -> Sequence[str]:
        """What somebody must look after: a limit that is near, a site's template that the kernel refuses."""

    def entries(self) -> int:
        """Members that are programmed, in all sets: MOST_MEMBERS is what a host is made for."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Attempts to connect that were refused (in observe mode: would have been), as last counted.

        By `refused:<short name of the service>`, `denied` and `closed`, since the agent or the rules began. They are
        counted whenever the rules are looked at.
        """

    async def count_refused(self) -> Mapping[str, int]:
        """Counts them now. Raises DataplaneError."""

    async def is_in_place(self) -> bool:
        """True if rules of ours are in the kernel where they belong, whoever wrote them, with whatever backend.

        Chains that were emptied are not. Raises DataplaneError.
        """

    async def summary(self) -> Mapping[str, int]:
        """Our sets in the kernel, each with the number of its entries. Raises DataplaneError."""

    async def listing(self) -> Listing:
        """What the kernel has of ours, in a canonical form. Raises DataplaneError."""

    async def compare(self, desired: Desired, now: float, only: Collection[str] | None = None) -> Sequence[Difference]:
        """Where the kernel is not as desired; nothing, if it is. Raises DataplaneError.

        `only` says what to look at: sets (the kernel's names), and RULES for the rules; None: everything.
        """

    async def counts(self) -> Mapping[str, int] | None:
        """As `summary`, but cheap; None if the kernel cannot count, but tells who changes members.

        Raises DataplaneError.
        """

    def hear_nothing(self, while_many: Callable[[], AbstractContextManager[None]]) -> None:
        """`while_many` is entered whenever many members are written of which the kernel would tell one by one."""

    def is_mine(self, port: int) -> bool:
        """True for the netlink ports of this dataplane, and of the programs that it ran lately."""

    def concerned(self, touched: Touched) -> str | None:
        """What of ours may be another one after somebody touched this: RULES, a set, or nothing."""

    @property
    def hears_of_rules(self) -> bool:
        """True if the kernel tells of every change of the rules; else they must be looked at."""

    def distrust(self, sets: Collection[str]) -> None:
        """What is in these sets (the kernel's names) and in our chains is not believed: apply programs it anew.

        That apply must compare everything.
        """

    async def uninstall(self) -> None:
        """Removes all that is ours, and nothing else. Raises DataplaneError."""


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
