"""`notify` and `publish`: hosts hear of changes that other programs made in Consul."""

import asyncio
from typing import Annotated

import structlog
import typer

from radius_bridge.cli.common import consul_settings, with_consul
from radius_bridge.cli.output import fail, warn
from radius_bridge.process import configure_logging, notify_systemd, run_until, signals
from radius_bridge.registry import notices
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.feed import Class
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.meta import ensure
from radius_bridge.registry.publisher import Publisher


def notify(
    prefix: Annotated[
        str,
        typer.Argument(
            metavar="PREFIX", help="Below the root, for example '$service$/ssh_tcp_22/'.", show_default=False
        ),
    ],
) -> None:
    """Have all hosts hear at once of what another program wrote below PREFIX, or of a key that it deleted.

    `radius-bridge notify '$service$/ssh_tcp_22/'`. Without it hosts hear within 15 seconds.
    """

    async def work(consul: Consul, keys: Keys) -> tuple[int, list[str]]:
        return await notices.notify(consul, keys, f"{keys.root}/{prefix}")

    count, unnamed = with_consul(work, at_home=False)
    for key in unnamed:
        warn(f"{key}: no host follows it")
    if not count:
        fail(f"{prefix}: nothing there that hosts follow; deletions below a prefix are heard of within 15 seconds")
    typer.echo(f"{count} {'entry' if count == 1 else 'entries'} announced")


def publish(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every detail.")] = False,
) -> None:
    """Announce what other programs write for engineers, where the token of `serve` may not. Runs until stopped.

    Several may run: one of them works. Consul is found by CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN_FILE, …
    """
    settings = consul_settings()
    configure_logging(verbose=verbose)
    log = structlog.get_logger()

    async def work() -> None:
        keys = Keys(settings.root)
        async with Consul(settings) as consul, signals(lambda: None) as stop:
            try:
                await ensure(consul, keys)
            except RegistryError as error:
                log.warning("waiting for Consul", error=str(error))
            notify_systemd("READY=1")
            await run_until(stop, Publisher(consul, keys).run([Class.ENGINEER]))
            notify_systemd("STOPPING=1")

    try:
        asyncio.run(work())
    except (OSError, ValueError) as error:
        fail(str(error))
