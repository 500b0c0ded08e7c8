"""The last good state as it is kept on disk: what this host enforces, line by line. Pure.

The first line is a header, then come members, a thousand a line, and at the end a line with the SHA-256 of all
before it. So a person can read it, and nobody needs it in memory as a whole.
"""

import hashlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import msgspec

from agent.desired import ALLOW, DENY, Desired, Failsafe, Posture
from radius_bridge.policy.expiry import NEVER, is_over
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.policy.services import Ports, Service, parse_ports
from radius_bridge.registry.keys import Scope

FORMAT: Final = 1
"""The version of the format that this program writes, and the newest that it reads."""

_WHAT: Final = "last good state of radius-bridge-agent"
_SLICE: Final = 1000


class StateError(ValueError):
    """This is no state that can be relied on; the message says why."""


@dataclass(frozen=True, slots=True)
class State:
    """What a host enforces. (The failsafe is not in it: the configuration file has it, and is read at boot too.)"""

    root: str
    """Everything of ours in Consul is below this key."""
    scope: Scope
    """The host's datacenter and node."""
    written: float
    """When this was so (epoch seconds)."""
    services: tuple[Service, ...]
    members: Mapping[str, Mapping[Prefix, float]]
    """Per service, ALLOW, DENY and custom set: addresses and networks with their end (epoch seconds or NEVER)."""
    absent: Mapping[str, float]
    """Services that no source lists any more: since when (epoch seconds)."""
    looked: float
    """When the sources of services were last looked at (epoch seconds)."""
    fingerprint: str = ""
    """That of the failsafe and the posture that were in force; empty if an older agent wrote this."""

    def desired(self, failsafe: tuple[Failsafe, ...], posture: Posture, now: float) -> Desired:
        """What is to be enforced of this at `now` (epoch seconds): what is over is left out."""
        wanted = Desired(self.services, {}, failsafe, posture)
        return replace(wanted, members={name: self.live(name, now) for name in wanted.names})

    def live(self, name: str, now: float) -> dict[Prefix, float]:
        """The members of a service or override that are not over at `now` (epoch seconds)."""
        return {prefix: end for prefix, end in self.members.get(name, {}).items() if not is_over(end, now)}


class _Header(msgspec.Struct, frozen=True):
    what: str
    format: int
    root: str
    dc: str
    node: str
    written: float
    looked: float
    services: dict[str, tuple[list[str], str]]
    """Name → ports, origin."""
    absent: dict[str, float]
    sets: tuple[str, ...] = ()
    """Custom sets."""
    fingerprint: str = ""


class _Kind(msgspec.Struct, frozen=True):
    what: str
    format: int


class _Members(msgspec.Struct, frozen=True):
    of: str
    members: dict[str, float]


class _End(msgspec.Struct, frozen=True):
    sha256: str


_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)

_encode = msgspec.json.Encoder().encode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_header = msgspec.json.Decoder(_Header).decode
_decode_members = msgspec.json.Decoder(_Members).decode
_decode_end = msgspec.json.Decoder(_End).decode


def encode(state: State) -> Iterator[bytes]:
    """The lines of a state."""
    digest = hashlib.sha256()
    for record in _records(state):
        line = _encode(record) + b"\n"
        digest.update(line)
        yield line
    yield _encode(_End(digest.hexdigest())) + b"\n"


def decode(content: bytes) -> State:
    """Reads a state. Raises StateError if it is none, is damaged or incomplete, or was written by a newer agent."""
    header_line, _, _ = content.partition(b"\n")
    try:
        kind = _decode_kind(header_line)
    except _UNREADABLE:
        raise StateError("no state of an agent") from None
    if kind.what != _WHAT:
        raise StateError("no state of an agent")
    if kind.format != FORMAT:
        raise StateError(f"format {kind.format}; this agent knows {FORMAT}")
    end = content.rfind(b"\n", 0, -1) + 1
    try:
        told = _decode_end(content[end:]).sha256 if content.endswith(b"\n") else ""
    except _UNREADABLE:
        told = ""
    if not told:
        raise StateError("its end is missing")
    if told != hashlib.sha256(memoryview(content)[:end]).hexdigest():
        raise StateError("damaged: the checksum differs")
    try:
        header = _decode_header(header_line)
        members: dict[str, dict[Prefix, float]] = {name: {} for name in (ALLOW, DENY, *header.sets, *header.services)}
        for line in content[len(header_line) + 1 : end].splitlines():
            lot = _decode_members(line)
            members[lot.of].update(
                (_prefix(text), NEVER if until < 0 else until) for text, until in lot.members.items()
            )
        return State(
            header.root,
            Scope(header.dc, header.node),
            header.written,
            tuple(
                Service(name, tuple(map(parse_ports, ports)), origin)
                for name, (ports, origin) in header.services.items()
            ),
            members,
            header.absent,
            header.looked,
            header.fingerprint,
        )
    except (*_UNREADABLE, KeyError) as error:
        raise StateError(f"cannot be read ({error})") from None


def _records(state: State) -> Iterator[msgspec.Struct]:
    services = {each.name: (_texts(each.ports), each.origin) for each in state.services}
    scope = state.scope
    sets = tuple(name for name in state.members if name not in (ALLOW, DENY, *services))
    yield _Header(
        _WHAT,
        FORMAT,
        state.root,
        scope.dc,
        scope.node,
        state.written,
        state.looked,
        services,
        dict(state.absent),
        sets,
        state.fingerprint,
    )
    for name, members in state.members.items():
        rest = iter(members.items())
        while lot := {_text(prefix): end for prefix, end in islice(rest, _SLICE)}:
            yield _Members(name, lot)


def _texts(ports: Iterable[Ports]) -> list[str]:
    return [str(each) for each in ports]


def _text(prefix: Prefix) -> str:
    """As `str`, in a fifth of the time."""
    if prefix.version == 4:
        address = socket.inet_ntop(socket.AF_INET, prefix.number.to_bytes(4))
    else:
        address = socket.inet_ntop(socket.AF_INET6, prefix.number.to_bytes(16))
    return address if prefix.is_host else f"{address}/{prefix.length}"


def _prefix(text: str) -> Prefix:
    """As `parse_prefix`; single addresses of IPv4, which are many, in a fifth of the time."""
    if ":" in text or "/" in text:
        return parse_prefix(text)
    return Prefix(4, int.from_bytes(socket.inet_pton(socket.AF_INET, text)), 32)
