"""`radius-bridge-agent run`: the process around the enforcer. Stopping it leaves the rules."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import structlog

from agent import control
from agent.answers import Answers
from agent.boot import Restored, keep_up, restore
from agent.dataplane import choose
from agent.dataplane.interface import Dataplane
from agent.enforce import Enforcer
from agent.integrity import Integrity
from agent.refused import RefusedLog
from agent.settings import AgentSettings
from radius_bridge.process import give_memory_back, notify_systemd, run_until, signals
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Scope

log = structlog.get_logger()


async def run(settings: AgentSettings) -> None:
    """Runs until SIGTERM or SIGINT. Raises OSError or DataplaneError if it cannot begin."""
    give_memory_back()
    look_again = asyncio.Event()
    with dataplane_of(settings) as dataplane:
        restored = await restore(settings, dataplane)
        async with _consul(settings) as consul, signals(look_again.set) as stop:
            if restored.state is not None:
                scope: Scope | None = restored.state.scope
            else:
                scope = await place(settings, consul, stop, partial(keep_up, dataplane, restored))
            if scope is None:
                return

            def ready() -> None:
                log.info("enforcing", node=scope.node, datacenter=scope.dc)
                notify_systemd("READY=1")

            if restored.state is not None:
                notify_systemd("READY=1")
            integrity = Integrity(dataplane, settings.integrity.every)
            enforcer = Enforcer(
                settings, scope, consul, dataplane, ready, look_again, restored=restored, integrity=integrity
            )
            refused = RefusedLog(settings.refused.group) if settings.refused.per_second else None
            told = Answers(enforcer, refused)
            enforcer.telling.status = told.status
            answers: dict[str, control.Answer] = {
                "status": told.status_now,
                "forget": enforcer.watching.forget,
                "verify": told.verify,
                "why": told.why,
                "refused": told.refused,
            }
            async with AsyncExitStack() as stack:
                if refused is not None:
                    stack.enter_context(refused.listening())
                await stack.enter_async_context(control.serve(settings.control_socket, answers))
                stay = stay_here(settings, consul, scope, stop, enforcer.saver.forget)
                await run_until(stop, enforcer.run(), enforcer.telling.run(), stay)
            await enforcer.saver.save()
            notify_systemd("STOPPING=1")
            log.info("stopped; the rules stay, and every member's time runs out in the kernel")


async def restore_only(settings: AgentSettings) -> Restored:
    """`radius-bridge-agent restore`, before the network is up. Raises OSError or DataplaneError."""
    with dataplane_of(settings) as dataplane:
        return await restore(settings, dataplane)


async def stay_here(
    settings: AgentSettings, consul: Consul, scope: Scope, stop: asyncio.Event, forget: Callable[[], Awaitable[None]]
) -> None:
    """Sees that the place of the last run is still the host's.

    Else it has `forget` remove the last good state and raises OSError, so that the agent is started anew.
    """
    found = await place(settings, consul, stop)
    if found not in (None, scope):
        await forget()
        raise OSError(f"this host is {found} now and was {scope}: start again, what was enforced there is forgotten")
    await asyncio.Event().wait()


def _consul(settings: AgentSettings) -> Consul:
    # Not before the last good state is restored: a token that cannot be read must leave no port open.
    try:
        return Consul(settings.consul)
    except ValueError as error:
        raise OSError(str(error)) from None


def dataplane_of(settings: AgentSettings) -> Dataplane:
    """The dataplane that is configured. Raises DataplaneError if this host has none, ValueError for a bad template."""
    templates = choose.site_templates(settings.templates)
    return choose.dataplane(settings.backend, settings.state_dir / "lock", templates)


async def place(
    settings: AgentSettings, consul: Consul, stop: asyncio.Event, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> Scope | None:
    """This host's place in the scopes of grants, asked of its Consul agent until it answers; None if stopped.

    `meanwhile` is called after each time that it did not.
    """
    node, dc = settings.node, settings.datacenter
    attempt = 0
    while not (node and dc):
        try:
            my_node, my_dc = await consul.agent_self()
        except RegistryError as error:
            wait = min(30.0, 0.5 * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311 — only a jitter
            log.warning("waiting for Consul", error=str(error), retry_s=round(wait, 1))
            attempt += 1
            if meanwhile is not None:
                await meanwhile()
            try:
                async with asyncio.timeout(wait):
                    await stop.wait()
                return None
            except TimeoutError:
                continue
        node, dc = node or my_node.lower().split(".")[0], dc or my_dc
    return Scope(dc, node)
