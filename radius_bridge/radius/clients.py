"""RADIUS clients: whose packets we take, with which secret, and what they may bind. Pure."""

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

    def find(self, version: int, number: int, host_bits: int = 0) -> _T | None:
        """The value of the longest prefix around an address, or around a network with so many host bits."""
        for shift, table in self._tables[version]:
            value = table.get(number >> shift)
            if value is not None and shift >= host_bits:
                return value
        return None


class Networks:
    """A set of networks."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._prefixes = tuple(prefixes)
        self._table = PrefixTable((prefix, prefix) for prefix in self._prefixes)

    def __contains__(self, address: object) -> bool:
        """True if an address or a network (a Prefix) is, all of it, in one of the networks."""
        if not isinstance(address, Prefix):
            return False
        version, number, length = address
        return self._table.find(version, number, (32 if version == 4 else 128) - length) is not None

    def touch(self, address: Prefix) -> bool:
        """True if any of an address or a network is in one of the networks."""
        return address in self or (
            not address.is_host and any(prefix in Networks((address,)) for prefix in self._prefixes)
        )


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who may send us accounting: a NAS, or a proxy before many of them.

    It is known by one of three: where its datagrams come from, or the name or the fingerprint of the certificate
    that it shows over TLS.
    """

    name: str
    address: Prefix | None
    """The address or network it sends from."""
    secret: bytes = field(repr=False)
    networks: Networks
    """The only addresses that it can bind or end."""
    realms: frozenset[str] | None = None
    """The only realms (lower case) of users that it can bind, the empty one for names without; None: any."""
    lease: int | None = None
    """Seconds that a binding lasts if the packet does not say; None: the default."""
    certificate_name: str | None = None
    """A DNS name (lower case) of its certificate."""
    fingerprint: bytes | None = None
    """SHA-256 of its certificate (DER)."""


class Clients:
    """All clients."""

    def __init__(self, clients: Iterable[Client]) -> None:
        every = list(clients)
        self._by_address = PrefixTable((each.address, each) for each in every if each.address is not None)
        self._by_name = {each.certificate_name: each for each in every if each.certificate_name is not None}
        self._named = {each.name: each for each in every}
        self._by_fingerprint = {each.fingerprint: each for each in every if each.fingerprint is not None}

    def at(self, version: int, number: int) -> Client | None:
        """The client that sends from the address `number` of that IP version; None for strangers."""
        return self._by_address.find(version, number)

    def named(self, name: str) -> Client | None:
        """The client of that name."""
        return self._named.get(name)

    def with_certificate(self, fingerprint: bytes, names: Iterable[str]) -> Client | None:
        """The client with this certificate: by its fingerprint, else by the first of its names that is known."""
        found = self._by_fingerprint.get(fingerprint)
        if found is not None:
            return found
        return next((self._by_name[name] for name in names if name in self._by_name), None)
