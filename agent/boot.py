"""What a host does before it hears from Consul: it goes on with what it enforced when it was last at work."""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

import structlog

from agent.dataplane.change import Change
from agent.dataplane.errors import DataplaneError
from agent.desired import Desired, Failsafe, Posture, fingerprint
from agent.services import find_in_files
from agent.settings import AgentSettings
from agent.state import State, StateError
from agent.statefile import StateFile

log = structlog.get_logger()


class Dataplane(Protocol):
    """What programs the kernel: agent.dataplane.ipset.IpsetDataplane."""

    async def apply(self, desired: Desired, now: float) -> Change:
        """Makes the kernel enforce `desired`. Raises DataplaneError."""

    async def is_in_place(self) -> bool:
        """True if rules of ours are in the kernel already. Raises DataplaneError."""

    def next_refresh(self, now: float) -> float:
        """When apply is due again though nothing changes; at once, if it failed (epoch seconds)."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What there was of an earlier run."""

    state: State | None = None
    problem: str = ""
    """Why there is no state though there is a file."""
    desired: Desired | None = None
    """What is to be enforced until Consul is read; None if the kernel is left as it is."""
    failure: str = ""
    """Why the kernel was not programmed with it."""


def load(settings: AgentSettings, now: float) -> tuple[State | None, str]:
    """The last good state, or why it is refused: then the file is set aside. `now` is in epoch seconds."""
    file = StateFile(settings.state_dir)
    try:
        state = file.read()
        if state is not None:
            _check_is_ours(state, settings)
    except StateError as error:
        problem = f"{file.path}: refused: {error}"
        try:
            problem += f"; kept as {file.set_aside(now).name}"
        except OSError as failure:
            problem += f"; it cannot be set aside ({failure.strerror})"
        log.error("last good state refused, the failsafe stands", problem=problem)
        return None, problem
    return state, ""


async def restore(settings: AgentSettings, dataplane: Dataplane) -> Restored:
    """Programs the kernel from the last good state, if the kernel has nothing of ours: after a reboot.

    Rules that are in place are newer than the file, and stay as they are, unless the configuration has another failsafe
    or posture by now: the way back in must not wait for Consul. Where a file is refused, the services that
    files of this host name are closed to all but the failsafe: who was let in is not known, and nothing is to open.
    Without a file (a new host) nothing is changed. A clock that is not set yet (it is before what was written) gives
    nobody more time than was left then.
    """
    now = time.time()
    state, problem = await asyncio.to_thread(load, settings, now)
    if state is not None and now < state.written:
        log.warning("the clock is behind the last good state", seconds=round(state.written - now, 1))
        now = state.written
    failsafe = tuple(each.failsafe() for each in settings.failsafe)
    if state is None and not problem:
        return Restored()
    posture = settings.posture()
    desired = state.desired(failsafe, posture, now) if state is not None else _closed(settings, failsafe, posture)
    try:
        as_configured = state is None or state.fingerprint in ("", fingerprint(failsafe, posture))
        if as_configured and await dataplane.is_in_place():
            return Restored(state, problem)
        change = await dataplane.apply(desired, now)
    except DataplaneError as error:
        log.error("kernel not programmed", error=str(error))
        return Restored(state, problem, desired, str(error))
    log.info("restored", services=len(desired.services), **change.summary())
    return Restored(state, problem, desired)


async def keep_up(dataplane: Dataplane, restored: Restored) -> None:
    """Programs the kernel with what was restored, if that has failed or is due again."""
    now = time.time()
    if restored.desired is None or dataplane.next_refresh(now) > now:
        return
    try:
        change = await dataplane.apply(restored.desired, now)
    except DataplaneError as error:
        log.error("kernel not programmed", error=str(error))
    else:
        if change:
            log.info("kernel programmed", **change.summary())


def _closed(settings: AgentSettings, failsafe: tuple[Failsafe, ...], posture: Posture) -> Desired:
    services = {service.name: service for service in find_in_files(settings.services_dir).services}
    return Desired(tuple(services.values()), {}, failsafe, posture)


def _check_is_ours(state: State, settings: AgentSettings) -> None:
    """Raises StateError for what another host, or another registry, has left."""
    if state.root != settings.consul.root:
        raise StateError(f"of the root {state.root!r}, not {settings.consul.root!r}")
    for what, told, known in (
        ("node", settings.node, state.scope.node),
        ("datacenter", settings.datacenter, state.scope.dc),
    ):
        if told and told != known:
            raise StateError(f"of the {what} {known!r}, not {told!r}")
