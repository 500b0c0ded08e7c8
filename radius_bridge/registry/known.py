"""What a writer believes to stand in Consul: sessions, bindings, restarts, and ways from one to the other. Pure.

Only a hint: every write is checked against Consul (check-and-set), so that an outdated belief costs a read
and never a wrong write. Records stay in their encoded form: 200,000 sessions are to fit into a small machine.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from radius_bridge.identity.bindings import EMPTY, Binding
from radius_bridge.identity.events import Restart
from radius_bridge.identity.sessions import RETENTION, Session
from radius_bridge.policy.members import parse_prefix
from radius_bridge.registry.errors import BadRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.records import decode_binding, decode_restart, decode_session

LIMIT: Final = 2_000_000
"""Sessions and bindings remembered, together; the ones longest unchanged go first, whatever they are."""


LOOKS: Final = 64
"""Records that one `prune` looks at, whether they are of no more use: more than a transaction adds."""


ALIKE: Final = 64
"""Sessions of one MAC address that lead to one another, the newest: a NAS that tells the same one of all its stations
would have each login look at all of them, for each of them."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as it stands in Consul."""

    value: bytes
    index: int
    """Its modify index."""
    over: float
    """From when on it is of no more use (epoch seconds)."""


class Index:
    """Names by what they have in common. Most have one each: a tuple is a quarter of a set."""

    def __init__(self, most: int = LIMIT) -> None:
        """Of names that have the same in common, the newest `most` are kept."""
        self._most = most
        self._names: dict[str, tuple[str, ...]] = {}

    def get(self, what: str) -> tuple[str, ...]:
        """The names under `what`."""
        return self._names.get(what, ())

    def add(self, what: str, name: str) -> None:
        """Adds a name, unless it is there or `what` is empty."""
        names = self._names.get(what, ())
        if what and name not in names:
            self._names[what] = (*names, name)[-self._most :]

    def remove(self, what: str, name: str) -> None:
        """Removes a name, if it is there."""
        names = tuple(each for each in self._names.get(what, ()) if each != name)
        if names:
            self._names[what] = names
        else:
            self._names.pop(what, None)


class Known:
    """All that is known, by key of Consul."""

    def __init__(self, keys: Keys, limit: int = LIMIT, *, bad_record: Callable[[str], None] = lambda _: None) -> None:
        """`bad_record` is told of what cannot be read: it counts as empty, and the next event writes a good one."""
        self._keys = keys
        self._limit = limit
        self._bad_record = bad_record
        # In the order of the last change: the first is the one longest unchanged.
        self._records: dict[str, Record] = {}
        """Sessions and bindings."""
        self._restarts: dict[str, tuple[Restart, int]] = {}
        self._by_mac, self._by_multi, self._leased = Index(ALIKE), Index(ALIKE), Index()
        self._by_nas: dict[tuple[str, str], dict[str, None]] = {}
        self._unseen: list[str] = []
        """Keys that `prune` has still to look at before it begins with the first one again."""

    def __len__(self) -> int:
        return len(self._records) + len(self._restarts)

    def index(self, key: str) -> int:
        """The modify index of a record; 0 for one that we know nothing of."""
        found = self._records.get(key)
        if found is not None:
            return found.index
        return self._restarts[key][1] if key in self._restarts else 0

    def session(self, session: str) -> Session | None:
        """A session."""
        found = self._records.get(self._keys.session(session))
        return None if found is None or not found.value else decode_session(session, found.value)

    def binding(self, address: str) -> Binding:
        """The binding of an address; EMPTY for one that we know nothing of."""
        found = self._records.get(self._keys.binding(address))
        return EMPTY if found is None or not found.value else decode_binding(address, found.value)

    def restarts(self, source: str, nas: str) -> list[Restart]:
        """The last restarts of a NAS, and of all that its RADIUS client stands for."""
        if not self._restarts:
            return []
        keys = {self._keys.restart(source, nas), self._keys.restart(source, "")}
        return [self._restarts[key][0] for key in keys if key in self._restarts]

    def kin(self, session: str, known: Session) -> list[str]:
        """Other sessions with the same MAC address or Acct-Multi-Session-Id."""
        names = dict.fromkeys(self._names((*self._by_mac.get(known.mac), *self._by_multi.get(known.multi))))
        names.pop(session, None)
        return list(names)

    def stations(self, mac: str) -> list[str]:
        """The sessions with a MAC address."""
        return self._names(self._by_mac.get(mac))

    def leases(self, mac: str) -> list[str]:
        """The addresses leased to a MAC address."""
        return [key.removeprefix(self._keys.bindings) for key in self._leased.get(mac)]

    def of_nas(self, source: str, nas: str) -> list[str]:
        """The sessions of a NAS (of all if `nas` is empty) that a RADIUS client told of."""
        if nas:
            return self._names(self._by_nas.get((source, nas), ()))
        return self._names(each for key, keys in self._by_nas.items() if key[0] == source for each in keys)

    def put_session(self, key: str, session: Session, value: bytes, index: int) -> None:
        """Remembers a session that stands in Consul in its encoded form `value`."""
        self.drop(key)
        self._records[key] = Record(value, index, session.over())
        # The indexes hold the key itself, not a copy of its end: that is a tenth of what a session costs.
        self._by_mac.add(session.mac, key)
        self._by_multi.add(session.multi, key)
        nas = key.removeprefix(self._keys.sessions).partition("/")[0]
        self._by_nas.setdefault((session.source, nas), {})[key] = None

    def put_binding(self, key: str, binding: Binding, value: bytes, index: int) -> None:
        """Remembers a binding likewise."""
        self.drop(key)
        self._records[key] = Record(value, index, binding.over())
        for mac in binding.leases:
            self._leased.add(mac, key)

    def put(self, key: str, value: bytes, index: int) -> None:
        """Remembers what stands in Consul. What cannot be read, is remembered as empty."""
        try:
            if key.startswith(self._keys.sessions):
                session = decode_session(key, value)
                for address in (*session.claimed, *session.left):
                    parse_prefix(address)
                self.put_session(key, session, value, index)
            elif key.startswith(self._keys.bindings):
                parse_prefix(key.removeprefix(self._keys.bindings))
                self.put_binding(key, decode_binding(key, value), value, index)
            elif key.startswith(self._keys.restarts):
                self._restarts[key] = (decode_restart(self._keys, key, value), index)
        except (BadRecord, ValueError) as error:
            self._bad_record(f"{key}: {error}" if not isinstance(error, BadRecord) else str(error))
            self.drop(key)
            if not key.startswith(self._keys.restarts):
                self._records[key] = Record(b"", index, 0.0)

    def drop(self, key: str) -> None:
        """Forgets a record."""
        old = self._records.pop(key, None)
        if old is None:
            self._restarts.pop(key, None)
            return
        if not old.value:
            return
        if key.startswith(self._keys.sessions):
            name, session = key.removeprefix(self._keys.sessions), decode_session(key, old.value)
            self._by_mac.remove(session.mac, key)
            self._by_multi.remove(session.multi, key)
            nas = (session.source, name.partition("/")[0])
            self._by_nas.get(nas, {}).pop(key, None)
            if not self._by_nas.get(nas):
                self._by_nas.pop(nas, None)
        else:
            for mac in decode_binding(key, old.value).leases:
                self._leased.remove(mac, key)

    def prune(self, now: float) -> None:
        """Forgets the longest unchanged: as many as are beyond the limit or of no more use.

        One that is of use for long (a lease without an end) must not keep all that ended behind it: so the others are
        looked at, too, a few each time.
        """
        while self._records:
            key = next(iter(self._records))
            if len(self._records) <= self._limit and self._records[key].over > now:
                break
            self.drop(key)
        self._unseen = self._unseen or [*self._records]
        some, self._unseen[-LOOKS:] = self._unseen[-LOOKS:], []
        for key in some:
            record = self._records.get(key)
            if record is not None and record.over <= now:
                self.drop(key)
        for key in [key for key, (restart, _) in self._restarts.items() if restart.heard + RETENTION <= now]:
            del self._restarts[key]

    def _names(self, keys: Iterable[str]) -> list[str]:
        return [key.removeprefix(self._keys.sessions) for key in keys]
