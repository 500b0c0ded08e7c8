"""One transaction in the making: what waits is applied to what is known, one after the other. Pure.

An `Overlay` lies over what is known and takes the changes; a `Turn` has one for the whole transaction and lays another
over it for each piece of work, which is kept if what it changes still fits.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

import msgspec

from radius_bridge.identity import bindings, engine, sessions
from radius_bridge.identity.bindings import Binding
from radius_bridge.identity.events import Event, Lease, Restart
from radius_bridge.identity.sessions import Session
from radius_bridge.registry.feed import Change
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import Known
from radius_bridge.registry.kv import MAX_BYTES, MAX_OPS, Op, octets
from radius_bridge.registry.records import Restarted, changes, encode

MayBind = Callable[[str, str], bool]
"""True if the sessions that a RADIUS client (by name) told of may have an address (in text)."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """Something was learnt that concerns this session."""

    session: str


Work = Event | Lease | Restart | Refresh


class Overlay:
    """What is known (`engine.State`), with changes that are not yet in Consul."""

    def __init__(self, below: "Known | Overlay", may_bind: MayBind) -> None:
        self._below = below
        self.may_bind = may_bind
        self.sessions: dict[str, Session] = {}
        self.bindings: dict[str, Binding] = {}
        self._macs: dict[str, dict[str, None]] = {}
        self._multis: dict[str, dict[str, None]] = {}
        self._leased: dict[str, dict[str, None]] = {}
        self.left_out = 0
        """Leases that sessions have no room for."""

    def session(self, session: str) -> Session | None:
        """A session, live or over."""
        return self.sessions.get(session) or self._below.session(session)

    def binding(self, address: str) -> Binding:
        """The binding of an address."""
        found = self.bindings.get(address)
        return self._below.binding(address) if found is None else found

    def put_session(self, session: str, after: Session) -> None:
        """Keeps a session."""
        self.sessions[session] = after
        if after.mac:
            self._macs.setdefault(after.mac, {})[session] = None
        if after.multi:
            self._multis.setdefault(after.multi, {})[session] = None

    def put_binding(self, address: str, after: Binding) -> None:
        """Keeps a binding."""
        self.bindings[address] = after
        for mac in after.leases:
            self._leased.setdefault(mac, {})[address] = None

    def restarts(self, source: str, nas: str) -> Iterable[Restart]:
        """The last restarts of a NAS."""
        return self._below.restarts(source, nas)

    def kin(self, session: str, known: Session) -> list[str]:
        """Other sessions with the same MAC address or Acct-Multi-Session-Id."""
        more = (*self._macs.get(known.mac, ()), *self._multis.get(known.multi, ()))
        found = self._below.kin(session, known)
        return list(dict.fromkeys((*found, *(each for each in more if each != session)))) if more else found

    def stations(self, mac: str) -> tuple[str, ...]:
        """The sessions with a MAC address."""
        return tuple(dict.fromkeys((*self._below.stations(mac), *self._macs.get(mac, ()))))

    def leases(self, mac: str) -> tuple[str, ...]:
        """The addresses leased to a MAC address."""
        return tuple(dict.fromkeys((*self._below.leases(mac), *self._leased.get(mac, ()))))

    def leave_out(self, leases: int) -> None:
        """Takes note of leases that a session has no room for."""
        self.left_out += leases

    def merge(self, above: "Overlay") -> None:
        """Takes over the changes of an overlay that lies over this one."""
        self.left_out += above.left_out
        for session, known in above.sessions.items():
            self.put_session(session, known)
        for address, binding in above.bindings.items():
            self.put_binding(address, binding)


class Group(msgspec.Struct, frozen=True, gc=False):
    """A record that is written, and what follows from it."""

    record: Session | Binding | None
    """None for a restart."""
    ops: list[Op]
    """The write of the record, then those of group members."""


_SessionChange = tuple[str, Session | None, Session]
"""Its name, and the session before and after."""

_BindingChange = tuple[str, Binding, Binding]
"""The address, and its binding before and after."""


class Added(Enum):
    """What became of a piece of work in a turn."""

    CHANGES = auto()
    """Its changes are part of the transaction."""
    QUIET = auto()
    """It changes nothing worth writing."""
    FOREIGN = auto()
    """It concerns a session that is not its client's: it changes nothing."""
    FULL = auto()
    """Its changes do not fit: it is for the next turn."""
    PARTLY = auto()
    """A part of its changes fills the transaction: it must have another turn."""


class Turn:
    """One transaction in the making."""

    def __init__(
        self, keys: Keys, known: Known, may_bind: MayBind, now: float, beside: tuple[int, int] = (0, 0)
    ) -> None:
        """`beside`: how many operations and octets of the transaction are for something else."""
        self._keys = keys
        self._known = known
        self._may_bind = may_bind
        self._now = now
        self._overlay = Overlay(known, may_bind)
        self._restarts: dict[str, float] = {}
        """By key, the restarts that are written: when they happened."""
        self._groups: dict[str, Group] = {}
        self._checks: dict[str, Op] = {}
        self._count, self._size = beside

    @property
    def ops(self) -> list[Op]:
        """The operations of the transaction."""
        checks = [op for key, op in self._checks.items() if key not in self._groups]
        return [op for group in self._groups.values() for op in group.ops] + checks

    @property
    def groups(self) -> dict[str, Group]:
        """What it writes, by the key of the record."""
        return self._groups

    @property
    def members(self) -> list[Change]:
        """What it changes in groups, and so what is to be announced with it."""
        groups = self._groups.values()
        return [Change(op.key, op.value if op.verb == "set" else None, 0) for group in groups for op in group.ops[1:]]

    @property
    def left_out(self) -> int:
        """Leases that sessions have no room for (sessions.MAX_ADDRESSES)."""
        return self._overlay.left_out

    @property
    def checked(self) -> list[str]:
        """Keys of the records that are checked and not written."""
        return [key for key in self._checks if key not in self._groups]

    def add(self, work: Work) -> tuple[Added, set[str]]:
        """Adds a piece of work, as far as it fits; gives the keys of the records that it changes, too.

        Raises ValueError for what fits into no transaction.
        """
        if isinstance(work, Restart):
            return self._add_restart(work)
        above = Overlay(self._overlay, self._may_bind)
        if isinstance(work, Event):
            if not engine.take_event(above, work, self._now):
                return Added.FOREIGN, set()
        elif isinstance(work, Lease):
            engine.take_lease(above, work, self._now)
        else:
            engine.refresh(above, work.session, self._now)
        before = self._overlay
        changed = [(name, before.session(name), after) for name, after in above.sessions.items()]
        bound = [(address, before.binding(address), after) for address, after in above.bindings.items()]
        if not self._is_worth_writing(changed, bound):
            return Added.QUIET, set()
        groups = self._groups_of(above)
        added = self._fit(groups, self._seen(above, changed, bound))
        if added is not Added.FULL:
            before.merge(above)
        return added, set(groups)

    def _seen(self, above: Overlay, changed: list[_SessionChange], bound: list[_BindingChange]) -> dict[str, list[str]]:
        """By key of a record that changes, those that do not change with it and that what is written rests on.

        A session's claims, where it is over or began anew; and the session of a claim. If one of them is another by
        now, what is written may be wrong.
        """
        found: dict[str, list[str]] = {}
        for address, before, after in bound:
            old, new = before.claims, after.claims
            others = [name for name in {**old, **new} if name not in above.sessions and old.get(name) != new.get(name)]
            keys = [key for key in map(self._keys.session, others) if self._known.index(key)]
            if keys:
                found[self._keys.binding(address)] = keys
        for name, known, session in changed:
            has = (*session.claimed, *session.left, *(known.claimed if known else ()))
            rest = [address for address in dict.fromkeys(has) if address not in above.bindings]
            if rest:
                found[self._keys.session(name)] = [self._keys.binding(address) for address in rest]
        return found

    def _add_restart(self, restart: Restart) -> tuple[Added, set[str]]:
        key = self._keys.restart(restart.source, restart.nas)
        known = [each.at for each in self._known.restarts(restart.source, restart.nas) if each.nas == restart.nas]
        if max(*known, self._restarts.get(key, 0.0), 0.0) >= restart.at:
            return Added.QUIET, set()
        value = encode(Restarted(restart.at, restart.heard))
        added = self._fit({key: Group(None, [Op.cas(key, value, self._known.index(key))])}, {})
        if added is Added.CHANGES:
            self._restarts[key] = restart.at
        return added, {key}

    def _is_worth_writing(self, changed: list[_SessionChange], bound: list[_BindingChange]) -> bool:
        for _, known, session in changed:
            if known is None or not sessions.is_slight(known, session):
                return True
        return any(not bindings.is_slight(before, after, self._now) for _, before, after in bound)

    def _groups_of(self, above: Overlay) -> dict[str, Group]:
        """What is written for what `above` changes: first what sessions leave, then they, then what they have."""
        left: dict[str, Group] = {}
        written: dict[str, Group] = {}
        held: dict[str, Group] = {}
        claimed: set[str] = set()
        for name, session in above.sessions.items():
            key = self._keys.session(name)
            written[key] = Group(session, [Op.cas(key, encode(session), self._known.index(key))])
            claimed.update(session.claimed)
        for address, binding in above.bindings.items():
            key = self._keys.binding(address)
            ops = changes(self._keys, address, self._known.binding(address), binding, self._known.index(key), self._now)
            (held if address in claimed or not written else left)[key] = Group(binding, ops)
        return left | written | held

    def _fit(self, groups: dict[str, Group], checks: dict[str, list[str]]) -> Added:
        """Takes all groups, or what fits if nothing else is there, each with the checks that go with it."""
        if self._takes(groups, checks):
            return Added.CHANGES
        if self._groups:
            return Added.FULL
        # Too much for one transaction though it is alone in it.
        for key, group in groups.items():
            if not self._takes({key: group}, checks):
                break
        if not self._groups and not self._checks:  # nor would it in the next turn, or in any
            raise ValueError(f"{next(iter(groups))}: what is to be written with it fits into no transaction")
        return Added.PARTLY

    def _takes(self, groups: dict[str, Group], checks: dict[str, list[str]]) -> bool:
        fresh = self._checks_of(groups, checks) if checks else {}
        new = [*(op for group in groups.values() for op in group.ops), *fresh.values()]
        old = [op for key in groups if key in self._groups for op in self._groups[key].ops]
        count = self._count + len(new) - len(old)
        size = self._size + octets(new) - octets(old)
        if count > MAX_OPS or size > MAX_BYTES:
            return False
        self._groups |= groups
        self._checks |= fresh
        self._count, self._size = count, size
        return True

    def _checks_of(self, groups: dict[str, Group], checks: dict[str, list[str]]) -> dict[str, Op]:
        """Those of `checks` that go with the groups and are not there yet, by key."""
        wanted = {check: None for key in groups for check in checks.get(key, ())}
        needed = [key for key in wanted if key not in self._checks and key not in self._groups]
        return {key: Op.check(key, self._known.index(key)) for key in needed}
