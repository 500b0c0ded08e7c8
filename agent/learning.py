"""What the agent learns of Consul, how it learnt it, and what that changes for this host."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Final

import structlog

from agent.desired import ALLOW, DENY, Desired, Failsafe, Posture
from agent.guard import Guard, Held, Kind
from agent.host import Host, Step
from agent.state import State
from radius_bridge.policy.expiry import earliest, parse_expiry
from radius_bridge.policy.members import Member, Prefix
from radius_bridge.policy.resolution import Links
from radius_bridge.policy.resolve import resolve
from radius_bridge.policy.services import Service
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.feed import Change
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.view import Changed

PATIENCE: Final = 0.25
"""Seconds that a change waits for what is read because of it: a group that replaces another comes in before that one
goes, and nobody is cut off in between."""

SLICE: Final = 500
"""Keys that are looked at in one go (some 10 ms): at start there are many, and others need their turn."""

AGAIN: Final = 2.0
"""Seconds over which hosts spread the second read of what they hold back."""

AGAIN_FAILED: Final = 15.0
"""Seconds before it is tried again after an error."""

log = structlog.get_logger()


class Learning:
    """Follows Consul for one host. What re-reads alone say goes through the guard (agent.guard)."""

    def __init__(
        self,
        consul: Consul,
        keys: Keys,
        scope: Scope,
        failsafe: tuple[Failsafe, ...],
        clock: Callable[[], float],
        baseline: State | None,
        posture: Posture = Posture(),  # noqa: B008 — it is immutable
    ) -> None:
        """`baseline` is what the host enforced when it was last at work: the first read is compared with it."""
        self.follower = Follower(
            consul,
            keys,
            keys.access_changes,
            changed=self._hear_changes,
            read=self._hear_a_read,
            news=self._hear_news,
            clock=clock,
        )
        self.host = Host(keys, scope, failsafe, self.follower.view, clock(), posture)
        self.guard = Guard(posture)
        self.heard = asyncio.Event()
        self.woken = 0.0
        """When it was set (epoch seconds)."""
        self._keys = keys
        self._posture = posture
        self._scopes = {Scope(), Scope(scope.dc), scope}
        self._clock = clock
        self._baseline = baseline
        self._changed: defaultdict[str, set[Prefix]] = defaultdict(set)
        self._unseen: dict[str, None] = {}
        """Keys to be looked at, each once: what was announced, and what is read because of that."""
        self._found: dict[str, None] = {}
        """The same of what re-reads found."""
        self._first: dict[str, bool] = {}
        """Prefixes that are read for the first time, and whether that is because of what a re-read found."""
        self._before: Links | None = None
        """What was known before the re-read that made somebody go who is kept; None after a restart."""
        self._doubt = asyncio.Event()
        self._agreeing: set[str] = set()
        """Digests whose second read is over, but not looked at yet."""

    def protect(self, services: Iterable[Service], problems: Iterable[str]) -> None:
        """As `Host.protect`."""
        self.host.protect(services, problems)
        self.wake()

    def wake(self) -> None:
        """There is something to be done."""
        if not self.heard.is_set():
            self.woken = self._clock()
            self.heard.set()

    def take_changed(self) -> dict[str, set[Prefix]]:
        """Members about whom something has changed since this was last called, by service and override."""
        changed, self._changed = self._changed, defaultdict(set)
        for name, members in self.guard.take().items():
            changed[name] |= members
        return changed

    def desired(self) -> Desired:
        """What the host must enforce now. Mostly its members are no copy: they go on changing."""
        wanted, now = self.host.desired(), self._clock()
        if self._baseline is not None and self.host.is_ready():
            self._compare_with_baseline(self._baseline, wanted, now)
            self._baseline = None
        self.guard.protect(wanted.members.keys())
        members = {name: self.guard.enforce(name, each, now) for name, each in wanted.members.items()}
        self._watch_held()
        return Desired(wanted.services, members, wanted.failsafe, wanted.posture)

    async def catch_up(self) -> None:
        """Takes in what was heard, and what had to be read because of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            await self._look(self._unseen)
            self.heard.clear()
            step = self.host.settle(self._clock())
            for name, members in step.changed.items():
                self.guard.announce(name, members)
            self._follow(step, is_doubted=False)
            covered = bool(step.cover)
            if self._found or self._agreeing:
                covered |= await self._take_in_what_was_found()
            self.guard.confirm(self._confirmed(), self._clock())
            if self._unseen:
                continue
            if not covered:
                return
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self.follower.wait_complete()
            except TimeoutError:
                return

    async def read_again(self) -> None:
        """Reads what is held back a second time, consistently, for ever."""
        while True:
            await self._doubt.wait()
            await asyncio.sleep(random.uniform(0, AGAIN))  # noqa: S311 — spreads load
            doubted = [held for held in self.guard.held if not held.agreed]
            prefixes = {prefix for held in doubted for prefix in self.host.prefixes(held.name)}
            if await self.follower.read_again(prefixes):
                self._doubt.clear()
                self._agreeing |= {held.digest for held in doubted}
                self.wake()
            else:
                await asyncio.sleep(AGAIN_FAILED)

    async def _take_in_what_was_found(self) -> bool:
        """Shows the guard what re-reads have found. True if more must be read because of it."""
        before = {name: dict(members) for name, members in self.host.desired().members.items()}
        if self._found and not self._kept():
            self._before = self.host.links()
        agreeing, self._agreeing = self._agreeing, set()
        await self._look(self._found)
        step = self.host.settle(self._clock())
        wanted = self.host.desired().members
        for name, members in step.changed.items():
            if name in before and name in wanted and self._baseline is None:
                self.guard.review(name, before[name], wanted[name], members, self._clock())
        self._follow(step, is_doubted=True)
        for digest in agreeing:
            self.guard.agree(digest)
        if not self._kept():
            self._before = None
        return bool(step.cover)

    async def _look(self, keys: dict[str, None]) -> None:
        while keys:
            for key in list(islice(keys, SLICE)):
                del keys[key]
                self.host.look(key)
            if keys:
                await asyncio.sleep(0)

    def _follow(self, step: Step, *, is_doubted: bool) -> None:
        for name, members in step.changed.items():
            self._changed[name].update(members)
        self.follower.uncover(step.uncover)
        for prefix in step.uncover:
            self._first.pop(prefix, None)
        self._first.update(dict.fromkeys(step.cover, is_doubted))
        self.follower.cover(step.cover)

    def _compare_with_baseline(self, baseline: State, wanted: Desired, now: float) -> None:
        """Shows the guard how the first read differs from what was enforced before."""
        known = {ALLOW, DENY, *(service.name for service in baseline.services), *baseline.members}
        for name, members in wanted.members.items():
            if name in known:
                before = baseline.live(name, now)
                self.guard.review(name, before, members, before.keys() | members.keys(), now)

    def _watch_held(self) -> None:
        """Has what is held read again, and asks for people's word if it is needed."""
        held = self.guard.held
        if any(not each.agreed for each in held):
            self._doubt.set()
        prefix = self._keys.confirmations
        is_covered = prefix in self.follower.view.covered
        if any(each.needs_word for each in held):
            if not is_covered:
                self._first[prefix] = False
                self.follower.cover([prefix])
        elif is_covered:
            self.follower.uncover([prefix])

    def _confirmed(self) -> Mapping[str, float]:
        prefix = self._keys.confirmations
        if prefix not in self.follower.view.covered:
            return {}
        found = {
            key.removeprefix(prefix): parse_expiry(value) for key, value in self.follower.view.below(prefix).items()
        }
        return {digest: end for digest, end in found.items() if end is not None}

    def _hear_changes(self, changed: list[Changed]) -> None:
        """Announced."""
        self._unseen.update(dict.fromkeys(change.key for change in changed if self._is_access(change.key)))
        self.wake()

    def _hear_a_read(self, changed: list[Changed]) -> None:
        groups = self._keys.groups
        for key in (change.key for change in changed if self._is_access(change.key)):
            prefix = key[: key.find("/", len(groups)) + 1] if key.startswith(groups) else key[: key.rfind("/") + 1]
            # A network's own slash: its grant is below a folder with one part less.
            is_doubted = self._first.get(prefix, self._first.get(prefix[: prefix.rfind("/", 0, -1) + 1], True))
            (self._found if is_doubted else self._unseen)[key] = None
        for prefix in [prefix for prefix in self._first if self.follower.view.is_complete(prefix)]:
            del self._first[prefix]
        self.wake()

    def _hear_news(self, changes: list[Change]) -> None:
        """Who is kept only because his going is held back is in no view: what is announced about him is done here."""
        if not self._kept():
            return
        for change in changes:
            if self._is_access(change.key):
                try:
                    self._change_link(change.key, None if change.value is None else parse_expiry(change.value))
                except ValueError:
                    continue  # names nobody
        self.wake()

    def _change_link(self, key: str, end: float | None) -> None:
        """A key was deleted (None) or got another end (epoch seconds or NEVER) on purpose.

        Raises ValueError if it names no member.
        """
        names = [held.name for held in self._kept()]
        before = self._before
        member: Member
        if key.startswith(self._keys.groups):
            group, member = self._keys.read_group_member(key)
            links = before.groups.get(group, {}) if before else {}
            if before is None or isinstance(member, Prefix):
                # Whether that was their path is not known. A service does not stay open for it, nor does a deny fall.
                names = [name for name in names if not self._posture.shuts_out(name)]
        else:
            grant = self._keys.read_grant(key)
            is_override = key.startswith(self._keys.sets)
            if grant.scope not in self._scopes or is_override != (grant.service in self.host.overrides):
                return
            names, member = [name for name in names if name == grant.service], grant.member
            links = before.grants.get(grant.service, {}) if before else {}
        if end is not None:
            if before is not None and member in links and earliest(end, links[member]) != links[member]:
                links[member] = end
                self._resolve_kept(names, before)
        elif before is None or isinstance(member, Prefix):
            self.guard.take_away(names, member if isinstance(member, Prefix) else None)
        elif links.pop(member, None) is not None:
            self._resolve_kept(names, before)

    def _resolve_kept(self, names: Collection[str], before: Links) -> None:
        """Nobody is kept in these services who would not have stayed, nor longer than that."""
        for held in [held for held in self._kept() if held.name in names]:
            left = resolve(before.grants.get(held.name, {}), before.groups, self._clock())
            self.guard.announce(held.name, [prefix for prefix in held.members if prefix not in left])
            self.guard.shorten(held.name, left)

    def _kept(self) -> list[Held]:
        return [held for held in self.guard.held if held.kind is Kind.REMOVAL]

    def _is_access(self, key: str) -> bool:
        return not key.startswith(self._keys.confirmations)
