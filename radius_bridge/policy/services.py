"""Services: what a host offers, and on which ports. Pure; compatible with what BEFW's tools write."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """The transport of a port."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """A port or a range of ports, ends included."""

    protocol: Protocol
    first: int
    last: int

    def __str__(self) -> str:
        numbers = str(self.first) if self.first == self.last else f"{self.first}:{self.last}"
        return f"{numbers}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Service:
    """A protected service on this host. `name` is what grants name: `ssh_tcp_22`."""

    name: str
    ports: tuple[Ports, ...]
    origin: str = ""
    """Where the host learnt of it: a file's path, or `consul`."""


_PORTS = re.compile(r"(\d{1,5})(?:[:-](\d{1,5}))?(?:/(tcp|udp))?", re.IGNORECASE)


def parse_ports(text: str, protocol: Protocol = Protocol.TCP) -> Ports:
    """Reads `22`, `22/tcp`, `8080:8090/udp`. Raises ValueError for anything else."""
    match = _PORTS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no port: write 22, 22/tcp or 8080:8090/udp")
    first = int(match[1])
    last = int(match[2] or first)
    if not 0 < first <= last <= 65535:
        raise ValueError(f"{text!r}: ports go from 1 to 65535, the lower one first")
    return Ports(Protocol(match[3].lower()) if match[3] else protocol, first, last)


def service_name(identifier: str, ports: tuple[Ports, ...]) -> str:
    """The name that grants use: `<id>_<proto>_<first port>`, lower case, only `a-z 0-9 - . _` (as BEFW has it)."""
    plain = re.sub(r"[^a-z0-9._-]", "", identifier.lower())
    if not plain or not ports:
        raise ValueError(f"service {identifier!r} needs a name of letters and digits and at least one port")
    return f"{plain}_{ports[0].protocol}_{ports[0].first}"


TAG = "befw"
"""The tag that puts a Consul service under protection."""


def from_consul(identifier: str, port: int, tags: list[str]) -> Service | None:
    """The protected service behind an entry of the local Consul agent; None without the tag `befw`.

    Its own port comes first (udp if it has the tag `udp`), then the tags that are ports. Raises ValueError for a
    tagged service without a usable name or port.
    """
    if TAG not in tags:
        return None
    ports = [Ports(Protocol.UDP if "udp" in tags else Protocol.TCP, port, port)] if port else []
    ports += [parse_ports(tag) for tag in tags if _PORTS.fullmatch(tag.strip())]
    unique = tuple(dict.fromkeys(ports))
    return Service(service_name(identifier, unique), unique, origin="consul")


def from_file(content: object, path: str) -> Service:
    """The service described by a file in BEFW's JSON form (already parsed from JSON).

    `{"name": …, "protocol": "tcp", "port": 22, "ports": ["22/tcp", "8080:8090", {"port": 33, "protocol": "udp"}]}`;
    `port` or `ports` may be left out. Raises ValueError that names the key.
    """
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise ValueError('expected an object like {"name": "ssh", "ports": ["22/tcp"]}')
    protocol = _protocol(content.get("protocol", "tcp"))
    listed = content.get("ports") or []
    if not isinstance(listed, list):
        raise ValueError(f"ports: {listed!r} is no list")
    ports = [_port_entry(content["port"], protocol)] if content.get("port") else []
    ports += [_port_entry(entry, protocol) for entry in listed]
    unique = tuple(dict.fromkeys(ports))
    return Service(service_name(content["name"], unique), unique, origin=path)


def _protocol(value: object) -> Protocol:
    try:
        return Protocol(str(value).lower())
    except ValueError:
        raise ValueError(f"protocol: {value!r} is neither tcp nor udp") from None


def _port_entry(entry: object, protocol: Protocol) -> Ports:
    if isinstance(entry, dict):
        return _port_entry(entry.get("port"), _protocol(entry.get("protocol", protocol)))
    if isinstance(entry, bool) or not isinstance(entry, (int, str)):
        raise ValueError(f'ports: {entry!r} is no port: write 22, "22/tcp" or "8080:8090/udp"')
    return parse_ports(str(entry), protocol)
