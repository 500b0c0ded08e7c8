"""What this host must enforce: the one thing that policy makes and the dataplane programs."""

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Desired:
    """The state of the host that policy asks for."""

    services: tuple[Service, ...]
    members: Mapping[str, Mapping[Prefix, float]]
    """Per service name, ALLOW and DENY: addresses and networks with their end (epoch seconds or NEVER)."""
    failsafe: tuple[Failsafe, ...] = ()
