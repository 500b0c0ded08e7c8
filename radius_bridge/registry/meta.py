"""The sentinel `$meta$`: written once, so that readers can tell an empty registry from a lost one."""

import uuid
from contextlib import suppress

from radius_bridge.registry.consul import Consistency, Consul
from radius_bridge.registry.errors import Conflict, RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.records import SCHEMA, Meta, decode_meta, encode


async def ensure(consul: Consul, keys: Keys) -> Meta:
    """Writes the sentinel if there is none yet, and returns the one that is there.

    Raises BadRecord if it is of another schema, RegistryError if Consul cannot be asked.
    """
    found = await read(consul, keys)
    if found is None:
        with suppress(Conflict):  # somebody else was first
            await consul.transact([Op.cas(keys.meta, encode(Meta(SCHEMA, uuid.uuid4().hex)), 0)])
        found = await read(consul, keys)
    if found is None:
        raise RegistryError(f"{keys.meta}: it was written and is not there")
    return found


async def read(consul: Consul, keys: Keys, *, consistency: Consistency = "consistent") -> Meta | None:
    """The sentinel; None if there is none. Raises BadRecord, RegistryError."""
    entry = await consul.get(keys.meta, consistency=consistency)
    return None if entry is None else decode_meta(entry.key, entry.value)


async def expect(consul: Consul, keys: Keys, missing: str) -> Meta:
    """The sentinel, after Consul said that there is nothing at `missing`: then that can be believed.

    Raises RegistryError if there is none: the registry itself is gone, or hidden.
    """
    found = await read(consul, keys)
    if found is None:
        raise RegistryError(
            f"{missing}: nothing there, and no {keys.meta} either: another root, a token that may not read, "
            "or a Consul that has lost its data"
        )
    return found
