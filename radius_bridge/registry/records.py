"""The records kept in Consul, and the operations that an event makes of them. Pure."""

from collections.abc import Sequence

import msgspec

from radius_bridge.identity.bindings import Binding
from radius_bridge.policy.expiry import format_expiry
from radius_bridge.policy.members import Prefix, user_group
from radius_bridge.registry.errors import BadRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op

SCHEMA = 1
"""The version of the key space that this program reads and writes."""


class Meta(msgspec.Struct, frozen=True):
    """The sentinel: where it is missing, an empty answer is a fault and not the truth."""

    schema: int
    generation: str
    """Tells one life of the registry from the next: drawn at random when the sentinel is first written."""


_binding_decoder = msgspec.json.Decoder(Binding)
_meta_decoder = msgspec.json.Decoder(Meta)
_encoder = msgspec.json.Encoder()


def encode(record: Binding | Meta) -> bytes:
    """The value kept in Consul for a record."""
    return _encoder.encode(record)


def decode_binding(key: str, value: bytes) -> Binding:
    """Reads a binding. Raises BadRecord, naming the key, if the value is none."""
    try:
        return _binding_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRecord(f"{key}: no binding record ({error})") from None


def decode_meta(key: str, value: bytes) -> Meta:
    """Reads the sentinel. Raises BadRecord, naming the key, if the value is none or of another schema."""
    try:
        meta = _meta_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRecord(f"{key}: no meta record ({error})") from None
    if meta.schema != SCHEMA:
        raise BadRecord(f"{key}: schema {meta.schema}; this program knows {SCHEMA}: update it")
    return meta


def changes(keys: Keys, address: Prefix, before: Binding, after: Binding, index: int) -> list[Op]:
    """The operations that take the record of `address` from `before` (whose modify index is `index`) to `after`.

    In one transaction they move the address between the groups of its users. If nothing changes, what is left
    is to check that `before` still holds: an answer given on it must be true though other bridges write too.
    """
    key = keys.binding(address)
    if after == before:
        return [Op.check(key, index)]
    ops = [Op.cas(key, encode(after), index)]
    if before.owner and before.owner != after.owner:
        ops.append(Op.delete(keys.group_member(user_group(before.owner), address)))
    if after.owner:
        ops.append(Op.set(keys.group_member(user_group(after.owner), address), format_expiry(after.expires)))
    return ops


def members(keys: Keys, address: Prefix, after: Binding, ops: Sequence[Op]) -> dict[str, bytes | None]:
    """The group members that `ops` (made by `changes`) left, by key; None: gone.

    If `ops` changed nothing: what stands there, and what is no longer there of those who once claimed the address.
    """
    if ops[0].writes:
        return {op.key: op.value if op.verb == "set" else None for op in ops[1:]}
    left: dict[str, bytes | None] = {
        keys.group_member(user_group(claim.user), address): None for claim in after.claims.values()
    }
    if after.owner:
        left[keys.group_member(user_group(after.owner), address)] = format_expiry(after.expires)
    return left
