"""Reads a large folder in parts: no answer is so large that Consul, or our event loop, has no time for a login.

A reading of 100,000 keys at once is 21 MB: up to half a second of one of Consul's cores, and as long again here.
"""

import asyncio
import re
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from radius_bridge.registry.consul import Consistency, Consul
from radius_bridge.registry.kv import Entry

PART: Final = 2000
"""Keys that are read at once, at most (some 10 ms of work for Consul, and as much here)."""

_T = TypeVar("_T")


class Part(NamedTuple):
    """Neighbours in a listing: all keys that begin with `prefix`, or just the key that is `prefix`."""

    prefix: str
    alone: bool
    first: int
    """The place of the first one in the listing."""
    end: int
    """That of the one after the last."""


def parts(folder: str, keys: Sequence[str], limit: int = PART) -> Iterator[Part]:
    """Cuts a listing of all keys of `folder`, in their order, into parts of up to `limit` keys each. Pure."""
    start = 0
    while start < len(keys):
        key = keys[start]
        # Long enough to leave out the neighbours before it, and some of the next `limit` ones.
        length = len(folder)
        if start:
            length = max(length, _shared(key, keys[start - 1]) + 1)
        if start + limit < len(keys):
            length = max(length, _shared(key, keys[start + limit]) + 1)
        alone = length > len(key)  # what follows begins with all of it: a folder that is a key, for one
        prefix = key[:length]
        end = start + 1 if alone else bisect_left(keys, True, start, key=lambda each: not each.startswith(prefix))
        yield Part(prefix, alone, start, end)
        start = end


async def read_parts(
    consul: Consul,
    folder: str,
    keys: Sequence[str],
    *,
    spread: float,
    wanted: Callable[[str], bool] = lambda _: True,
    limit: int = PART,
    consistency: Consistency = "default",
) -> AsyncIterator[tuple[Entry, ...]]:
    """Reads what `keys`, a listing of all of `folder`, stands for, over about `spread` seconds.

    Parts without any `wanted` key are left out. What came after the listing may be among the entries, and one may come
    twice. Raises RegistryError.
    """
    began = time.monotonic()
    for part in parts(folder, keys, limit):
        if not any(wanted(keys[place]) for place in range(part.first, part.end)):
            continue
        due = began + spread * part.first / len(keys)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if part.alone:
            found = await consul.get_many([part.prefix], consistent=consistency == "consistent")
            yield tuple(found.values())  # whose keys are in no URL
        else:
            yield (await consul.read(_plain(part.prefix), consistency=consistency)).entries


def slices(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """The items, up to `size` of them at a time: for what is to be done between two turns of the event loop."""
    return (items[start : start + size] for start in range(0, len(items), size))


async def gently(items: Iterable[_T], size: int) -> AsyncIterator[_T]:
    """The items, with a turn of the event loop for others after every `size` of them."""
    for place, item in enumerate(items, 1):
        yield item
        if not place % size:
            await asyncio.sleep(0)


def _shared(one: str, other: str) -> int:
    """How many characters two keys have in common at their beginning."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _plain(prefix: str) -> str:
    """The prefix, or as much of it as a URL can say: `//`, `/./` and `/../` do not arrive as they are."""
    odd = re.search(r"/(/|\.{1,2}(/|$))", prefix)
    return prefix[: odd.start() + 1] if odd else prefix
