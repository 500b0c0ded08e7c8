"""`radius-bridge serve`: the bridge's process, and `check-config`."""

import asyncio
import gc
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from radius_bridge import configfile, leases, metrics
from radius_bridge.cli.output import FAILED, USAGE, fail
from radius_bridge.process import configure_logging, notify_systemd, run_until, signals
from radius_bridge.radius.accounting import Permissions
from radius_bridge.radius.renewal import Renewal
from radius_bridge.radius.server import Listener
from radius_bridge.radius.sockets import endpoint
from radius_bridge.registry import datacenters, meta
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.copies import Copies
from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.health import Health
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.leader import Leader
from radius_bridge.registry.naming import NamingRecord
from radius_bridge.registry.neighbours import Neighbours
from radius_bridge.registry.poll import backoff
from radius_bridge.registry.publisher import Publisher
from radius_bridge.registry.sweeper import Sweeper
from radius_bridge.scraping import Scraping
from radius_bridge.setting_fields import Endpoint
from radius_bridge.settings import Settings

log = structlog.get_logger()

DEFAULT_CONFIG = Path("/etc/radius-bridge/radius-bridge.toml")

GARBAGE = (2_000, 1_000, 100)
"""Objects, and rounds, after which the garbage collector looks (Python's own: 700, 10, 10). Next to nothing of ours is
in cycles, and much of what a login leaves is kept (names, responses for repetitions): what is young is looked through
often, which takes some ms, and all of it seldom, because all responses wait for that."""

DRAIN = 5.0
"""Seconds that SIGTERM leaves for what is in flight."""

BACKOFF = (0.25, 10.0)
"""First and longest pause (seconds, before jitter) before Consul is asked again at the start."""

ConfigOption = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The bridge's configuration.")]


def check_config(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Read the configuration and say what is wrong with it, or how it is understood."""
    settings = _settings(config)
    typer.echo(f"{config}: good")
    for client in settings.client:
        known_by = client.address or client.certificate_name or f"fingerprint {(client.fingerprint or b'').hex()}"
        typer.echo(f"  client {client.name}: {known_by} may bind {', '.join(map(str, client.networks))}")
    for lease in settings.lease:
        where = lease.path or lease.control_socket or (endpoint(*lease.listen) if lease.listen else "")
        typer.echo(f"  lease {lease.name}: {lease.type} at {where} may name {', '.join(map(str, lease.networks))}")


def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every detail.")] = False,
) -> None:
    """Receive RADIUS accounting and record who is behind which address in Consul.

    SIGTERM finishes what is in flight, SIGHUP reads the clients anew.
    """
    settings = _settings(config)
    configure_logging(verbose=verbose)
    try:
        uvloop.run(_serve(config, settings))
    except OSError as error:
        fail(str(error), FAILED)


def _settings(path: Path) -> Settings:
    try:
        settings = configfile.read(path, Settings)
        settings.consul.read_token()
        settings.consul.tls()
        if settings.radsec is not None:
            settings.radsec.read_tls()
    except (configfile.ConfigError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(USAGE) from None
    return settings


async def _serve(path: Path, settings: Settings) -> None:
    keys = Keys(settings.consul.root)
    async with Consul(settings.consul) as consul:
        health = Health(consul, keys.health(socket.gethostname()))
        permissions = Permissions(settings.clients(), settings.rules())
        async with Lanes(consul, keys, committed=health.committed, may_bind=permissions.may_bind) as lanes:
            await _listen(path, settings, consul, keys, lanes, health, permissions)


async def _listen(
    path: Path,
    settings: Settings,
    consul: Consul,
    keys: Keys,
    lanes: Lanes,
    health: Health,
    permissions: Permissions,
) -> None:
    radsec = settings.radsec
    listener = Listener(
        settings.radius.listen,
        permissions.clients,
        permissions.rules,
        lanes.submit,
        can_record=health.is_recording,
        radsec=() if radsec is None else radsec.listen,
        dtls=() if radsec is None else radsec.dtls_listen,
        tls=None if radsec is None else radsec.read_tls(),
    )

    naming = NamingRecord(consul, keys, settings.names.naming())

    def reload() -> None:
        try:
            fresh = configfile.read(path, Settings)
            clients, rules = fresh.clients(), fresh.rules()
            listener.reload(
                clients,
                rules,
                None if settings.radsec is None or fresh.radsec is None else fresh.radsec.read_tls(),
            )
        except (configfile.ConfigError, ValueError) as error:
            log.error("configuration not taken, the old one stays", error=str(error))
            return
        permissions.clients, permissions.rules = clients, rules
        naming.set(fresh.names.naming())
        if _fixed(fresh) != _fixed(settings):
            log.warning("the transports' addresses, lease sources, Consul and metrics stay as they are until a restart")
        log.info("configuration taken", clients=len(fresh.client))

    async with signals(reload) as stop, AsyncExitStack() as stack:
        neighbours = Neighbours(consul, keys, lanes)
        where = await _load(consul, keys, neighbours, settings, stop)
        if where is None:
            return
        urls = settings.datacenters.urls
        elsewhere = {name: settings.consul.in_datacenter(name, urls.get(name, "")) for name in where.copies}
        others = {name: await stack.enter_async_context(Consul(each)) for name, each in elsewhere.items()}
        copies = Copies(consul, keys, where, others)
        # Hundreds of thousands of records stay; looking through them for garbage would stop everything for a second.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        sweeper = Sweeper(consul, keys)
        publisher = Publisher(consul, keys)
        lease_sources = leases.sources(settings.lease, lanes.submit_lease)
        if settings.metrics is not None:
            metrics.RECORDING.set_function(health.is_recording)
            counted = {
                "lanes": lanes.counters,
                "announcer": lanes.pages.counters,
                "identity_announcer": lanes.identity.counters,
                "neighbours": neighbours.counters,
                "publisher": publisher.counters,
                "follower": publisher.follower.counters,
                "sweeper": sweeper.counters,
            }
            metrics.export_leases({source.name: source.counters for source in lease_sources})
            for source in lease_sources:
                works = metrics.LEASE_SOURCE_WORKS.labels(source.name)
                works.set_function(lambda source=source: not source.problem)  # type: ignore[misc]
            for name, each in copies.copies.items():
                counted[f"copy_{name}"] = each.counters
                metrics.COPY_BEHIND.labels(name).set_function(lambda each=each: each.behind)  # type: ignore[misc]
            for name, counters in counted.items():
                metrics.export(name, counters)
            _serve_metrics(settings.metrics.listen)
        listener.start()
        log.info(
            "listening",
            addresses=[endpoint(*each) for each in listener.addresses],
            radsec=[endpoint(*each) for each in listener.radsec_addresses],
            dtls=[endpoint(*each) for each in listener.dtls_addresses],
        )
        notify_systemd("READY=1")
        await run_until(
            stop,
            lanes.watch(),
            health.run(),
            Leader(consul, keys.lock("sweeper")).run(sweeper.work),
            publisher.run(),
            neighbours.run(),
            naming.run(),
            *(source.run() for source in lease_sources),
            *([Leader(consul, keys.lock("copies")).run(copies.work)] if others else ()),
            *([Renewal(listener).run()] if radsec is not None else ()),
        )
        notify_systemd("STOPPING=1")
        listener.close()
        left = await listener.drain(DRAIN)
        log.info("stopped", unanswered=left)


def _serve_metrics(listen: Endpoint) -> None:
    try:
        Scraping(listen).start()
    except OSError as error:
        raise OSError(f"metrics.listen: cannot listen on {endpoint(*listen)}/tcp: {error.strerror}") from error


def _fixed(settings: Settings) -> tuple[object, ...]:
    """What holds until the end of the process."""
    radsec = None if settings.radsec is None else (settings.radsec.listen, settings.radsec.dtls_listen)
    return settings.consul, settings.radius.listen, radsec, settings.metrics, settings.datacenters, settings.lease


async def _load(
    consul: Consul, keys: Keys, neighbours: Neighbours, settings: Settings, stop: asyncio.Event
) -> Datacenters | None:
    """Waits until Consul can be read and written; gives where the registry is, None if stopped meanwhile.

    Until then the port is not open: a NAS with a second server turns to that one at once.
    """
    failures = 0
    while not stop.is_set():
        try:
            await meta.ensure(consul, keys)
            where = await _datacenters(consul, keys, settings)
            await neighbours.load()
        except RegistryError as error:
            wait = backoff(failures, BACKOFF)
            failures += 1
            log.warning("waiting for Consul", error=str(error), retry_s=round(wait, 1))
            try:
                async with asyncio.timeout(wait):
                    await stop.wait()
            except TimeoutError:
                continue
        else:
            return where
    return None


async def _datacenters(consul: Consul, keys: Keys, settings: Settings) -> Datacenters:
    """Where the registry is, recorded for engineers' commands once there is more than the home."""
    home = settings.consul.datacenter or (await consul.agent_self())[1]
    where = Datacenters(home, tuple(name for name in settings.datacenters.copies if name != home))
    found = await datacenters.read(consul, keys)
    if found != where and (found or where.copies):
        await consul.transact([where.op(keys)])
    return where
