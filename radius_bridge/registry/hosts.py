"""What a host tells of itself at `$host$/<node>`: written by its agent, read by engineers. Pure."""

import msgspec

from radius_bridge.registry.errors import UNREADABLE, BadRecord

FRESH: float = 600.0
"""Seconds for which a record counts as fresh: its agent writes it again every few minutes."""

GONE: float = 2 * 86400.0
"""Seconds after which a host that tells nothing more is forgotten: the leading bridge removes its record."""


class Waiting(msgspec.Struct, frozen=True):
    """A change that the host holds back."""

    digest: str
    """What `radius-bridge confirm` names."""
    kind: str
    """`removal` or `opening`."""
    of: str
    """The service or override."""
    members: int
    since: float
    """Epoch seconds."""
    waits_for: str
    """`second read` or `confirm`."""


class HostRecord(msgspec.Struct, frozen=True):
    """What one host enforces, and how fresh that is."""

    at: float
    """When this was written, by the host's clock (epoch seconds)."""
    datacenter: str
    enforcing: str
    """`consul`: what Consul says; `restored`: what was so before a reboot; `nothing`."""
    applied: float = 0.0
    """When the kernel was last looked after (epoch seconds); 0 if never."""
    contact_age: float | None = None
    """Seconds since Consul last told how things are; None if it never did."""
    services: dict[str, int] = {}
    """How many are in each service that is enforced; if there are very many services, the first ones."""
    service_count: int = 0
    overrides: dict[str, int] = {}
    absent: tuple[str, ...] = ()
    """Services that are protected though nothing lists them any more."""
    held: tuple[Waiting, ...] = ()
    errors: dict[str, str] = {}
    """What is wrong, by where."""
    problem_count: int = 0
    """Keys and services that could not be understood."""
    alarm_count: int = 0
    limits: dict[str, float] = {}
    """What the host is near the limit of, and how much of it is in use (1 is all)."""
    refused: dict[str, int] = {}
    """Attempts to connect that were refused, by service (`refused:<short name>`, `denied`, `closed`)."""
    refused_from: dict[str, int] = {}
    """The addresses that were refused most often, as far as the kernel logged that."""
    repairs: dict[str, int] = {}
    """What somebody changed by hand in the kernel and was put back, by kind."""
    counters: dict[str, int] = {}

    @property
    def needs_help(self) -> bool:
        """True if a person should look at the host."""
        return bool(self.errors or self.held or self.limits) or self.enforcing != "consul"

    def is_fresh(self, now: float) -> bool:
        """True if the host told of itself lately; `now` is in epoch seconds."""
        return now - self.at <= FRESH


_decoder = msgspec.json.Decoder(HostRecord)
_encoder = msgspec.json.Encoder()


def encode(record: HostRecord) -> bytes:
    """The value kept in Consul."""
    return _encoder.encode(record)


def decode(key: str, value: bytes) -> HostRecord:
    """Reads a record. Raises BadRecord, naming the key, if the value is none."""
    try:
        return _decoder.decode(value)
    except UNREADABLE as error:
        raise BadRecord(f"{key}: no host record ({error})") from None
