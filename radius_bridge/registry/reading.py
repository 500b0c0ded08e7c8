"""Groups, grants and overrides out of what Consul holds. Pure: entries in, plain data and problems out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from radius_bridge.policy.expiry import NEVER, latest, parse_expiry
from radius_bridge.policy.members import GroupRef, Member
from radius_bridge.registry.keys import GrantKey, Keys, Scope

T = TypeVar("T")


class KeyValue(Protocol):
    """One entry of Consul's KV store."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> bytes: ...


@dataclass(slots=True)
class Reading(Generic[T]):
    """What a prefix says, and what in it could not be understood (and therefore grants nothing)."""

    data: T
    problems: list[str] = field(default_factory=list)


Groups = dict[GroupRef, dict[Member, float]]
"""Each group's members with their expiry (epoch seconds or NEVER)."""

Grants = dict[GrantKey, float]
"""Each grant's expiry (epoch seconds or NEVER)."""


def read_groups(keys: Keys, entries: Iterable[KeyValue]) -> Reading[Groups]:
    """Reads the entries below `keys.groups`."""
    reading: Reading[Groups] = Reading({})
    for entry in entries:
        if entry.key.endswith("/"):
            continue
        try:
            group, member = keys.read_group_member(entry.key)
        except ValueError as error:
            reading.problems.append(f"{entry.key}: {error}")
            continue
        expires = parse_expiry(entry.value)
        if expires is None:
            reading.problems.append(_no_expiry(entry))
            continue
        reading.data.setdefault(group, {})[member] = expires
    return reading


def read_grants(keys: Keys, entries: Iterable[KeyValue], *, deny: str = "") -> Reading[Grants]:
    """Reads the entries below `keys.services` or `keys.sets`.

    A member of the set `deny` whose value is no expiry is denied for good: garbage must not open.
    """
    reading: Reading[Grants] = Reading({})
    for entry in entries:
        if entry.key.endswith("/"):
            continue
        try:
            grant = keys.read_grant(entry.key)
        except ValueError as error:
            reading.problems.append(f"{entry.key}: {error}")
            continue
        expires = parse_expiry(entry.value)
        if expires is None:
            reading.problems.append(_no_expiry(entry))
            if grant.service != deny:
                continue
            expires = NEVER
        reading.data[grant] = expires
    return reading


def for_host(grants: Grants, scope: Scope) -> dict[str, dict[Member, float]]:
    """The members of each service (or set) on the host at `scope` (its datacenter and node).

    The three scopes add up; who is named in several has the latest end.
    """
    holds_here = {Scope(), Scope(scope.dc), scope}
    members: dict[str, dict[Member, float]] = {}
    for grant, expires in grants.items():
        if grant.scope in holds_here:
            known = members.setdefault(grant.service, {})
            known[grant.member] = latest(known[grant.member], expires) if grant.member in known else expires
    return members


def _no_expiry(entry: KeyValue) -> str:
    return f"{entry.key}: the value {entry.value[:40]!r} is no expiry (epoch seconds, -1 for never)"
