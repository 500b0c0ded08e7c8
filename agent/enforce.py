"""The agent at work: watch Consul, put the view together, program the kernel. Errors change nothing."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import structlog

from agent.dataplane.ipset import DataplaneError, IpsetDataplane
from agent.desired import ALLOW, DENY, Desired
from agent.services import Protected, find_in_consul, find_in_files
from agent.settings import AgentSettings
from agent.view import View
from radius_bridge.policy.expiry import NEVER
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.watch import watch

log = structlog.get_logger()

SERVICES_EVERY = 5.0
"""Seconds between looks at the services of this host."""

RETRY_AT_MOST = 30.0
"""Longest wait (seconds) before a failed change of the kernel is tried again."""


class Enforcer:
    """Keeps the kernel as Consul wants it.

    `ready` is called when the kernel is programmed for the first time; setting `look_again` looks at the host's
    services at once.
    """

    def __init__(
        self,
        settings: AgentSettings,
        view: View,
        consul: Consul,
        dataplane: IpsetDataplane,
        ready: Callable[[], None],
        look_again: asyncio.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._view = view
        self._consul = consul
        self._dataplane = dataplane
        self._ready = ready
        self._clock = clock
        self._changed = asyncio.Event()
        self._look_again = look_again
        self._protected = Protected()
        self._started = clock()
        self._contact: dict[str, float] = {}
        self._errors: dict[str, str] = {}
        self._woken = 0.0
        self._enforced: Desired | None = None
        self._last_change: dict[str, float] = {}
        self._applied_at = 0.0

    async def watch_prefix(self, prefix: str) -> None:
        """Follows one prefix for ever."""

        def report(error: RegistryError | None) -> None:
            self._note(prefix, error)

        async for snapshot in watch(self._consul, self._view.keys, prefix, report=report):
            self._view.learn(prefix, snapshot.entries)
            self._heard()

    async def watch_services(self) -> None:
        """Follows the services of the local Consul agent and the service files for ever."""
        while True:
            found = [await asyncio.to_thread(find_in_files, self._settings.services_dir)]
            try:
                found.append(find_in_consul(await self._consul.agent_services()))
            except RegistryError as error:
                self._note("services", error)
            else:
                self._note("services", None)
                before = (self._view.services, self._view.service_problems)
                self._view.services = self._protected.update(found, self._clock())
                self._view.service_problems = tuple(problem for look in found for problem in look.problems)
                if (self._view.services, self._view.service_problems) != before:
                    self._heard()
            self._look_again.clear()
            try:
                async with asyncio.timeout(SERVICES_EVERY):
                    await self._look_again.wait()
            except TimeoutError:
                continue

    async def enforce(self) -> None:
        """Programs the kernel whenever something was heard, for ever."""
        wait: float | None = None
        failures = 0
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                self._woken = self._clock()
            self._changed.clear()
            now = self._clock()
            woken, wanted = self._woken, self._view.desired(now)
            if wanted is None:
                continue
            try:
                change = await self._dataplane.apply(wanted, now)
            except DataplaneError as error:
                failures += 1
                wait = min(RETRY_AT_MOST, 0.5 * 2**failures) * random.uniform(0.5, 1)  # noqa: S311 — only a jitter
                self._errors["kernel"] = str(error)
                log.error("kernel not programmed", error=str(error), retry_s=round(wait, 1))
                continue
            failures = 0
            self._errors.pop("kernel", None)
            first = self._enforced is None
            self._enforced, self._applied_at = wanted, self._clock()
            if change:
                self._last_change = {"woken": woken, "programmed": self._applied_at}
                log.info("kernel programmed", **change.summary())
            if first:
                self._ready()
            now = self._clock()
            wait = max(1.0, self._dataplane.next_refresh(now) - now)

    def status(self) -> dict[str, Any]:
        """What the agent enforces and how fresh that is; times are epoch seconds."""
        now = self._clock()
        members = self._enforced.members if self._enforced else {}
        services = self._enforced.services if self._enforced else ()
        return {
            "node": self._view.scope.node,
            "datacenter": self._view.scope.dc,
            "started": self._started,
            "enforcing": self._enforced is not None,
            "waiting_for": self._view.missing(),
            "applied": self._applied_at or None,
            "last_change": self._last_change or None,
            "contact_age_s": {source: round(now - at, 3) for source, at in self._contact.items()},
            "errors": dict(self._errors),
            "problems": self._view.problems(),
            "absent_services": self._protected.absent(),
            "services": [
                {
                    "name": service.name,
                    "ports": [str(port) for port in service.ports],
                    "origin": service.origin,
                }
                | _count(members.get(service.name, {}), now)
                for service in services
            ],
            "overrides": {name: _count(members.get(name, {}), now) for name in (ALLOW, DENY)},
        }

    def _heard(self) -> None:
        self._woken = self._clock()
        self._changed.set()

    def _note(self, source: str, error: RegistryError | None) -> None:
        """Notes how the last contact with Consul about `source` went."""
        if error is None:
            self._contact[source] = self._clock()
            self._errors.pop(source, None)
            return
        if source not in self._errors:
            log.warning("Consul not readable, keeping what is enforced", source=source, error=str(error))
        self._errors[source] = str(error)


def _count(members: Any, now: float) -> dict[str, Any]:
    live = [expires for expires in members.values() if expires == NEVER or expires > now]
    return {"members": len(live), "soonest_expiry": min((e for e in live if e != NEVER), default=None)}
