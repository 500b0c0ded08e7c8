"""What others wrote, and what follows from it: sessions may lack something of a lease, a restart, or one that they came
from. What two writers learnt at the same moment, each without the other's, is made up for when they hear of it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from radius_bridge.identity import engine
from radius_bridge.identity.bindings import Binding
from radius_bridge.identity.sessions import Session
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import Known
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.parts import gently, read_parts, slices
from radius_bridge.registry.tickets import Tickets
from radius_bridge.registry.turn import MayBind, Overlay

SLICE: Final = 500
"""Records that are looked at between two turns of the event loop."""


class Learning:
    """Keeps what is known up to date, and queues refreshes of the sessions that need one."""

    def __init__(
        self,
        consul: Consul,
        keys: Keys,
        known: Known,
        tickets: Tickets,
        may_bind: MayBind,
        clock: Callable[[], float],
    ) -> None:
        self._consul = consul
        self._keys = keys
        self._known = known
        self._tickets = tickets
        self._may_bind = may_bind
        self._clock = clock
        self._learnt: list[str] = []
        """Keys of what is taken note of, and not followed yet: a reading that fails half-way leaves it to the next."""

    async def load(self, spread: float) -> None:
        """Reads all that is recorded, each folder over about `spread` seconds. Raises RegistryError.

        Whatever was committed before the call is in it (`registry.neighbours` relies on that).
        """
        consistency: Final = "consistent"
        for folder in (self._keys.restarts, self._keys.sessions, self._keys.bindings):
            listing = await self._consul.read_keys(folder, consistency=consistency)
            keys = listing.keys
            async for entries in read_parts(self._consul, folder, keys, spread=spread, consistency=consistency):
                async for entry in gently(entries, SLICE):
                    if self._take(entry):
                        self._learnt.append(entry.key)
        learnt, self._learnt = self._learnt, []
        for some in slices(learnt, SLICE):
            self.follow(dict.fromkeys(some))
            await asyncio.sleep(0)
        self._known.prune(self._clock())

    def learn(self, entries: Iterable[Entry]) -> None:
        """Takes note of what somebody wrote, unless we know it newer; does what follows from it."""
        self.follow({entry.key: None for entry in entries if self._take(entry)})

    def _take(self, entry: Entry) -> bool:
        """Takes note of a record; False if we know it newer."""
        is_folder = entry.key.endswith("/") and not entry.value  # the restart of a NAS without a name ends so, too
        if is_folder or entry.modify_index <= self._known.index(entry.key):
            return False
        self._known.put(entry.key, entry.value, entry.modify_index)
        return True

    def follow(self, records: Mapping[str, Session | Binding | None]) -> None:
        """Refreshes the sessions that lack something which follows from the records at these keys.

        None for a record that is still to be read.
        """
        affected: dict[str, None] = {}
        for key, record in records.items():
            if key.startswith(self._keys.sessions):
                name = key.removeprefix(self._keys.sessions)
                session = record if isinstance(record, Session) else self._known.session(name)
                if session is not None and self._is_concerned(name, session):
                    affected[name] = None
                    affected |= dict.fromkeys(self._known.kin(name, session))
            elif key.startswith(self._keys.bindings):
                address = key.removeprefix(self._keys.bindings)
                binding = record if isinstance(record, Binding) else self._known.binding(address)
                for mac in binding.leases:
                    affected |= dict.fromkeys(self._known.stations(mac))
                for name in binding.claims:  # who took the address over from a session has what that says of it
                    elder = None if self._keys.session(name) in records else self._known.session(name)
                    if elder is not None:
                        affected |= dict.fromkeys(self._known.kin(name, elder))
            else:
                source, _, nas = key.removeprefix(self._keys.restarts).partition("/")
                affected |= dict.fromkeys(self._known.of_nas(source, nas))
        for name in affected:
            self._refresh_if_needed(name)

    def _refresh_if_needed(self, name: str) -> None:
        session = self._known.session(name)
        if session is None or self._tickets.closed or self._tickets.is_refreshing(name):
            return
        if not self._is_concerned(name, session):
            return
        trial = Overlay(self._known, self._may_bind)
        engine.refresh(trial, name, self._clock())
        if trial.sessions or trial.bindings:
            self._tickets.refresh(name, session.mac or name)

    def _is_concerned(self, name: str, session: Session) -> bool:
        """False if there is nothing that a session could lack."""
        return bool(
            self._known.leases(session.mac)
            or self._known.kin(name, session)
            or self._known.restarts(session.source, name.partition("/")[0])
        )
