"""RADIUS clients: whose packets we take, with which secret, and what they may bind. Pure."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from radius_bridge.policy.members import Prefix

_T = TypeVar("_T")


class PrefixTable(Generic[_T]):
    """Values by network; the longest prefix wins. One dict per prefix length in use: 0.2 µs a look-up."""

    def __init__(self, entries: Iterable[tuple[Prefix, _T]]) -> None:
        by_length: dict[tuple[int, int], dict[int, _T]] = {}
        for prefix, value in entries:
            shift = (32 if prefix.version == 4 else 128) - prefix.length
            by_length.setdefault((prefix.version, shift), {})[prefix.number >> shift] = value
        self._tables = {
            version: [(shift, by_length[v, shift]) for v, shift in sorted(by_length) if v == version]
            for version in (4, 6)
        }

    def find(self, version: int, number: int) -> _T | None:
        """The value of the longest prefix around an address; None if there is none."""
        for shift, table in self._tables[version]:
            value = table.get(number >> shift)
            if value is not None:
                return value
        return None


class Networks:
    """A set of networks."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._table = PrefixTable((prefix, prefix) for prefix in prefixes)

    def __contains__(self, address: object) -> bool:
        """True if a single address (a Prefix) is in one of the networks."""
        return isinstance(address, Prefix) and self._table.find(address.version, address.number) is not None


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who may send us accounting: a NAS, or a proxy before many of them."""

    name: str
    address: Prefix
    """The address or network it sends from."""
    secret: bytes = field(repr=False)
    networks: Networks
    """The only addresses that it can bind or end."""
    realms: frozenset[str] | None = None
    """The only realms (lower case) of users that it can bind, the empty one for names without; None: any."""
    lease: int | None = None
    """Seconds that a binding lasts if the packet does not say; None: the default."""


class Clients:
    """All clients, found by where a packet comes from."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._table = PrefixTable((client.address, client) for client in clients)

    def find(self, family: int, host: str) -> Client | None:
        """The client that sends from `host` (numeric, of that address family); None for strangers."""
        number = int.from_bytes(socket.inet_pton(family, host))
        return self._table.find(4 if family == socket.AF_INET else 6, number)
