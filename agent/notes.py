"""What to know of a protected service whose port its host also sends from. Pure but for reading the kernel's range.

Membership is looked up before ESTABLISHED, so what comes to such a port is refused though it answers the host itself,
unless its peers are granted.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from radius_bridge.policy.services import Protocol, Service

RANGE: Final = (32768, 60999)
"""The kernel's default for net.ipv4.ip_local_port_range."""

SOURCES: Final = {
    123: "NTP",
    500: "IKE",
    3784: "BFD",
    4500: "IKE",
    4789: "VXLAN",
    5353: "mDNS",
    8301: "Serf",
    8302: "Serf",
    51820: "WireGuard",
}
"""UDP ports that both sides of a protocol use."""


def local_range(path: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> tuple[int, int]:
    """The first and the last port that this host takes for connections of its own."""
    try:
        first, last = map(int, path.read_text().split())
    except (OSError, ValueError):
        return RANGE
    return first, last


def about_ports(services: Iterable[Service], own: tuple[int, int]) -> list[str]:
    """One sentence for each service that needs its peers granted; `own` is as from local_range."""
    found = []
    for service in services:
        for ports in service.ports:
            both = [f"{port} ({name})" for port, name in SOURCES.items() if ports.first <= port <= ports.last]
            if ports.protocol is Protocol.UDP and both:
                found.append(f"{service.name}: both sides use {', '.join(both)}: grant the peers of this host too")
            elif ports.first <= own[1] and own[0] <= ports.last:
                found.append(
                    f"{service.name}: {ports} is among the ports {own[0]}-{own[1]} from which this host connects: "
                    "grant whom it connects to, or reserve it (net.ipv4.ip_local_reserved_ports)"
                )
    return found
