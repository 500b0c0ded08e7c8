"""What this host must enforce: the one thing that policy makes and the dataplane programs."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Ports, Service

ALLOW = "rules_allow"
"""The override whose members may reach everything on the host."""

DENY = "rules_deny"
"""The override whose members may reach nothing on the host; ALLOW comes before it."""


@dataclass(frozen=True, slots=True)
class Failsafe:
    """Networks that always reach these ports, whatever Consul says: the way back in."""

    networks: tuple[Prefix, ...]
    ports: tuple[Ports, ...]


class Target(StrEnum):
    """What becomes of packets from a custom set's members, on every port."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    NONE = "none"
    """The set is kept for other tools to use; no rule of ours mentions it."""

    @property
    def shuts_out(self) -> bool:
        """True if its members are kept out: then losing one of them would open."""
        return self in (Target.DROP, Target.REJECT)


class CustomSet(NamedTuple):
    """A set of the key space `$ipset$` besides the two overrides."""

    name: str
    target: Target


@dataclass(frozen=True, slots=True)
class Opening:
    """What stays open on a closed host."""

    networks: tuple[Prefix, ...]
    """Who; nobody named: everyone."""
    ports: tuple[Ports, ...]
    """Which ports; none named: everything, of any protocol."""


class RefusedLog(NamedTuple):
    """Refused connection attempts are told to userspace (NFLOG)."""

    group: int
    """Who listens to this group hears of them."""
    per_second: int
    """So many of each service at most; bursts may be twice as long."""


@dataclass(frozen=True, slots=True)
class Posture:
    """How this host is configured to act, whatever policy asks for."""

    sets: tuple[CustomSet, ...] = ()
    """In the order in which they are looked up: after the overrides, before the services."""
    closed: bool = False
    """Ports of no service are closed too, but for `openings`."""
    openings: tuple[Opening, ...] = ()
    observe: bool = False
    """Everything is looked up and counted, nothing is refused."""
    log: RefusedLog | None = None
    """None: nothing is logged."""

    def shuts_out(self, name: str) -> bool:
        """True for DENY and for custom sets that keep their members out."""
        return name == DENY or any(each.name == name and each.target.shuts_out for each in self.sets)


def fingerprint(failsafe: tuple[Failsafe, ...], posture: Posture) -> str:
    """What tells this part of a host's configuration from any other."""
    return hashlib.sha256(repr((failsafe, posture)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Desired:
    """The state of the host that policy asks for."""

    services: tuple[Service, ...]
    members: Mapping[str, Mapping[Prefix, float]]
    """Per service name, ALLOW, DENY and custom set: addresses and networks with their end (epoch seconds or NEVER)."""
    failsafe: tuple[Failsafe, ...] = ()
    posture: Posture = Posture()

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that has members here: the overrides, the custom sets, the services."""
        others = (*(each.name for each in self.posture.sets), *(each.name for each in self.services))
        return tuple(dict.fromkeys((ALLOW, DENY, *others)))

    def of(self, name: str) -> Mapping[Prefix, float]:
        """The members of one of `names`; what is not known yet has none."""
        return self.members.get(name, {})
