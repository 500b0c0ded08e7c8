"""A prefix as it changes: one long poll after the other, and never an error taken for an empty answer."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from radius_bridge.registry import meta
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Snapshot

WAIT: Final = 30.0
"""Seconds that one poll waits: after a restore from an older snapshot a blocked poll can be blind."""

FULL_EVERY: Final = 300.0
"""Seconds after which everything is read again, whatever the index says."""

STALE: Final = 5.0
"""Seconds without contact to the leader, from which a server's answer is not good enough."""

BACKOFF: Final = (0.25, 30.0)
"""First and longest pause (seconds, before jitter) after an error."""

CALM: Final = 0.05
"""Seconds after an answer without news: polls of a missing prefix wake for every write to any key."""


async def watch(
    consul: Consul,
    keys: Keys,
    prefix: str,
    *,
    report: Callable[[RegistryError | None], None] = lambda _: None,
) -> AsyncIterator[Snapshot]:
    """Gives what stands below `prefix`, now and whenever it has changed, for ever.

    `report` hears of every answer (None: what was given last is still true) and of every error. A prefix that
    vanished or lost more than half of its entries is confirmed by the leader before it is given; one that is
    missing is given, empty, only while `$meta$` says that this is a registry.
    """
    last: Snapshot | None = None
    index = 0
    read_at = 0.0
    failures = 0
    while True:
        if time.monotonic() - read_at >= FULL_EVERY:
            index = 0
        try:
            snapshot = await _poll(consul, prefix, index)
            if _is_suspicious(snapshot, last):
                snapshot = await _confirmed(consul, keys, prefix)
        except RegistryError as error:
            report(error)
            index = 0
            await asyncio.sleep(_backoff(failures))
            failures += 1
            continue
        report(None)
        failures = 0
        if not index:
            read_at = time.monotonic()
        # A smaller index than before: Consul was restored, or started anew. Begin again.
        index = snapshot.index if snapshot.index >= index else 0
        if last is None or snapshot.entries != last.entries:
            yield snapshot
        else:
            await asyncio.sleep(CALM)
        last = snapshot


async def _poll(consul: Consul, prefix: str, index: int) -> Snapshot:
    """One answer from any server, or from the leader if that one has lost it."""
    snapshot = await consul.read(prefix, index=index, wait=WAIT, consistency="stale")
    if snapshot.known_leader and snapshot.last_contact <= STALE:
        return snapshot
    return await consul.read(prefix)


def _is_suspicious(snapshot: Snapshot, last: Snapshot | None) -> bool:
    """True for an answer that would take away everything or most of it."""
    if last is None:
        return snapshot.missing
    return 2 * len(snapshot.entries) < len(last.entries)


async def _confirmed(consul: Consul, keys: Keys, prefix: str) -> Snapshot:
    """What the leader says; RegistryError if nothing is left because the registry itself is gone."""
    snapshot = await consul.read(prefix, consistency="consistent")
    if snapshot.missing and await meta.read(consul, keys) is None:
        raise RegistryError(
            f"{prefix}: nothing there, and no {keys.meta} either: another root, a token that may not read, "
            "or a Consul that has lost its data"
        )
    return snapshot


def _backoff(failures: int) -> float:
    first, longest = BACKOFF
    return random.uniform(0, min(longest, first * 2 ** min(failures, 16)))  # noqa: S311 - spreads retries
