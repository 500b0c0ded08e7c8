"""The dataplane: makes the kernel enforce a Desired with ipset and iptables.

It remembers what it programmed and sends the difference. Sets are filled before a rule mentions them, and rules go
before their sets do.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import Self

import structlog

from agent.dataplane.base import CHECK_SECONDS, CHILDREN, Leftovers, Lock, check_names, limit_alarms
from agent.dataplane.chains import Chains
from agent.dataplane.change import Change, Run
from agent.dataplane.compare import Difference, Listing, differences, wanted_members
from agent.dataplane.contents import Contents
from agent.dataplane.errors import DataplaneError
from agent.dataplane.events import RULES, Touched
from agent.dataplane.kinds import KINDS, kind_of_set, set_name
from agent.dataplane.looks import Looks
from agent.dataplane.netlink import MemberSocket
from agent.dataplane.plan import LONGEST_TIMEOUT, Wanted
from agent.dataplane.rules import JUMPS, is_chain_of_ours
from agent.dataplane.sets import open_sets
from agent.dataplane.template import RuleTemplate
from agent.desired import Desired
from radius_bridge.policy.members import Prefix

__all__ = ["CHECK_SECONDS", "Change", "DataplaneError", "IpsetDataplane"]

log = structlog.get_logger()

_IN_THE_WAY = (
    "the set {0} is not needed any more and cannot go ({1}): a rule that is not ours mentions it; it is not kept up to "
    "date: end that rule"
)

_TABLES = ((2, "filter"), (10, "filter"))
"""Where iptables-nft keeps our rules: family and table in nftables."""


class IpsetDataplane:
    """One writer for the network namespace of this process: hold it with `with`.

    `lock` is a file that keeps a second writer out. `backend` is `nft` or `legacy`; if empty, the iptables
    that the host uses. `template` is a site's own template of rules.
    """

    name = "ipset"

    def __init__(
        self, lock: Path, backend: str = "", template: RuleTemplate | None = None, leftovers: Leftovers | None = None
    ) -> None:
        self._lock = Lock(lock)
        self._leftovers = leftovers or Leftovers()
        self._busy = asyncio.Lock()
        self._members: MemberSocket | None = None
        self._contents: Contents | None = None
        self._looks: Looks | None = None
        self._chains = [Chains(4, backend, template)]
        if Path("/proc/sys/net/ipv6").exists():
            self._chains.append(Chains(6, backend, template))
        else:
            log.warning("this kernel has no IPv6: only IPv4 is enforced, there is nothing else to enforce")
        self._versions = [chains.version for chains in self._chains]
        self._existing: set[str] | None = None  # our sets in the kernel; None: not known
        self._checked = 0.0
        self._in_the_way: dict[str, str] = {}  # sets that cannot go → what to tell of them

    def __enter__(self) -> Self:
        """Takes the lock. Raises DataplaneError if another process has it, or without CAP_NET_ADMIN."""
        self._lock.take()
        try:
            self._members = MemberSocket()
        except DataplaneError:
            self._lock.release()
            raise
        self._contents = Contents(self._members)
        self._looks = Looks(self._versions, self._members.read)
        return self

    def __exit__(self, *_: object) -> None:
        if self._members is not None:
            self._members.close()
            self._members = self._contents = self._looks = None
        self._lock.release()

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Prefix]] | None = None
    ) -> Change:
        """Makes the kernel enforce `desired`: see `Dataplane.apply`."""
        check_names(desired)
        contents = self._open_contents()
        began = time.monotonic()  # what we wait for is time that passes, too
        async with self._busy, AsyncExitStack() as stack:
            wanted = {
                name: Wanted(desired.of(name), self._versions, shuts_out=desired.posture.shuts_out(name))
                for name in desired.names
            }
            existing, self._existing = self._existing, None
            if existing is None:
                run = Run(now, began, set(), stack)
                sets = await run.sets()
                for name in await sets.of_another_type():
                    try:  # before rules mention it: then it could not go
                        await sets.destroy(name)
                    except DataplaneError as error:
                        run.failures.append(str(error))
                run.existing.update(await sets.entries())
                contents.forget_missing(run.existing, wanted)
            else:
                run = Run(now, began, existing, stack)
            await contents.program(run, wanted, changed)
            is_due = self._check_due(run.now())
            await asyncio.gather(*(chains.program(run, desired, is_due=is_due) for chains in self._chains))
            if run.failures:
                raise DataplaneError("; ".join(run.failures))
            if self._check_due(now):
                self._checked = now
            # First of all rules: those of another iptables mention our sets, too.
            await self._leftovers.remove()
            if changed is None:
                await self._destroy_unused(run, wanted)
            self._existing = run.existing
            run.change.seconds = time.monotonic() - run.began
            return run.change

    def next_refresh(self, now: float) -> float:
        """When apply is due again although policy stays the same (epoch seconds, `now` at the earliest).

        It renews what the kernel's timeouts cannot hold, and sees that the rules are still in place.
        """
        return max(now, min(self._checked + CHECK_SECONDS, self._open_contents().next_renewal()))

    def alarms(self) -> Sequence[str]:
        """See `Dataplane.alarms`."""
        of_rules = [alarm for chains in self._chains for alarm in chains.alarms()]
        return [*limit_alarms(self.entries()), *of_rules, *self._in_the_way.values()]

    def entries(self) -> int:
        """See `Dataplane.entries`."""
        return self._open_contents().entries()

    @property
    def refused(self) -> Mapping[str, int]:
        """See `Dataplane.refused`; it counts since this agent's start."""
        return sum((chains.refused for chains in self._chains), Counter())

    async def count_refused(self) -> Mapping[str, int]:
        """See `Dataplane.count_refused`."""
        async with self._busy:
            for chains in self._chains:
                await chains.count_refused()
            return self.refused

    async def is_in_place(self) -> bool:
        """See `Dataplane.is_in_place`."""
        return all([await chains.is_in_place() for chains in self._chains]) or await self._leftovers.enforce()

    async def summary(self) -> dict[str, int]:
        """Our sets in the kernel, each with the number of its entries. Raises DataplaneError."""
        return self._open_members().counts()

    async def listing(self) -> Listing:
        """See `Dataplane.listing`."""
        async with self._busy:
            return await self._listing(None)

    async def _listing(self, only: Collection[str] | None) -> Listing:
        members = self._open_members()
        rules: list[str] = []
        if only is None or RULES in only:
            rules = [line for chains in self._chains for line in (await chains.read()).lines(chains.version)]
            only = None if only is None else set(only) - {RULES}
        names = sorted(set(await self.summary()) - self._in_the_way.keys()) if only is None or only else []
        found = {name: await members.dump(name, kind_of_set(name)) for name in names if only is None or name in only}
        return Listing(tuple(rules), found)

    async def counts(self) -> Mapping[str, int] | None:
        """See `Dataplane.counts`."""
        async with self._busy:
            found = await self.summary()
            return {name: count for name, count in found.items() if name not in self._in_the_way}

    def hear_nothing(self, while_many: Callable[[], AbstractContextManager[None]]) -> None:
        """See `Dataplane.hear_nothing`: nobody tells of members of ipset anyway."""

    def is_mine(self, port: int) -> bool:
        """See `Dataplane.is_mine`."""
        return port in CHILDREN

    def concerned(self, touched: Touched) -> str | None:
        """See `Dataplane.concerned`."""
        if (touched.family, touched.table) not in _TABLES or touched.set_name:
            return None
        return RULES if not touched.chain or is_chain_of_ours(touched.chain) or touched.chain in JUMPS else None

    @property
    def hears_of_rules(self) -> bool:
        """See `Dataplane.hears_of_rules`: iptables-nft is heard of, iptables-legacy is not."""
        return all(chains.is_heard_of for chains in self._chains)

    async def compare(self, desired: Desired, now: float, only: Collection[str] | None = None) -> Sequence[Difference]:
        """See `Dataplane.compare`: rules as iptables listed them when they were written, else as it usually does."""
        async with self._busy:
            rules: list[str] = []
            for chains in self._chains if only is None or RULES in only else ():
                rules += chains.wanted(desired).lines(chains.version)
            if only is not None and self._looks is not None and set(only) != {RULES}:
                only = set(only) - await self._looks.right(desired, await self.summary(), only, now)
            members = wanted_members(desired, self._versions, now, cut=False, only=only)
            permanent = [
                set_name(kind, name) for name in filter(desired.posture.shuts_out, desired.names) for kind in KINDS
            ]
            return differences(tuple(rules), members, await self._listing(only), now, LONGEST_TIMEOUT, permanent)

    def distrust(self, sets: Collection[str]) -> None:
        """See `Dataplane.distrust`."""
        self._open_contents().forget(sets)
        for chains in self._chains:
            chains.distrust()
        self._existing = None

    async def uninstall(self) -> None:
        """Removes our jumps, chains and sets, and nothing else. Raises DataplaneError."""
        async with self._busy, open_sets() as sets:
            self._open_contents().forget()
            self._existing = None
            for chains in self._chains:
                await chains.uninstall()
            for name in await sets.entries():
                await sets.destroy(name)

    def _open_members(self) -> MemberSocket:
        if self._members is None:
            raise DataplaneError("the dataplane is not open: use it in a `with` block")
        return self._members

    def _open_contents(self) -> Contents:
        if self._contents is None:
            raise DataplaneError("the dataplane is not open: use it in a `with` block")
        return self._contents

    async def _destroy_unused(self, run: Run, wanted: Mapping[str, Wanted]) -> None:
        """Destroys sets that no rule of ours mentions any more, and what an interrupted build left behind."""
        used = {set_name(kind, name) for name, each in wanted.items() for kind in each.kinds}
        self._in_the_way = {}
        for name in sorted(run.existing - used):
            sets = await run.sets()
            try:
                await sets.destroy(name)
            except DataplaneError as error:
                # No rule of ours mentions it: what is enforced is right, and goes on.
                log.warning("a set that is not needed any more cannot go", error=str(error))
                self._in_the_way[name] = _IN_THE_WAY.format(name, error)
            else:
                run.existing.remove(name)

    def _check_due(self, now: float) -> bool:
        return abs(now - self._checked) >= CHECK_SECONDS
