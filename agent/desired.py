"""What this host must enforce: the one thing the watch makes and the dataplane programs. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from radius_bridge.policy.members import GroupRef, Prefix
from radius_bridge.policy.resolve import Members, resolve
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


def desired(
    services: Iterable[Service],
    grants: Mapping[str, Members],
    sets: Mapping[str, Members],
    groups: Mapping[GroupRef, Members],
    failsafe: Iterable[Failsafe],
    now: float,
) -> Desired:
    """Resolves what this host must enforce at `now` (epoch seconds).

    `grants` holds each service's members and `sets` the overrides' (ALLOW, DENY), both merged over the scopes
    of this host. A service without grants has no members; grants of services that are not here are left out.
    """
    protected = tuple(sorted(services, key=lambda service: service.name))
    members = {service.name: resolve(grants.get(service.name, {}), groups, now) for service in protected}
    for override in (ALLOW, DENY):
        members[override] = resolve(sets.get(override, {}), groups, now)
    return Desired(protected, members, tuple(failsafe))
