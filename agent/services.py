"""Which services this host protects: those of its Consul agent and those in its service files."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from radius_bridge.policy.services import Ports, Service, from_consul, from_file
from radius_bridge.registry.answers import AgentService

FORGET_AFTER = 86400.0
"""A service that is gone for this long (seconds) is no longer protected; until then its rules stay.

An empty Consul data directory, or a file that is being replaced, must not open ports.
"""

PAUSE = 60.0
"""Seconds between two looks from which on nobody has looked in between."""

MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """What one look at a source found."""

    services: tuple[Service, ...]
    problems: tuple[str, ...] = ()
    unreadable: frozenset[str] = frozenset()
    """Origins (files, or the directory of files) that could not be read this time; their services count as present."""


def find_in_consul(listed: Mapping[str, AgentService]) -> Found:
    """The protected services among those of the local Consul agent (by service ID)."""
    services, problems = [], []
    for identifier, entry in listed.items():
        try:
            service = from_consul(identifier, entry.port, list(entry.tags or ()))
        except ValueError as error:
            problems.append(f"Consul service {identifier}: {error}")
        else:
            if service is not None:
                services.append(service)
    return Found(tuple(services), tuple(problems))


def find_in_files(directory: Path) -> Found:
    """The services in the *.json files of a directory; one that does not exist has none."""
    services, problems, unreadable = [], [], set()
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".json")
    except FileNotFoundError:
        return Found(())
    except OSError as error:
        problem = f"{directory}: cannot be read ({error.strerror})"
        return Found((), (problem,), frozenset({str(directory)}))
    for path in paths:
        # Some file names are no text, and what cannot be encoded could not be kept on disk.
        origin = os.fsencode(path).decode(errors="backslashreplace")
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE + 1)
            if len(content) > MAX_FILE:
                raise ValueError("larger than 1 MiB")
            services.append(from_file(json.loads(content), origin))
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f"{origin}: {error}".replace(str(path), origin))
            unreadable.add(origin)
    return Found(tuple(services), tuple(problems), frozenset(unreadable))


@dataclass(slots=True)
class Protected:
    """The services under protection, and since when some are listed no more. Pure: the time is an argument."""

    services: dict[str, Service] = field(default_factory=dict)
    absent: dict[str, float] = field(default_factory=dict)
    """Services that are protected although no source lists them any more: since when (epoch seconds)."""
    looked: float = 0.0
    """When `update` was last called (epoch seconds)."""

    def update(self, found: Iterable[Found], now: float) -> tuple[Service, ...]:
        """Takes one look at all sources (epoch seconds) and gives what to protect, by name.

        Services of one name from several sources are one service with all their ports. Time in which nobody looked
        is no absence: neither a host that was off nor a Consul that could not be asked says that a service is gone.
        """
        looks = list(found)
        if self.looked and not 0 <= now - self.looked <= PAUSE:
            self.absent = {name: since + now - self.looked for name, since in self.absent.items()}
        self.looked = now
        seen: dict[str, Service] = {}
        for service in (service for look in looks for service in look.services):
            seen[service.name] = _together(service, seen.get(service.name))
        if unreadable := frozenset[str]().union(*(look.unreadable for look in looks)):
            # Whatever could not be read may name more ports of the same service: meanwhile none is lost.
            seen = {name: _together(service, self.services.get(name)) for name, service in seen.items()}
            for name, service in self.services.items():
                if name not in seen and not unreadable.isdisjoint((service.origin, str(Path(service.origin).parent))):
                    seen[name] = service
        for name, service in seen.items():
            self.services[name] = service
            self.absent.pop(name, None)
        for name in self.services.keys() - seen.keys():
            if self.absent.setdefault(name, now) + FORGET_AFTER <= now:
                del self.services[name], self.absent[name]
        return self.listed()

    def listed(self) -> tuple[Service, ...]:
        """What to protect, by name."""
        return tuple(self.services[name] for name in sorted(self.services))

    def forget(self, name: str) -> None:
        """Protects an absent service no longer. Raises ValueError, saying why not, for any other."""
        if name not in self.services:
            absent = ", ".join(sorted(self.absent)) or "none"
            raise ValueError(f"{name!r} is not protected here; services that are listed no more: {absent}")
        if name not in self.absent:
            raise ValueError(f"{name} is still listed ({self.services[name].origin}): take it away there first")
        del self.services[name], self.absent[name]


def _together(service: Service, other: Service | None) -> Service:
    """The service with the ports of the other one, too."""
    ports: tuple[Ports, ...] = tuple(dict.fromkeys((*(other.ports if other else ()), *service.ports)))
    return Service(service.name, ports, service.origin)
