"""What the agent knows at a moment, put together into what the host must enforce. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.desired import DENY, Desired, Failsafe, desired
from radius_bridge.policy.services import Service
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.reading import (
    Grants,
    Groups,
    KeyValue,
    Reading,
    for_host,
    read_grants,
    read_groups,
)


@dataclass(slots=True)
class View:
    """The newest of everything that decides; None where nothing was read yet."""

    keys: Keys
    scope: Scope
    failsafe: tuple[Failsafe, ...] = ()
    services: tuple[Service, ...] | None = None
    service_problems: tuple[str, ...] = ()
    groups: Reading[Groups] | None = None
    grants: Reading[Grants] | None = None
    sets: Reading[Grants] | None = None

    def learn(self, prefix: str, entries: Iterable[KeyValue]) -> None:
        """Takes everything that Consul holds below one of `keys.groups`, `keys.services`, `keys.sets`."""
        if prefix == self.keys.groups:
            self.groups = read_groups(self.keys, entries)
        elif prefix == self.keys.services:
            self.grants = read_grants(self.keys, entries)
        else:
            self.sets = read_grants(self.keys, entries, deny=DENY)

    def missing(self) -> list[str]:
        """What has not been read yet; while there is any, nothing may be programmed."""
        known = {"services": self.services, "groups": self.groups, "grants": self.grants, "sets": self.sets}
        return [name for name, value in known.items() if value is None]

    def desired(self, now: float) -> Desired | None:
        """What the host must enforce at `now` (epoch seconds); None while something is missing."""
        if self.services is None or self.groups is None or self.grants is None or self.sets is None:
            return None
        return desired(
            self.services,
            for_host(self.grants.data, self.scope),
            for_host(self.sets.data, self.scope),
            self.groups.data,
            self.failsafe,
            now,
        )

    def problems(self) -> list[str]:
        """What could not be understood, and therefore grants nothing."""
        readings = (self.groups, self.grants, self.sets)
        return [
            *self.service_problems,
            *(p for reading in readings if reading is not None for p in reading.problems),
        ]
