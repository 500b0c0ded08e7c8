"""How names are read: the bridge records it as configured, so that engineers' commands read them in the same way."""

import asyncio

import msgspec
import structlog

from radius_bridge.identity.names import Naming
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import UNREADABLE, BadRecord, RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op

AGAIN = 10.0
"""Seconds before recording is tried again."""

_log = structlog.get_logger()


async def read(consul: Consul, keys: Keys) -> Naming | None:
    """The rules that a bridge recorded; None if none did. Raises BadRecord, RegistryError."""
    entry = await consul.get(keys.names)
    if entry is None:
        return None
    try:
        return msgspec.json.decode(entry.value, type=Naming)
    except UNREADABLE as error:
        raise BadRecord(f"{keys.names}: no rules of names ({error})") from None


class NamingRecord:
    """Keeps the record as this bridge is configured: at its start, and whenever `set` says so."""

    def __init__(self, consul: Consul, keys: Keys, naming: Naming) -> None:
        self._consul = consul
        self._keys = keys
        self._naming = naming
        self._wake = asyncio.Event()

    def set(self, naming: Naming) -> None:
        """Records other rules."""
        self._naming = naming
        self._wake.set()

    async def run(self) -> None:
        """Records until cancelled; a Consul that is away is tried again."""
        while True:
            self._wake.clear()
            try:
                await self._record(self._naming)
            except RegistryError as error:
                _log.warning("rules of names not recorded yet", error=str(error))
                await asyncio.sleep(AGAIN)
            else:
                await self._wake.wait()

    async def _record(self, naming: Naming) -> None:
        try:
            found = await read(self._consul, self._keys)
        except BadRecord:
            found = None
        if found != naming:
            if found is not None:
                _log.warning("rules of names differ from those recorded: all bridges need the same [names]")
            await self._consul.transact([Op.set(self._keys.names, msgspec.json.encode(naming))])
