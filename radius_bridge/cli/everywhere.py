"""Engineers' writes: to every datacenter that has the registry, each with its own result."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import typer

from radius_bridge.cli.common import consul_settings, fail_at_consul, find_datacenters
from radius_bridge.cli.output import FAILED, USAGE, fail
from radius_bridge.process import together
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Forbidden, RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.meta import ensure
from radius_bridge.registry.settings import ConsulSettings

T = TypeVar("T")

AGAIN = 2.0
"""Seconds before a datacenter that failed is tried again."""

TELL = 15.0
"""Seconds between two lines about a datacenter that fails."""


@dataclass
class Results(Generic[T]):
    """What became of one command in each datacenter."""

    done: dict[str, T] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def tell(self, sentence: str) -> None:
        """Says what was done and where; ends the command with an error if it failed somewhere."""
        if self.done:
            where = f"; in {', '.join(self.done)}" if len(self.done) + len(self.failed) > 1 else ""
            typer.echo(sentence + where)
        self.complain()

    def complain(self) -> None:
        """Ends the command with an error for each datacenter in which it failed."""
        for name, error in self.failed.items():
            typer.secho(f"error: not in {name}: {error}" if name else f"error: {error}", err=True)
        if self.failed and self.done:
            fail(f"done in {', '.join(self.done)} only: run the same command again")
        if self.failed:
            raise typer.Exit(FAILED)


def everywhere(work: Callable[[Consul, Keys], Awaitable[T]], *, patience: float = 0.0) -> Results[T]:
    """Runs one command's writing in all datacenters at once. Nothing that fails in one of them delays another.

    Each is tried for `patience` seconds, and at least once; Ctrl-C ends the trying. `work` may run several times.
    """
    settings = consul_settings()
    keys = Keys(settings.root)
    results: Results[T] = Results()
    places = {"": settings}

    async def find() -> dict[str, ConsulSettings]:
        async with Consul(settings) as consul:
            return await find_datacenters(consul, keys)

    async def write_once(name: str) -> T:
        try:
            async with Consul(places[name]) as consul:
                await ensure(consul, keys)
                return await work(consul, keys)
        except RegistryError as error:
            results.failed[name] = str(error)
            raise

    async def write(name: str, until: float) -> None:
        with suppress(RegistryError):
            results.done[name] = await _patiently(lambda: write_once(name), name, until)
            if results.failed.pop(name, None) is not None:
                typer.echo(f"{name or 'Consul'}: done", err=True)

    async def all_of_them() -> None:
        nonlocal places
        until = time.monotonic() + patience
        places = await _patiently(find, "", until) or places
        async with together() as tasks:
            for name in places:
                tasks.create_task(write(name, until), name=f"write in {name}")

    try:
        asyncio.run(all_of_them())
    except RegistryError as error:
        fail_at_consul(settings, error)
    except ValueError as error:
        fail(str(error), USAGE)
    except KeyboardInterrupt:
        for name in places:
            if name not in results.done:
                results.failed.setdefault(name, "interrupted")
    results.done = {name: results.done[name] for name in places if name in results.done}  # home first
    return results


async def _patiently(attempt: Callable[[], Awaitable[T]], name: str, until: float) -> T:
    """Tries until it works, or until then (monotonic time); says now and then that it does not work yet in `name`.

    Raises the RegistryError of the last try, and Forbidden at once.
    """
    told = 0.0
    while True:
        try:
            return await attempt()
        except RegistryError as error:
            now = time.monotonic()
            if isinstance(error, Forbidden) or now >= until:
                raise
            if now - told >= TELL:
                told = now
                typer.echo(f"{name or 'Consul'}: not yet ({error}); trying again", err=True)
        await asyncio.sleep(AGAIN)
