"""The rules of one IP version in iptables: written when policy has changed, or somebody else has changed them."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

import structlog

from agent.dataplane.change import Run
from agent.dataplane.errors import DataplaneError
from agent.dataplane.iptables import Installed, Iptables, expected, read_save
from agent.dataplane.rules import empty, render
from agent.dataplane.template import RuleTemplate
from agent.desired import Desired, Failsafe, Posture
from radius_bridge.policy.services import Service

log = structlog.get_logger()

_Source = tuple[tuple[Service, ...], tuple[Failsafe, ...], Posture, frozenset[str]]
"""What rules are made of; the last are the overrides and custom sets without members, which have no rules."""

_HIDDEN = (
    "{0} cannot list the table filter, since somebody put rules there with nft that it does not know: what is changed "
    "by hand there is not seen; move those rules to another table (nft list ruleset), or use the backend nftables"
)


class Chains:
    """Our chains, and what was last written there. The caller sees to it that one is at work at a time."""

    def __init__(self, version: int, backend: str, template: RuleTemplate | None = None) -> None:
        """`version` is 4 or 6; `backend` is `nft` or `legacy`, or empty: the iptables that the host uses.

        `template` is a site's own template of rules.
        """
        self.version = version
        self._table = Iptables(version, backend)
        self._template = template
        self._template_refused = ""
        self._known: tuple[_Source, Installed] | None = None
        self._is_hidden = False  # iptables does not list the table
        self._counted: Counter[str] = Counter()  # refused before the rules were last written
        self._counts: Mapping[str, int] = {}  # refused since then

    async def program(self, run: Run, desired: Desired, *, is_due: bool) -> None:
        """Writes the rules if policy has changed, or somebody else changed them; `is_due` says to look for that.

        What fails is in `run.failures`.
        """
        source = _source(desired)
        known = self._known
        try:
            if known is not None and known[0] == source:
                if not is_due:
                    return
                found = await self.read()
                if not found.is_hidden:
                    self._counts = found.counts
                if found == known[1]:
                    return
                log.warning("the rules were changed by somebody else and are put back", ip_version=self.version)
            before = await self.read()
            self._known = None
            self._known = (source, await self._install(desired, source[-1], before))
            # Writing rules sets their counters to zero.
            self._counted.update(before.counts)
            self._counts = {}
            run.change.rules.append(self.version)
        except DataplaneError as error:
            run.failures.append(str(error))

    def distrust(self) -> None:
        """What is installed is not believed, unless it cannot be listed anyway."""
        if not self._is_hidden:
            self._known = None

    async def read(self) -> Installed:
        """What is installed; where iptables does not list it, what was written. Raises DataplaneError."""
        found = await self._table.read()
        self._is_hidden = found.is_hidden
        if not found.is_hidden or self._known is None:
            return found
        return replace(self._known[1], counts={}, is_hidden=True)

    def wanted(self, desired: Desired) -> Installed:
        """What should be installed: as iptables listed it when it was written, else as it usually does."""
        source = _source(desired)
        if self._known is not None and self._known[0] == source:
            return self._known[1]
        return read_save(expected(render(desired, self.version, None, source[-1])))

    async def is_in_place(self) -> bool:
        """True if packets meet our rules, whoever wrote them. Raises DataplaneError."""
        return (await self._table.read()).is_in_place

    async def count_refused(self) -> None:
        """Counts who was refused until now. Raises DataplaneError."""
        self._counts = (await self._table.read()).counts

    @property
    def refused(self) -> Counter[str]:
        """Attempts to connect that were refused, as last counted."""
        return self._counted + Counter(self._counts)

    @property
    def is_heard_of(self) -> bool:
        """True unless the rules were written where the kernel tells nobody of changes."""
        return self._known is None or self._known[1].in_nftables

    def alarms(self) -> list[str]:
        """What somebody must look after."""
        hidden = _HIDDEN.format("iptables" if self.version == 4 else "ip6tables") if self._is_hidden else ""
        return [each for each in (self._template_refused, hidden) if each]

    async def uninstall(self) -> None:
        """Removes our jumps and chains. Raises DataplaneError."""
        self._known = None
        await self._table.uninstall()

    async def _install(self, desired: Desired, unused: Collection[str], before: Installed) -> Installed:
        """Writes the rules by the site's template if iptables takes them, else by the built-in one."""
        self._template_refused = refusal = ""
        if self._template is not None:
            try:
                rules = render(desired, self.version, self._template, unused)
                return await self._table.install(rules, before, is_sites=True)
            except DataplaneError as error:
                refusal = f"template {self._template.origin} is refused, the built-in one is used: {error}"
        installed = await self._table.install(render(desired, self.version, None, unused), before)
        if refusal:
            log.error(refusal)
            self._template_refused = refusal
        return installed


def _source(desired: Desired) -> _Source:
    return desired.services, desired.failsafe, desired.posture, empty(desired)
