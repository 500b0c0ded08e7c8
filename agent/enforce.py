"""The agent at work: follow Consul, keep up to date who gets in, program the kernel. Errors change nothing."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import structlog

from agent.dataplane.change import Change
from agent.dataplane.errors import DataplaneError
from agent.desired import ALLOW, DENY, Desired
from agent.host import Host
from agent.services import Protected, find_in_consul, find_in_files
from agent.settings import AgentSettings
from radius_bridge.policy.members import Prefix
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.view import Changed

log = structlog.get_logger()

SERVICES_EVERY: Final = 5.0
"""Seconds between looks at the services of this host."""

RETRY_AT_MOST: Final = 30.0
"""Longest wait (seconds) before a failed change of the kernel is tried again."""

PATIENCE: Final = 0.25
"""Seconds that a change waits for what is read because of it: a group that replaces another comes in before that one
goes, and nobody is cut off in between."""

SILENCE: Final = 45.0
"""Seconds without an answer of Consul from which on something is wrong: its long polls end after some 32 at most."""

SLICE: Final = 500
"""Keys that are looked at in one go (some 10 ms): at start there are many, and others need their turn."""

_PROBLEMS: Final = 100
"""Problems that the status names; more are counted."""


class Dataplane(Protocol):
    """What programs the kernel: as much of agent.dataplane.base.Dataplane as is needed here."""

    @property
    def name(self) -> str:
        """The backend."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Attempts to connect that were refused, by service."""

    def alarms(self) -> Sequence[str]:
        """What somebody must look after."""

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Prefix]] | None = None
    ) -> Change:
        """Makes the kernel enforce `desired`. Raises DataplaneError."""

    def next_refresh(self, now: float) -> float:
        """When that is due again though nothing changes (epoch seconds)."""


class Enforcer:
    """Keeps the kernel as Consul wants it.

    `ready` is called when the kernel is programmed for the first time; setting `look_again` looks at the host's
    services at once.
    """

    def __init__(
        self,
        settings: AgentSettings,
        scope: Scope,
        consul: Consul,
        dataplane: Dataplane,
        ready: Callable[[], None],
        look_again: asyncio.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`scope` is this host's datacenter and node."""
        self._settings = settings
        self._consul = consul
        self._dataplane = dataplane
        self._announce_ready = ready
        self._look_again = look_again
        self._clock = clock
        keys = Keys(settings.consul.root)
        self.follower = Follower(consul, keys, keys.access_changes, changed=self._learn, clock=clock)
        failsafe = tuple(each.failsafe() for each in settings.failsafe)
        self._host = Host(keys, scope, failsafe, self.follower.view, clock(), settings.posture())
        self._protected = Protected()
        self._started, self._began = clock(), time.monotonic()
        self._services_read = 0.0
        self._errors: dict[str, str] = {}
        self._heard = asyncio.Event()
        self._woken = 0.0
        self._unseen: dict[str, None] = {}
        """Keys to be looked at: each once, however often it changed."""
        self._changed: defaultdict[str, set[Prefix]] = defaultdict(set)
        """Members that have changed since the kernel was programmed."""
        self._enforced: Desired | None = None
        """What the kernel was programmed for, if that went well."""
        self._applied_at = 0.0
        self._last_change: dict[str, float] = {}

    async def watch_services(self) -> None:
        """Follows the services of the local Consul agent and the service files for ever."""
        known: object = None
        while True:
            found = [await asyncio.to_thread(find_in_files, self._settings.services_dir)]
            try:
                found.append(find_in_consul(await self._consul.agent_services()))
            except RegistryError as error:
                if "services" not in self._errors:
                    log.warning("services not readable, keeping what is enforced", error=str(error))
                self._errors["services"] = str(error)
            else:
                self._services_read = time.monotonic()
                self._errors.pop("services", None)
                services = self._protected.update(found, self._clock())
                problems = tuple(problem for look in found for problem in look.problems)
                if known != (services, problems):
                    known = (services, problems)
                    self._host.protect(services, problems)
                    self._hear()
            self._look_again.clear()
            try:
                async with asyncio.timeout(SERVICES_EVERY):
                    await self._look_again.wait()
            except TimeoutError:
                continue

    async def enforce(self) -> None:
        """Programs the kernel whenever something was heard, for ever."""
        wait, failures = 0.0, 0
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._heard.wait()
            except TimeoutError:
                self._woken = self._clock()
            woken = self._woken
            await self._catch_up()
            if not self._applied_at and not self._host.is_ready():
                wait = PATIENCE
                continue
            try:
                await self._program(woken)
            except DataplaneError as error:
                failures += 1
                wait = min(RETRY_AT_MOST, 0.5 * 2**failures) * random.uniform(0.5, 1)  # noqa: S311 — only a jitter
                self._errors["kernel"] = str(error)
                log.error("kernel not programmed", error=str(error), retry_s=round(wait, 1))
                continue
            failures = 0
            self._errors.pop("kernel", None)
            now = self._clock()
            wait = max(1.0, self._dataplane.next_refresh(now) - now)
            if not self._host.is_ready():
                wait = PATIENCE

    def status(self) -> dict[str, Any]:
        """What the agent enforces and how fresh that is; times are epoch seconds."""
        now = self._clock()
        counters = dict(sorted(self.follower.counters.items()))
        problems = self._host.problems()
        services = self._enforced.services if self._enforced else ()
        return {
            "node": self._host.scope.node,
            "datacenter": self._host.scope.dc,
            "started": self._started,
            "enforcing": bool(self._applied_at),
            "waiting_for": self._host.waiting_for(),
            "applied": self._applied_at or None,
            "last_change": self._last_change or None,
            "contact_age_s": self._contact_ages(),
            "feed": {"covered": self._host.covered, "complete": self.follower.is_complete, **counters},
            "alarms": [*self.follower.alarms, *self._dataplane.alarms()],
            "backend": self._dataplane.name,
            "mode": self._settings.mode,
            "policy": self._settings.policy,
            "refused": dict(self._dataplane.refused),
            "errors": self._errors | self._trouble(),
            "problems": problems[:_PROBLEMS],
            "problem_count": len(problems),
            "absent_services": self._protected.absent(),
            "services": [
                {
                    "name": service.name,
                    "ports": [str(port) for port in service.ports],
                    "origin": service.origin,
                }
                | self._count(service.name, now)
                for service in services
            ],
            "overrides": {name: self._count(name, now) for name in (ALLOW, DENY, *self._settings.set)},
        }

    def _learn(self, changed: list[Changed]) -> None:
        """The follower's view has changed."""
        self._unseen.update(dict.fromkeys(change.key for change in changed))
        self._hear()

    def _hear(self) -> None:
        if not self._heard.is_set():
            self._woken = self._clock()
            self._heard.set()

    async def _catch_up(self) -> None:
        """Takes in what was heard, and what had to be read because of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while self._unseen:
                for key in list(islice(self._unseen, SLICE)):
                    del self._unseen[key]
                    self._host.look(key)
                if self._unseen:
                    await asyncio.sleep(0)
            self._heard.clear()
            step = self._host.settle(self._clock())
            for name, members in step.changed.items():
                self._changed[name].update(members)
            self.follower.uncover(step.uncover)
            self.follower.cover(step.cover)
            if not step.cover:
                return
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self.follower.wait_complete()
            except TimeoutError:
                return

    async def _program(self, woken: float) -> None:
        """Makes the kernel enforce what is known. Raises DataplaneError; then everything is compared next time."""
        wanted, now = self._host.desired(), self._clock()
        known, self._enforced = self._enforced, None
        changed, self._changed = self._changed, defaultdict(set)
        is_same = known is not None and known.services == wanted.services
        change = await self._dataplane.apply(wanted, now, changed if is_same else None)
        first = not self._applied_at
        self._enforced, self._applied_at = wanted, self._clock()
        if change:
            self._last_change = {"woken": woken, "programmed": self._applied_at}
            log.info("kernel programmed", **change.summary())
        if first:
            self._announce_ready()

    def _contact_ages(self) -> dict[str, float]:
        """Seconds since Consul last told how things are, by what it was asked."""
        contacts = {"feed": self.follower.last_contact, "services": self._services_read}
        now = time.monotonic()
        return {source: round(now - at, 3) for source, at in contacts.items() if at}

    def _trouble(self) -> dict[str, str]:
        """What is wrong with the feed."""
        silence = time.monotonic() - max(self._began, self.follower.last_contact)
        if self.follower.trouble:
            return {"feed": self.follower.trouble}
        return {"feed": f"Consul has not answered for {silence:.0f} s"} if silence > SILENCE else {}

    def _count(self, name: str, now: float) -> dict[str, Any]:
        members, soonest = self._host.count(name, now)
        return {"members": members, "soonest_expiry": soonest}
