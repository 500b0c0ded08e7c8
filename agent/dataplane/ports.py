"""Ports of several services together: without overlaps, and cut where they overlap. Pure."""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from radius_bridge.policy.services import Ports, Protocol, Service


def union(ports: Iterable[Ports]) -> list[Ports]:
    """The same ports without overlaps, each protocol's in order."""
    merged: list[Ports] = []
    for each in sorted(ports):
        last = merged[-1] if merged else None
        if last and last.protocol == each.protocol and each.first <= last.last + 1:
            merged[-1] = Ports(last.protocol, last.first, max(last.last, each.last))
        else:
            merged.append(each)
    return merged


class Segment(NamedTuple):
    """Ports that belong to the same services."""

    ports: Ports
    services: tuple[str, ...]
    """Their names, in order."""


def segments(services: Iterable[Service]) -> list[Segment]:
    """Cuts the ports of all services into pieces without overlaps, in order; each port is in one of them."""
    owned = sorted((ports, service.name) for service in services for ports in union(service.ports))
    found: list[Segment] = []
    for protocol in Protocol:
        mine = [(ports, name) for ports, name in owned if ports.protocol is protocol]
        edges = sorted({edge for ports, _ in mine for edge in (ports.first, ports.last + 1)})
        opening, active = 0, dict[str, int]()
        for first, after in pairwise(edges):
            while opening < len(mine) and mine[opening][0].first == first:
                active[mine[opening][1]] = mine[opening][0].last
                opening += 1
            active = {name: last for name, last in active.items() if last >= first}
            if active:
                found.append(Segment(Ports(protocol, first, after - 1), tuple(sorted(active))))
    return found
