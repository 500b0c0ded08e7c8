"""The records kept in Consul, and the operations that take a binding from one state to the next. Pure."""

from functools import lru_cache
from typing import TypeVar

import msgspec

from radius_bridge.identity.bindings import Binding
from radius_bridge.identity.events import NOBODY, Restart
from radius_bridge.identity.sessions import Session
from radius_bridge.policy.expiry import format_expiry
from radius_bridge.policy.members import GroupRef, user_group
from radius_bridge.registry.errors import UNREADABLE, BadRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op

SCHEMA = 1
"""The version of the key space that this program reads and writes."""

T = TypeVar("T")


class Meta(msgspec.Struct, frozen=True):
    """The sentinel: where it is missing, an empty answer is a fault and not the truth."""

    schema: int
    generation: str
    """Tells one life of the registry from the next: drawn at random when the sentinel is first written."""


class Restarted(msgspec.Struct, frozen=True, gc=False):
    """When a NAS restarted last: `at` by its own clock, `heard` by ours (epoch seconds)."""

    at: float
    heard: float


_binding_decoder = msgspec.json.Decoder(Binding)
_session_decoder = msgspec.json.Decoder(Session)
_restart_decoder = msgspec.json.Decoder(Restarted)
_meta_decoder = msgspec.json.Decoder(Meta)
_encoder = msgspec.json.Encoder()


def encode(record: Binding | Session | Restarted | Meta) -> bytes:
    """The value kept in Consul for a record."""
    return _encoder.encode(record)


def decode_binding(key: str, value: bytes) -> Binding:
    """Reads a binding. Raises BadRecord, naming the key, if the value is none."""
    return _decoded(_binding_decoder, key, value, "binding")


def decode_session(key: str, value: bytes) -> Session:
    """Reads a session. Raises BadRecord, naming the key, if the value is none."""
    return _decoded(_session_decoder, key, value, "session")


def decode_restart(keys: Keys, key: str, value: bytes) -> Restart:
    """Reads a restart. Raises BadRecord, naming the key, if that or the value is none."""
    source, slash, nas = key.removeprefix(keys.restarts).partition("/")
    if not slash:
        raise BadRecord(f"{key}: names no client and NAS")
    found = _decoded(_restart_decoder, key, value, "restart")
    return Restart(source, nas, found.at, found.heard)


def decode_meta(key: str, value: bytes) -> Meta:
    """Reads the sentinel. Raises BadRecord, naming the key, if the value is none or of another schema."""
    meta = _decoded(_meta_decoder, key, value, "meta")
    if meta.schema != SCHEMA:
        raise BadRecord(f"{key}: schema {meta.schema}; this program knows {SCHEMA}: update it")
    return meta


def changes(keys: Keys, address: str, before: Binding, after: Binding, index: int, now: float) -> list[Op]:
    """The operations that take the record of `address` from `before` (whose modify index is `index`) to `after`.

    In one transaction they move the address between the groups of its users. Who had it last leaves it though his time
    is over: not all clocks agree on that. What else has expired is left to the sweeper.
    """
    old, new = members(keys, address, before, 0.0), members(keys, address, after, now)
    ops = [Op.cas(keys.binding(address), _encoder.encode(after), index)]
    ops += [Op.delete(key) for key in old if key not in new]
    ops += [Op.set(key, value) for key, value in new.items() if old.get(key) != value]
    return ops


def members(keys: Keys, address: str, binding: Binding, now: float) -> dict[str, bytes]:
    """The group members that stand for a binding: key and expiry."""
    if not binding.claims:
        return {}
    holding = binding.holding(now)
    if not holding.user:
        return {}
    groups = {}
    if holding.user != NOBODY:
        groups[keys.group_member(_user_group(holding.user), address)] = format_expiry(holding.expires)
    for group, expires in holding.groups.items():
        groups[keys.group_member(GroupRef(group), address)] = format_expiry(expires)
    return groups


def everybodys(keys: Keys, address: str, binding: Binding, now: float) -> dict[str, bytes | None]:
    """What stands for a binding, and what does no longer of those who once claimed its address (None: gone)."""
    left: dict[str, bytes | None] = {}
    for claim in binding.claims.values():
        if claim.user not in ("", NOBODY):
            left[keys.group_member(_user_group(claim.user), address)] = None
        left |= {keys.group_member(GroupRef(group), address): None for group in claim.groups}
    return left | members(keys, address, binding, now)


_user_group = lru_cache(maxsize=16384)(user_group)


def _decoded(decoder: msgspec.json.Decoder[T], key: str, value: bytes, what: str) -> T:
    try:
        return decoder.decode(value)
    except UNREADABLE as error:
        raise BadRecord(f"{key}: no {what} record ({error})") from None
