"""Announcements of a writer that lives for one command: its record goes into Consul together with its data."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from radius_bridge.registry.announcer import writer_name
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.feed import MAX_RECORD, Change, Class, brief_record, class_for, record_key
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op

_BESIDES = 64
"""Octets of an entry around its key and value, at most."""


def announced(keys: Keys, ops: Sequence[Op]) -> list[Op]:
    """`ops` (sets and deletes) together with what announces them, for one transaction.

    So there is no moment between commit and announcement. Raises ValueError if nobody may announce one of the keys.
    """
    changes = [Change(op.key, None if op.verb.startswith("delete") else op.value, 0) for op in ops if op.writes]
    records, unnamed = _records(keys, changes)
    if unnamed:
        raise ValueError(f"{unnamed[0]} is none of the keys that hosts follow")
    return [*ops, *records]


async def notify(consul: Consul, keys: Keys, prefix: str) -> tuple[int, list[str]]:
    """Announces everything that stands below `prefix` (whole, root included); of a key, also that it is gone.

    Gives the number of entries announced, and the keys that nobody follows. Raises RegistryError.
    """
    snapshot = await consul.read(prefix, consistency="consistent")
    changes = [Change(e.key, e.value, e.modify_index) for e in snapshot.entries if not e.key.endswith("/")]
    if class_for(keys, prefix) and not prefix.endswith("/") and prefix not in {change.key for change in changes}:
        changes.append(Change(prefix, None, snapshot.index))
    records, unnamed = _records(keys, changes)
    for record in records:
        await consul.transact([record])
    return len(changes) - len(unnamed), unnamed


def _records(keys: Keys, changes: Iterable[Change]) -> tuple[list[Op], list[str]]:
    """Records that announce the changes, and the keys that belong into none."""
    lots: defaultdict[Class, list[list[Change]]] = defaultdict(lambda: [[]])
    sizes: defaultdict[Class, int] = defaultdict(int)
    unnamed: list[str] = []
    for change in changes:
        writers = class_for(keys, change.key)
        if writers is None:
            unnamed.append(change.key)
            continue
        size = len(change.key.encode()) + 6 * len(change.value or b"") + _BESIDES
        if sizes[writers] + size > MAX_RECORD:
            lots[writers].append([])
            sizes[writers] = 0
        lots[writers][-1].append(change)
        sizes[writers] += size
    now = time.time()
    records = [
        Op.set(record_key(keys, writers, writer_name()), brief_record(keys, lot, now))
        for writers, all_lots in lots.items()
        for lot in all_lots
    ]
    return records, unnamed
