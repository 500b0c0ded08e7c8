"""Which datacenters have the registry: Consul copies no key from one to another, so each writer must know.

The bridge is configured with them (`[datacenters] copies`) and says so at `$datacenters$` in each; engineers' commands
read it there.
"""

from typing import Self

import msgspec

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import UNREADABLE, BadRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op


class Datacenters(msgspec.Struct, frozen=True):
    """Where hosts read what they enforce."""

    home: str
    """The datacenter in which bridges record; what is committed there is acknowledged."""
    copies: tuple[str, ...] = ()
    """Datacenters that get a copy of its users' groups."""

    @property
    def all(self) -> tuple[str, ...]:
        """Home first."""
        return (self.home, *self.copies)

    def op(self, keys: Keys) -> Op:
        """The operation that records this."""
        return Op.set(keys.datacenters, msgspec.json.encode(self))

    @classmethod
    def decode(cls, key: str, value: bytes) -> Self:
        """Reads the record. Raises BadRecord, naming the key, if the value is none."""
        try:
            return msgspec.json.decode(value, type=cls)
        except UNREADABLE as error:
            raise BadRecord(f"{key}: no list of datacenters ({error})") from None


async def read(consul: Consul, keys: Keys) -> Datacenters | None:
    """What the bridge said; None if no bridge has said anything. Raises BadRecord, RegistryError."""
    entry = await consul.get(keys.datacenters)
    return None if entry is None else Datacenters.decode(entry.key, entry.value)
