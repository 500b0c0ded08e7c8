"""Which services this host has to protect is asked again and again: of its Consul agent, and of its service files."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from agent.services import Protected, find_in_consul, find_in_files
from agent.state import State
from radius_bridge.policy.services import Service
from radius_bridge.registry.answers import AgentService
from radius_bridge.registry.errors import RegistryError

EVERY: Final = 5.0
"""Seconds between looks at the services of this host."""

log = structlog.get_logger()


class Watching:
    """Follows the services of the local Consul agent and the service files. What cannot be read changes nothing."""

    def __init__(
        self,
        directory: Path,
        ask: Callable[[], Awaitable[Mapping[str, AgentService]]],
        found: Callable[[tuple[Service, ...], tuple[str, ...]], None],
        look_again: asyncio.Event,
        clock: Callable[[], float],
        state: State | None = None,
    ) -> None:
        """`directory` has the service files; `ask` gives the services of the Consul agent, or raises RegistryError.

        `found` is called with what to protect, and with what is wrong in the sources, when something has changed;
        setting `look_again` looks at once. `state` says what was protected when the host was last at work.
        """
        self._directory = directory
        self._ask = ask
        self._found = found
        self._look_again = look_again
        self._clock = clock
        self._problems: tuple[str, ...] = ()
        self._protected = Protected()
        if state is not None:
            known = {service.name: service for service in state.services}
            self._protected = Protected(known, dict(state.absent), state.looked)
        self.error = ""
        """Why Consul could not be asked; empty if it could."""
        self.last_contact = 0.0
        """When it was asked (monotonic seconds); 0 before that."""

    @property
    def absent(self) -> Mapping[str, float]:
        """Services that are protected although no source lists them any more: since when (epoch seconds)."""
        return self._protected.absent

    @property
    def looked(self) -> float:
        """When all sources were last read (epoch seconds); 0 if they never were."""
        return self._protected.looked

    async def run(self) -> None:
        """Looks for ever."""
        known: object = None
        while True:
            self._look_again.clear()
            found = [await asyncio.to_thread(find_in_files, self._directory)]
            try:
                found.append(find_in_consul(await self._ask()))
            except RegistryError as error:
                if not self.error:
                    log.warning("services not readable, keeping what is enforced", error=str(error))
                self.error = str(error)
            else:
                self.last_contact = time.monotonic()
                self.error = ""
                services = self._protected.update(found, self._clock())
                problems = self._problems = tuple(problem for look in found for problem in look.problems)
                if known != (services, problems, self.absent.keys()):
                    known = (services, problems, set(self.absent))
                    self._found(services, problems)
            try:
                async with asyncio.timeout(EVERY):
                    await self._look_again.wait()
            except TimeoutError:
                continue

    def forget(self, name: str) -> dict[str, Any]:
        """Protects a service no longer that no source lists any more; the answer says what was done."""
        try:
            self._protected.forget(name)
        except ValueError as error:
            return {"error": str(error)}
        log.warning("service forgotten, its ports are not protected any more", service=name)
        self._found(self._protected.listed(), self._problems)
        return {"forgotten": name}
