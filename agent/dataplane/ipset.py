"""The dataplane: makes the kernel enforce a Desired with ipset and iptables.

It remembers what it programmed and sends the difference. Sets are filled before a rule mentions them, and rules go
before their sets do.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import structlog

from agent.dataplane.change import Change, Run
from agent.dataplane.contents import Contents
from agent.dataplane.errors import DataplaneError
from agent.dataplane.iptables import Installed, Iptables
from agent.dataplane.netlink import MemberSocket
from agent.dataplane.plan import KINDS, Wanted, set_name
from agent.dataplane.rules import render
from agent.dataplane.sets import open_sets
from agent.desired import ALLOW, DENY, Desired, Failsafe
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Service

__all__ = ["Change", "DataplaneError", "IpsetDataplane"]

log = structlog.get_logger()

CHECK_SECONDS = 30.0
"""How often the rules and their place are compared with what was installed."""

_Source = tuple[tuple[Service, ...], tuple[Failsafe, ...]]
"""What rules are made of."""


class IpsetDataplane:
    """One writer for the network namespace of this process: hold it with `with`.

    `lock` is a file that keeps a second writer out. `backend` is `nft` or `legacy`; if empty, the iptables
    that the host uses.
    """

    def __init__(self, lock: Path, backend: str = "") -> None:
        self._lock_path = lock
        self._lock = -1
        self._busy = asyncio.Lock()
        self._members: MemberSocket | None = None
        self._contents: Contents | None = None
        self._tables = [Iptables(4, backend)]
        if Path("/proc/sys/net/ipv6").exists():
            self._tables.append(Iptables(6, backend))
        else:
            log.warning("this kernel has no IPv6: only IPv4 is enforced, there is nothing else to enforce")
        self._versions = [table.version for table in self._tables]
        self._kinds = [kind for kind in KINDS if kind.version in self._versions]
        self._existing: set[str] | None = None  # our sets in the kernel; None: not known
        self._rules: dict[int, tuple[_Source, Installed]] = {}
        self._checked = 0.0

    def __enter__(self) -> Self:
        """Takes the lock. Raises DataplaneError if another process has it, or without CAP_NET_ADMIN."""
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataplaneError(f"lock {self._lock_path}: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._members = MemberSocket()
        except BlockingIOError:
            os.close(self._lock)
            raise DataplaneError(
                f"lock {self._lock_path}: another agent is at work; stop it first (one writer at a time)"
            ) from None
        except DataplaneError:
            os.close(self._lock)
            raise
        self._contents = Contents(self._members, self._kinds)
        return self

    def __exit__(self, *_: object) -> None:
        if self._members is not None:
            self._members.close()
            self._members = self._contents = None
        os.close(self._lock)

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Prefix]] | None = None
    ) -> Change:
        """Makes the kernel enforce `desired` at `now` (epoch seconds). Repeating it changes nothing.

        Without `changed` everything is compared with what was programmed. With it, nothing but these members (by
        service and override) can differ from the `desired` of the last apply, which did not fail and had the same
        services: that costs the same for a set of ten and of a million.

        Raises DataplaneError naming all that failed; the rest was done, and what failed is built anew by the
        next apply, which must compare everything.
        """
        for service in desired.services:
            if service.name in (ALLOW, DENY):
                raise DataplaneError(f"service {service.name!r} ({service.origin}): an override has this name")
        contents = self._open_contents()
        async with self._busy, AsyncExitStack() as stack:
            existing, self._existing = self._existing, None
            if existing is None:
                run = Run(now, set(), stack)
                run.existing.update(await (await run.sets()).entries())
            else:
                run = Run(now, existing, stack)
            names = dict.fromkeys((ALLOW, DENY, *(service.name for service in desired.services)))
            wanted = {name: Wanted(desired.members[name], self._versions) for name in names}
            await contents.program(run, wanted, changed)
            await asyncio.gather(*(self._program_rules(run, table, desired) for table in self._tables))
            if run.failures:
                raise DataplaneError("; ".join(run.failures))
            if self._check_due(now):
                self._checked = now
            if changed is None:
                await self._destroy_unused(run, names)
            self._existing = run.existing
            run.change.seconds = time.monotonic() - run.began
            return run.change

    def next_refresh(self, now: float) -> float:
        """When apply is due again although policy stays the same (epoch seconds, `now` at the earliest).

        It renews what the kernel's timeouts cannot hold, and sees that the rules are still in place.
        """
        return max(now, min(self._checked + CHECK_SECONDS, self._open_contents().next_renewal()))

    async def is_in_place(self) -> bool:
        """True if rules of ours are in the kernel where they belong, whoever wrote them. Raises DataplaneError."""
        return all([(await table.read()).at_head for table in self._tables])

    async def summary(self) -> dict[str, int]:
        """Our sets in the kernel, each with the number of its entries. Raises DataplaneError."""
        async with open_sets() as sets:
            return await sets.entries()

    async def uninstall(self) -> None:
        """Removes our jumps, chains and sets, and nothing else. Raises DataplaneError."""
        async with self._busy, open_sets() as sets:
            self._open_contents().forget()
            self._rules.clear()
            self._existing = None
            for table in self._tables:
                await table.uninstall()
            for name in await sets.entries():
                await sets.destroy(name)

    def _open_contents(self) -> Contents:
        if self._contents is None:
            raise DataplaneError("the dataplane is not open: use it in a `with` block")
        return self._contents

    async def _program_rules(self, run: Run, table: Iptables, desired: Desired) -> None:
        """Writes the rules of one IP version if policy or somebody else changed them."""
        source = (desired.services, desired.failsafe)
        known = self._rules.get(table.version)
        try:
            if known is not None and known[0] == source:
                if not self._check_due(run.now()) or await table.read() == known[1]:
                    return
                log.warning("the rules were changed by somebody else and are put back", ip_version=table.version)
            self._rules.pop(table.version, None)
            self._rules[table.version] = (source, await table.install(render(desired, table.version)))
            run.change.rules.append(table.version)
        except DataplaneError as error:
            run.failures.append(str(error))

    async def _destroy_unused(self, run: Run, names: Iterable[str]) -> None:
        """Destroys sets that no rule mentions any more, and what an interrupted build left behind."""
        used = {set_name(kind, name) for name in names for kind in self._kinds}
        for name in sorted(run.existing - used):
            sets = await run.sets()
            await sets.destroy(name)
            run.existing.remove(name)

    def _check_due(self, now: float) -> bool:
        return abs(now - self._checked) >= CHECK_SECONDS
