"""Consul's transactions in memory, for the faults that a real one cannot be made to show at a given moment."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto

from radius_bridge.registry.consul import Consistency, Consul
from radius_bridge.registry.errors import Conflict, RegistryError
from radius_bridge.registry.kv import MAX_OPS, Committed, Entry, Listing, Op, Snapshot
from radius_bridge.registry.settings import ConsulSettings


class Fault(Enum):
    """What goes wrong with one request."""

    NONE = auto()
    REQUEST_LOST = auto()
    """Nothing happened; the caller sees an error."""
    ANSWER_LOST = auto()
    """It happened; the caller sees an error."""
    LATE = auto()
    """The caller sees an error, and it happens afterwards, if its checks still hold."""


class FakeConsul(Consul):
    """As much of Consul as lanes use. `next_fault` is asked before each request."""

    def __init__(self, next_fault: Callable[[], Fault] = lambda: Fault.NONE) -> None:
        self.settings = ConsulSettings()
        self.store: dict[str, Entry] = {}
        self.index = 0
        self.next_fault = next_fault
        self.in_flight = 0
        self.sizes: list[int] = []
        """Operations of each transaction, but for those of the change feed."""

    async def close(self) -> None:
        """Nothing is open."""

    async def get(self, key: str, *, consistency: Consistency = "default", timeout: float = 5.0) -> Entry | None:
        return (await self.get_many([key])).get(key)

    async def get_many(
        self, keys: Iterable[str], *, consistent: bool = False, timeout: float = 5.0
    ) -> dict[str, Entry]:
        await asyncio.sleep(0)
        if self.next_fault() is not Fault.NONE:
            raise RegistryError("no answer")
        return {key: self.store[key] for key in keys if key in self.store}

    async def read_keys(self, prefix: str, *, consistency: Consistency = "default") -> Listing:
        await asyncio.sleep(0)
        if self.next_fault() is not Fault.NONE:
            raise RegistryError("no answer")
        keys = tuple(sorted(key for key in self.store if key.startswith(prefix)))
        return Listing(max(1, self.index), keys, not keys)

    async def read(
        self, prefix: str, *, index: int = 0, wait: float = 30.0, consistency: Consistency = "default"
    ) -> Snapshot:
        found = await self.get_many(sorted(key for key in self.store if key.startswith(prefix)))
        return Snapshot(max(1, self.index), tuple(found.values()), not found, 0.0, known_leader=True)

    async def transact(self, ops: Sequence[Op], *, timeout: float = 5.0) -> Committed:
        assert 0 < len(ops) <= MAX_OPS
        if "/$changes$/" not in ops[0].key:
            self.sizes.append(sum("/$changes$/" not in op.key for op in ops))
        await asyncio.sleep(0)
        match self.next_fault():
            case Fault.NONE:
                return self.commit(ops)
            case Fault.ANSWER_LOST:
                self.commit(ops)
            case Fault.LATE:
                asyncio.get_running_loop().call_soon(self._commit_late, ops)
            case Fault.REQUEST_LOST:
                pass
        raise RegistryError("no answer")

    def commit(self, ops: Sequence[Op]) -> Committed:
        """Carries out all or raises Conflict."""
        failed = frozenset(place for place, op in enumerate(ops) if not self._holds(op))
        if failed:
            raise Conflict("a check failed", failed)
        self.index += 1
        modified: dict[str, int] = {}
        for op in ops:
            if op.verb in {"set", "cas"}:
                self.store[op.key] = Entry(op.key, self.index, raw=op.value)
                modified[op.key] = self.index
            elif op.verb.startswith("delete"):
                self.store.pop(op.key, None)
        return Committed(self.index, modified)

    def _commit_late(self, ops: Sequence[Op]) -> None:
        if all(self._holds(op) for op in ops):
            self.commit(ops)

    def _holds(self, op: Op) -> bool:
        entry = self.store.get(op.key)
        match op.verb:
            case "cas" | "delete-cas" | "check-index":
                return (entry.modify_index if entry else 0) == op.index
            case "check-not-exists":
                return entry is None
            case "set" | "delete":
                return True
        raise AssertionError(f"lanes do not use {op.verb}")
