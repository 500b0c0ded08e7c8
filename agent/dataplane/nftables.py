"""The dataplane: makes the kernel enforce a Desired with nftables, in a table of our own.

It remembers what it programmed and sends the difference. Sets are filled before a rule mentions them, and rules go
before their sets do. The rules are changed in one transaction, so is the content of a service's sets.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

import structlog

from agent.dataplane.base import CHECK_SECONDS, CHILDREN, Leftovers, Lock, check_names, limit_alarms
from agent.dataplane.change import Change
from agent.dataplane.compare import Difference, Listing, differences, wanted_members
from agent.dataplane.errors import DataplaneError
from agent.dataplane.events import RULES, Touched
from agent.dataplane.kinds import is_ours, kind_of_set
from agent.dataplane.nft import Installed, Nft, install_text, read_listing, sets_text
from agent.dataplane.nft_contents import FORMS, LONGEST, OVERRIDDEN_FORM, NftContents
from agent.dataplane.nft_netlink import ElementSocket, WhileMany
from agent.dataplane.nft_rules import OVERRIDDEN, OVERRIDDEN_ALL, TABLE, counted, declarations, is_overridden, render
from agent.dataplane.plan import Wanted
from agent.dataplane.template import RuleTemplate
from agent.desired import Desired, Failsafe, Posture
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Service

__all__ = ["NftablesDataplane"]

log = structlog.get_logger()

_Source = tuple[tuple[Service, ...], tuple[Failsafe, ...], Posture]
"""What rules are made of."""

_INET = 1

_LOOKED_UP = {(version, version) for version in OVERRIDDEN_ALL}
_OVERRIDES_LOOKED_UP = f"set {OVERRIDDEN}: all"
"""Stands among the rules of a listing: it is a member that is as good as a rule."""


class NftablesDataplane:
    """One writer for the network namespace of this process: hold it with `with`.

    `lock` is a file that keeps a second writer out. `template` is a site's own template of rules.
    """

    name = "nftables"

    def __init__(self, lock: Path, template: RuleTemplate | None = None, leftovers: Leftovers | None = None) -> None:
        self._lock = Lock(lock)
        self._leftovers = leftovers or Leftovers()
        self._template = template
        self._template_refused = ""
        self._nft = Nft()
        self._busy = asyncio.Lock()
        self._elements: ElementSocket | None = None
        self._contents: NftContents | None = None
        self._sets: set[str] | None = None  # our sets in the kernel; None: not known
        self._rules: tuple[_Source, Installed] | None = None
        self._checked = 0.0
        self._counts: Mapping[str, int] = {}

    def __enter__(self) -> Self:
        """Takes the lock. Raises DataplaneError if another process has it, or without CAP_NET_ADMIN."""
        self._lock.take()
        try:
            self._elements = ElementSocket(TABLE)
        except DataplaneError:
            self._lock.release()
            raise
        self._contents = NftContents(self._elements)
        return self

    def __exit__(self, *_: object) -> None:
        if self._elements is not None:
            self._elements.close()
            self._elements = self._contents = None
        self._lock.release()

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Prefix]] | None = None
    ) -> Change:
        """Makes the kernel enforce `desired`: see `Dataplane.apply`."""
        check_names(desired)
        contents = self._open_contents()
        # What we wait for is time that passes, too.
        began, change = time.monotonic(), Change()
        async with self._busy:
            sets, self._sets = self._sets, None
            wanted = {name: Wanted(desired.of(name)) for name in desired.names}
            declared = declarations(wanted)

            def at() -> float:
                return now + time.monotonic() - began

            failures: list[str] = []
            if members_first := sets is not None and declared.keys() <= sets:
                # Who comes and who goes does not wait for a nft that hangs.
                failures += await contents.program(change, wanted, changed, at, is_overridden=is_overridden(desired))
            try:
                sets, anew, found = await self._see_to_sets(sets, declared, desired, now)
            except DataplaneError as error:
                # What was known of the sets still is, if their members could be written.
                self._sets = sets if members_first and not failures else None
                raise DataplaneError("; ".join([*failures, str(error)])) from error
            if anew or not members_first:
                # Whoever came or went: sets that were made just now are empty.
                which = None if anew else changed
                failures += await contents.program(change, wanted, which, at, is_overridden=is_overridden(desired))
            known = None if failures else sets
            try:
                await self._program_rules(change, desired, now, found)
            except DataplaneError as error:
                failures.append(str(error))
            if failures:
                self._sets = known
                self._checked = 0.0  # due at once, whether or not the rules could be written
                raise DataplaneError("; ".join(failures))
            if changed is None:
                unused = sets - declared.keys()
                await self._nft.delete_sets(unused)
                sets -= unused
            await self._leftovers.remove()
            self._sets = sets
            change.seconds = time.monotonic() - began
            return change

    async def _see_to_sets(
        self, sets: set[str] | None, declared: Mapping[str, str], desired: Desired, now: float
    ) -> tuple[set[str], bool, Installed | None]:
        """Makes the sets that are missing, and anew those that somebody else has replaced, if it is time to look.

        Gives all that there are, whether some are new and empty, and our table as it was read, if it was and is still
        like that. Raises DataplaneError.
        """
        wrong: Mapping[str, str] = {}
        found: Installed | None = None
        if sets is None or self._check_due(now):
            found = await self._nft.read()
            sets = set(found.names("set"))
            wrong = found.wrong_sets(declared)
        # What is missing first: the rules with which the wrong ones are replaced mention all of them.
        if missing := {name: each for name, each in declared.items() if name not in sets}:
            self._open_contents().forget(missing)
            await self._nft.run(sets_text(missing))
            self._open_contents().made(missing, desired.names)
            sets.update(missing)
        if wrong and found is not None:
            log.warning("sets were replaced by somebody else and are made anew", sets=sorted(wrong))
            self._open_contents().forget(wrong)
            await self._nft.run(install_text(render(desired), found, wrong))
            found = None
        return sets, bool(wrong or missing), found

    def next_refresh(self, now: float) -> float:
        """When apply is due again to see that the rules are still in place (epoch seconds, `now` at the earliest)."""
        return max(now, self._checked + CHECK_SECONDS)

    def alarms(self) -> Sequence[str]:
        """See `Dataplane.alarms`."""
        return [*limit_alarms(self.entries()), *filter(None, [self._template_refused])]

    def entries(self) -> int:
        """See `Dataplane.entries`."""
        return self._open_contents().entries()

    @property
    def refused(self) -> Mapping[str, int]:
        """See `Dataplane.refused`; it counts since the rules were first written."""
        return self._counts

    async def count_refused(self) -> Mapping[str, int]:
        """See `Dataplane.count_refused`."""
        self._count(await self._nft.read())
        return self._counts

    async def is_in_place(self) -> bool:
        """See `Dataplane.is_in_place`."""
        return (await self._nft.read()).is_in_place or await self._leftovers.enforce()

    async def summary(self) -> Mapping[str, int]:
        """Our sets in the kernel, each with the number of its entries (networks: of ranges). Raises DataplaneError."""
        return {name: len(members) for name, members in (await self.listing()).members.items()}

    async def listing(self) -> Listing:
        """See `Dataplane.listing`."""
        async with self._busy:
            return await self._listing(None)

    async def _listing(self, only: Collection[str] | None) -> Listing:
        elements, installed = self._open_elements(), await self._nft.read()
        sets = installed.names("set")
        rules = installed.lines()
        if OVERRIDDEN in sets and {*await elements.dump(OVERRIDDEN, OVERRIDDEN_FORM)} >= _LOOKED_UP:
            rules = (*rules, _OVERRIDES_LOOKED_UP)
        names = [name for name in sets if is_ours(name) and (only is None or name in only)]
        return Listing(rules, {name: await elements.dump(name, FORMS[kind_of_set(name)]) for name in names})

    async def counts(self) -> Mapping[str, int] | None:
        """See `Dataplane.counts`."""
        return None

    def hear_nothing(self, while_many: WhileMany) -> None:
        """See `Dataplane.hear_nothing`."""
        self._open_elements().while_many = while_many

    def is_mine(self, port: int) -> bool:
        """See `Dataplane.is_mine`."""
        return port in CHILDREN or (self._elements is not None and port == self._elements.port)

    def concerned(self, touched: Touched) -> str | None:
        """See `Dataplane.concerned`."""
        if (touched.family, touched.table) != (_INET, TABLE):
            return None
        return touched.set_name if touched.set_name and touched.set_name != OVERRIDDEN else RULES

    @property
    def hears_of_rules(self) -> bool:
        """See `Dataplane.hears_of_rules`."""
        return True

    async def compare(self, desired: Desired, now: float, only: Collection[str] | None = None) -> Sequence[Difference]:
        """See `Dataplane.compare`: rules as nft listed them when they were written, else as it usually lists them."""
        async with self._busy:
            source = (desired.services, desired.failsafe, desired.posture)
            if self._rules is not None and self._rules[0] == source:
                rules = self._rules[1].lines()
            else:
                rules = read_listing("\n".join(render(desired))).lines()
            wanted = wanted_members(desired, (4, 6), now, cut=True, only=only)
            found = await self._listing(only)
            # Who looks for what is not there only loses time.
            if is_overridden(desired) or _OVERRIDES_LOOKED_UP in found.rules:
                rules = (*rules, _OVERRIDES_LOOKED_UP)
            return differences(rules, wanted, found, now, LONGEST)

    def distrust(self, sets: Collection[str]) -> None:
        """See `Dataplane.distrust`."""
        self._open_contents().forget({OVERRIDDEN, *sets})
        self._rules = self._sets = None

    async def uninstall(self) -> None:
        """Removes our table, and nothing else. Raises DataplaneError."""
        async with self._busy:
            self._open_contents().forget()
            self._rules = self._sets = None
            await self._nft.uninstall()

    def _open_contents(self) -> NftContents:
        if self._contents is None:
            raise DataplaneError("the dataplane is not open: use it in a `with` block")
        return self._contents

    def _open_elements(self) -> ElementSocket:
        if self._elements is None:
            raise DataplaneError("the dataplane is not open: use it in a `with` block")
        return self._elements

    async def _program_rules(self, change: Change, desired: Desired, now: float, found: Installed | None) -> None:
        """Writes the rules if policy or somebody else changed them. `found` is what is there, if that was just read.

        Raises DataplaneError.
        """
        source = (desired.services, desired.failsafe, desired.posture)
        known = self._rules
        if known is not None and known[0] == source and not self._check_due(now):
            return
        before = found or await self._nft.read()
        is_changed = known is not None and before.lines() != known[1].lines()
        if is_changed:
            log.warning("the rules were changed by somebody else and are put back")
        if is_changed or known is None or known[0] != source:
            self._rules = None
            await self._install(desired, before)
            self._rules = (source, await self._nft.read())
            change.rules = [4, 6]
        self._count(before)
        self._checked = now

    def _count(self, installed: Installed) -> None:
        self._counts = {counted(name): packets for name, packets in installed.counts.items()}

    async def _install(self, desired: Desired, before: Installed) -> None:
        """Writes the rules by the site's template if nft takes them, else by the built-in one."""
        self._template_refused = refusal = ""
        if self._template is not None:
            try:
                await self._nft.run(install_text(render(desired, self._template), before))
            except DataplaneError as error:
                refusal = f"template {self._template.origin} is refused, the built-in one is used: {error}"
            else:
                return
        await self._nft.run(install_text(render(desired), before))
        if refusal:
            log.error(refusal)
            self._template_refused = refusal

    def _check_due(self, now: float) -> bool:
        return abs(now - self._checked) >= CHECK_SECONDS
