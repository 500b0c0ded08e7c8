"""What Consul answers, read: bodies of its HTTP API into plain data. Pure, but that large ones are read in slices."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from radius_bridge.registry.errors import UNREADABLE, RegistryError
from radius_bridge.registry.kv import Entry, Op

_SLICE: Final = 256 * 1024
"""Octets that are decoded at once: about 2 ms of work."""

_T = TypeVar("_T")


class TxnOp(msgspec.Struct):
    kv: Op = msgspec.field(name="KV")


class TxnResult(msgspec.Struct):
    kv: Entry = msgspec.field(name="KV")


class TxnError(msgspec.Struct, rename="pascal"):
    op_index: int
    what: str


class TxnAnswer(msgspec.Struct, rename="pascal"):
    results: list[TxnResult] | None = None
    errors: list[TxnError] | None = None


class AgentConfig(msgspec.Struct, rename="pascal"):
    node_name: str
    datacenter: str


class AgentSelf(msgspec.Struct, rename="pascal"):
    config: AgentConfig


class AgentService(msgspec.Struct, frozen=True, rename="pascal"):
    """A service registered with the local Consul agent."""

    id: str = msgspec.field(name="ID")
    service: str
    tags: tuple[str, ...] | None = None
    port: int = 0
    address: str = ""


encode: Final = msgspec.json.Encoder().encode
decode_entries: Final = msgspec.json.Decoder(tuple[Entry, ...]).decode
decode_keys: Final = msgspec.json.Decoder(tuple[str, ...]).decode
decode_txn: Final = msgspec.json.Decoder(TxnAnswer).decode
decode_self: Final = msgspec.json.Decoder(AgentSelf).decode
decode_services: Final = msgspec.json.Decoder(dict[str, AgentService]).decode


def decoded(decode: Callable[[bytes], _T], body: bytes, what: str) -> _T:
    """What `decode` makes of `body`. Raises RegistryError, naming `what`, if it is not that."""
    try:
        return decode(body)
    except UNREADABLE as error:
        raise RegistryError(f"{what}: Consul's answer cannot be read ({error})") from error


async def entries(body: bytes, what: str) -> tuple[Entry, ...]:
    """The entries in an answer; a large one is read in slices, so that other work goes on between them."""
    # No key can look like the end of an entry and the beginning of the next one: quotes in a key are escaped.
    return await _in_slices(decode_entries, body, b'},{"LockIndex"', what)


async def keys(body: bytes, what: str) -> tuple[str, ...]:
    """The keys below the prefix `what` in an answer, in slices likewise."""
    # A key may end with a quote and a comma; after its own end never comes how a key begins.
    return await _in_slices(decode_keys, body, b'","%b' % what[:1].encode(), what)


async def _in_slices(
    decode: Callable[[bytes], tuple[_T, ...]], body: bytes, between: bytes, what: str
) -> tuple[_T, ...]:
    """Decodes an array; `between` is a first octet of one element's end, a comma, and how the next one begins."""
    if len(body) <= _SLICE:
        return decoded(decode, body, what)
    found: list[_T] = []
    start = body.find(b"[") + 1
    while start:
        cut = body.find(between, start + _SLICE)
        end = cut + 1 if cut >= 0 else body.rfind(b"]")
        found += decoded(decode, b"[%b]" % body[start:end], what)
        start = cut + 2 if cut >= 0 else 0
        await asyncio.sleep(0)
    return tuple(found)
