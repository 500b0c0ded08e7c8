"""The agent at work: follow Consul, keep up to date who gets in, program the kernel. Errors change nothing."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import islice
from typing import Any, Final

import structlog

from agent import report
from agent.boot import Restored
from agent.clock import Steps
from agent.dataplane.base import CHECK_SECONDS
from agent.dataplane.compare import Difference
from agent.dataplane.errors import DataplaneError
from agent.dataplane.events import RULES
from agent.dataplane.interface import Enforcing
from agent.dataplane.kinds import KINDS, set_name
from agent.desired import ALLOW, DENY, Desired, fingerprint
from agent.integrity import Integrity
from agent.learning import PATIENCE, Learning
from agent.saving import Saver
from agent.settings import AgentSettings
from agent.state import State
from agent.statefile import StateFile
from agent.telling import Telling
from agent.watching import Watching
from radius_bridge.policy.services import Service
from radius_bridge.process import together
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Keys, Scope

log = structlog.get_logger()

RETRY_AT_MOST: Final = 30.0
"""Longest wait (seconds) before a failed change of the kernel is tried again."""

COUNTING: Final = 1.0
"""Seconds that the kernel's tools have to say how many were refused."""

_MOST_NEWS: Final = 20
"""Members of an override of whom one change is logged by name, at most."""

_BREATH: Final = 0.02
"""Seconds between two looks at least."""


def pause(now: float, *due: float) -> float:
    """Seconds from `now` to the first moment (epoch seconds) at which the kernel is to be looked at again. Pure.

    Never many: a moment that was reckoned before the clock was set back may be hours away.
    """
    return min(CHECK_SECONDS, max(_BREATH, min(due) - now))


class Enforcer:
    """Keeps the kernel as Consul wants it, and on disk what the kernel is told.

    `ready` is called when the kernel is programmed for the first time; setting `look_again` looks at the host's
    services at once. `restored` is what there was of an earlier run: that is kept up until Consul was read.
    """

    def __init__(
        self,
        settings: AgentSettings,
        scope: Scope,
        consul: Consul,
        dataplane: Enforcing,
        ready: Callable[[], None],
        look_again: asyncio.Event,
        clock: Callable[[], float] = time.time,
        restored: Restored | None = None,
        integrity: Integrity | None = None,
    ) -> None:
        """`scope` is this host's datacenter and node; `integrity` looks after the dataplane."""
        self._settings = settings
        self._dataplane = dataplane
        self._announce_ready = ready
        self._clock = clock
        self._restored = restored or Restored()
        self._integrity = integrity
        state = self._restored.state
        failsafe = tuple(each.failsafe() for each in settings.failsafe)
        keys = Keys(settings.consul.root)
        posture = settings.posture()
        self.learning = Learning(consul, keys, scope, failsafe, clock, state, posture)
        self.follower = self.learning.follower
        self.saver = Saver(StateFile(settings.state_dir), self._state)
        self.watching = Watching(settings.services_dir, consul.agent_services, self._protect, look_again, clock, state)
        self.telling = Telling(consul, keys.host(scope.node), self.status, clock)
        self._started, self._began = clock(), time.monotonic()
        self._kernel_error = ""
        """Why the kernel could not be programmed; empty if it could."""
        self._wanted: Desired | None = None
        """What the kernel was last told to enforce."""
        self._enforced: Desired | None = None
        """The same, if that went well."""
        self._busy = asyncio.Lock()
        """Held while what is wanted is not yet what is known: in between nothing may be written down."""
        self._applied_at = 0.0
        """When the kernel was last programmed for what Consul says (epoch seconds)."""
        self._last_change: dict[str, float] = {}
        self._not_before = state.written if state is not None else 0.0
        """An earlier clock is not set yet (epoch seconds)."""
        self._steps = Steps(max(clock(), self._not_before), self._began)

    async def run(self) -> None:
        """Enforces until cancelled."""
        async with AsyncExitStack() as stack, together() as tasks:
            if self._integrity is not None:
                self._integrity.ending = self.learning.host.ending
                stack.enter_context(self._integrity.listening(self.learning.wake))
            for work in (
                self.learning.follower.run(),
                self.learning.read_again(),
                self.watching.run(),
                self.enforce(),
                self.saver.run(),
            ):
                tasks.create_task(work)

    async def enforce(self) -> None:
        """Programs the kernel whenever something was heard, for ever."""
        wait, failures = 0.0, 0
        heard = self.learning.heard
        while True:
            try:
                async with asyncio.timeout(wait):
                    await heard.wait()
                woken = self.learning.woken
            except TimeoutError:
                woken = self._clock()
            try:
                async with self._busy:
                    await self.learning.catch_up()
                    is_ready = self.learning.host.is_ready()
                    if self._applied_at or is_ready:
                        await self._program(woken)
                    elif self._restored.desired is not None:
                        await self._keep_up(self._restored.desired)
            except DataplaneError as error:
                failures += 1
                wait = min(RETRY_AT_MOST, 0.5 * 2**failures) * random.uniform(0.5, 1)  # noqa: S311 — only a jitter
                self._kernel_error = str(error)
                log.error("kernel not programmed", error=str(error), retry_s=round(wait, 1))
                continue
            failures = 0
            self._kernel_error = ""
            now = self._clock()
            due = [max(now + 1.0, self._dataplane.next_refresh(now)) if is_ready else now + PATIENCE]
            if self._integrity is not None:
                due.append(self._integrity.next_look())
            wait = pause(now, *due)

    @property
    def enforced(self) -> Desired | None:
        """What the kernel was last told to enforce; None if that is not known, or did not go well."""
        return self._enforced if self._applied_at else self._restored.desired

    @property
    def is_observing(self) -> bool:
        """True if nobody is refused."""
        return self._settings.mode == "observe"

    def now(self) -> float:
        """The time (epoch seconds)."""
        return self._clock()

    async def differences(self) -> Sequence[Difference] | None:
        """Where the kernel is not as it was told to be; None if it was not told anything. Raises DataplaneError."""
        async with self._busy:
            enforced = self.enforced
            if enforced is None or self._integrity is None:
                return None
            return await self._integrity.differences(enforced)

    async def count_refused(self) -> None:
        """Counts who was refused until now, if the kernel's tools are quick: `status` has it."""
        with suppress(DataplaneError, TimeoutError):
            async with asyncio.timeout(COUNTING):
                await self._dataplane.count_refused()

    def status(self) -> dict[str, Any]:
        """What the agent enforces and how fresh that is; times are epoch seconds."""
        now = self._clock()
        errors = {"services": self.watching.error, "kernel": self._kernel_error, "state": self.saver.error}
        return {
            "started": self._started,
            "enforcing": bool(self._applied_at),
            "restored": self._restored.state.written if self._restored.state else None,
            "applied": self._applied_at or None,
            "last_change": self._last_change or None,
            "contact_age_s": report.contact_ages(self.learning, self.watching.last_contact),
            "errors": {what: error for what, error in errors.items() if error}
            | report.trouble(self.learning, self._began),
            "refused_state": self._restored.problem,
            "state": self.saver.status(),
            "told": {"error": self.telling.error, **self.telling.counters},
            "absent_services": dict(self.watching.absent),
            "backend": self._dataplane.name,
            "mode": self._settings.mode,
            "policy": self._settings.policy,
            "refused": dict(self._dataplane.refused),
            "limits": report.about_limits(self._dataplane.entries()),
            **report.about_learning(self.learning),
            "alarms": [
                *self.follower.alarms,
                *self._dataplane.alarms(),
                *(self._integrity.alarms() if self._integrity else ()),
            ],
            **(self._integrity.repairs.status() if self._integrity else {}),
            **report.about_enforced(self.learning, self._enforced, now),
        }

    def _protect(self, services: Sequence[Service], problems: Sequence[str]) -> None:
        self.learning.protect(services, problems)
        self.saver.changed()

    async def _program(self, woken: float) -> None:
        """Makes the kernel enforce what is known. Raises DataplaneError; then everything is compared next time."""
        wanted, now = self.learning.desired(), self._clock()
        known, self._enforced, self._wanted = self._enforced, None, wanted
        changed = self.learning.take_changed()
        was_set = self._heed_clock(wanted)
        is_same = not was_set and known is not None and known.services == wanted.services
        change = await self._dataplane.apply(wanted, now, changed if is_same else None)
        if self._integrity is not None:
            if is_same and change.rules:
                self._integrity.noted(RULES)
            repaired = await self._integrity.look(wanted, wrote_rules=bool(change.rules))
            change = repaired or change
        first = not self._applied_at
        self._enforced, self._applied_at = wanted, self._clock()
        for override in (ALLOW, DENY):
            for prefix in islice(changed.get(override, ()), _MOST_NEWS):
                log.warning("override", of=override, member=str(prefix), is_in=prefix in wanted.of(override))
        if change:
            self._last_change = {"woken": woken, "programmed": self._applied_at}
            log.info("kernel programmed", **change.summary())
        if change or first:
            self.saver.changed()
        if first:
            self._announce_ready()

    async def _keep_up(self, desired: Desired) -> None:
        """Enforces what was restored, minus what is over. Raises DataplaneError."""
        now = max(self._clock(), self._not_before)
        if self._heed_clock(desired) or self._dataplane.next_refresh(now) <= now:
            await self._dataplane.apply(desired, now)
        # With a clock that is not set yet, the kernel's times would seem to be wrong.
        if self._integrity is not None and self._clock() >= self._not_before:
            await self._integrity.look(desired)

    def _heed_clock(self, desired: Desired) -> bool:
        """True if the clock was set, so that the kernel must be told all ends anew: it counts seconds."""
        now = self._clock()
        step = self._steps.take(now, time.monotonic()) if now >= self._not_before else 0.0
        if step:
            log.warning("the clock was set, all members are programmed anew", seconds=round(step, 1))
            self._dataplane.distrust({set_name(kind, name) for name in desired.names for kind in KINDS})
        return bool(step)

    async def _state(self) -> State | None:
        """What is to be found on disk after a reboot; None before Consul was read."""
        async with self._busy:
            wanted = self._wanted
            if wanted is None:
                return None
            return State(
                self._settings.consul.root,
                self.learning.host.scope,
                self._clock(),
                wanted.services,
                {name: dict(members) for name, members in wanted.members.items()},
                {name: since for name, since in self.watching.absent.items() if name in wanted.members},
                self.watching.looked,
                fingerprint(wanted.failsafe, wanted.posture),
            )
