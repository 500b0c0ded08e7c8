"""The session engine: events, leases and restarts in, sessions and bindings out. Pure.

It holds no state and no clock: `State` is what is known, a few look-ups and two ways to put something back. What it
makes of a set of events does not depend on their order or number, within what is remembered (RETENTION).
"""

from collections.abc import Container, Iterable, Mapping
from typing import Protocol

from msgspec.structs import replace

from radius_bridge.identity.bindings import EMPTY, Binding, Claim, claimed, forget, leased
from radius_bridge.identity.events import Event, Kind, Lease, Restart
from radius_bridge.identity.sessions import JITTER, MAX_ADDRESSES, ROAMING, Session, heard, is_kin, restarted, text
from radius_bridge.policy.members import parse_prefix


class State(Protocol):
    """What is known. Addresses are in text."""

    def session(self, session: str) -> Session | None:
        """A session, live or over."""

    def binding(self, address: str) -> Binding:
        """The binding of an address; empty for one that nothing is known of."""

    def put_session(self, session: str, after: Session) -> None:
        """Keeps a session."""

    def put_binding(self, address: str, after: Binding) -> None:
        """Keeps a binding."""

    def restarts(self, source: str, nas: str) -> Iterable[Restart]:
        """The last restarts of a NAS, and of all that its RADIUS client stands for."""

    def kin(self, session: str, known: Session) -> Iterable[str]:
        """Other sessions with the same MAC address or Acct-Multi-Session-Id."""

    def stations(self, mac: str) -> Iterable[str]:
        """The sessions with a MAC address."""

    def leases(self, mac: str) -> Iterable[str]:
        """The addresses that are, or were lately, leased to a MAC address."""

    def may_bind(self, source: str, address: str) -> bool:
        """True if sessions that this RADIUS client told of may have the address."""

    def leave_out(self, leases: int) -> None:
        """Is told, at each look, how many leases a session has no room for: those renewed longest ago."""


def take_event(state: State, event: Event, now: float) -> bool:
    """Takes an accounting event; False if it concerns a session that its client may not touch."""
    before = state.session(event.session)
    if before is not None and _is_foreign(before, event):
        return False
    _project(state, event.session, before, heard(before, event), event, now)
    return True


def take_lease(state: State, lease: Lease, now: float) -> None:
    """Takes a lease: it joins the live sessions of its MAC address, and ends claims of others."""
    address = text(lease.address)
    before = state.binding(address)
    if lease.is_told_again and lease.expires <= lease.at and not _concerns(before, lease.mac):
        return
    after = leased(before, lease)
    if after is not before:
        state.put_binding(address, forget(after, now))
    if lease.mac:
        for session in state.stations(lease.mac):
            refresh(state, session, now)


def refresh(state: State, session: str, now: float) -> None:
    """Does for a session what follows from what was learnt of others: leases, restarts, the sessions it came from."""
    known = state.session(session)
    if known is not None:
        _project(state, session, known, known, None, now)


def _concerns(binding: Binding, mac: str) -> bool:
    """True if a MAC address ("": any) had a lease of the address, or has a claim on it, as far as is known."""
    if not mac:
        return binding != EMPTY
    return mac in binding.leases or any(claim.mac == mac for claim in binding.claims.values())


def _is_foreign(before: Session, event: Event) -> bool:
    """True if a session with addresses outside a client's networks is not that client's."""
    if event.within is None or event.source == before.source:
        return False
    return any(parse_prefix(each) not in event.within for each in before.claimed)


def _project(
    state: State, session: str, before: Session | None, known: Session, event: Event | None, now: float
) -> None:
    """Completes a session, and brings its claims in step with it."""
    known = restarted(known, state.restarts(known.source, session.partition("/")[0]))
    known = _with_leases(state, known)
    known, inherited = _with_kin(state, session, known)
    if known != before:
        state.put_session(session, known)
    has = known.claimed
    addresses = dict.fromkeys((*has, *known.addresses, *known.left))
    if before is not None:
        addresses |= dict.fromkeys(before.claimed)
    named = {text(address): None for address in event.addresses} if event is not None else {}
    addresses |= named
    taken_over = before.addresses if before is not None and before.heir else ()
    for address in addresses:
        binding = state.binding(address)
        old = None if address in taken_over else binding.claims.get(session)
        source = inherited.get(address)
        if source is None and known.heir and address in known.addresses:
            source = binding.claims.get(session)  # what it was taken over from is forgotten by now
        claim = _claim(known, address, old, event if address in named else None, source, has)
        after = claimed(binding, session, claim)
        if after is not binding:
            state.put_binding(address, forget(after, now))


def _with_leases(state: State, known: Session) -> Session:
    """The session with the addresses that were leased to its MAC address while it was going on."""
    if not known.mac or not known.since:
        return known
    found: list[tuple[float, str]] = []
    for address in dict.fromkeys((*known.leased, *state.leases(known.mac))):
        lease = state.binding(address).lease(known.mac)
        if lease is None or not lease.since:
            joins = address in known.leased  # that may have been long ago
        else:
            began_in_time = lease.since < (known.end or known.limit)
            joins = began_in_time and lease.end > known.since and state.may_bind(known.source, address)
        if joins:
            found.append((0.0 if lease is None else lease.at, address))
    newest = sorted(found)[-MAX_ADDRESSES:]
    leased = tuple(sorted(address for _, address in newest))
    if len(found) > len(newest):
        state.leave_out(len(found) - len(newest))
    return known if leased == known.leased else replace(known, leased=leased)


def _with_kin(state: State, session: str, known: Session) -> tuple[Session, Mapping[str, Claim]]:
    """The session with what it takes over from the one that its station roamed from, if it names no address itself."""
    if (known.addresses and not known.heir) or not known.user:
        return known, {}
    elders: list[tuple[float, str, Session]] = []
    for name in state.kin(session, known):
        elder = state.session(name)
        if elder is None or not elder.held or (elder.since, name) >= (known.since, session):
            continue
        if is_kin(elder, known):
            elders.append((elder.since, name, elder))
    if not elders:
        heir = state.session(known.heir) if known.heir else None
        if heir is not None:  # it is no kin any more, now that more is known of it
            known = replace(known, addresses=(), heir="")
        return known, {}
    _, name, elder = max(elders)
    taken_over = known.addresses if known.heir == name else ()
    addresses: list[str] = []
    claims: dict[str, Claim] = {}
    for each in elder.held:
        binding = state.binding(each)
        claim = binding.claims.get(name)
        # It may be that what it was taken over from is forgotten by now.
        had_it = each in taken_over if claim is None else binding.end_of(name) >= known.since - ROAMING
        if had_it and state.may_bind(known.source, each):
            addresses.append(each)
            if claim is not None:
                claims[each] = claim
    return replace(known, addresses=tuple(addresses), heir=name if addresses else ""), claims


def _claim(
    known: Session,
    address: str,
    before: Claim | None,
    event: Event | None,
    inherited: Claim | None,
    has: Container[str],
) -> Claim | None:
    """What a session says about one of its addresses; None if it never said anything, or has what it took over no more.

    `before`: what it said itself; `inherited`: what the session said that it takes the address over from; `has`: all
    that it claims.
    """
    named, seen = (0.0, 0.0) if before is None else (before.named, before.seen)
    if event is not None:
        seen = max(seen, event.heard)
        if event.kind is not Kind.STOP:  # which says nothing of since when
            named = min(named or event.heard, event.heard)
    # An address that it did not have from the first on is a claim as new as that is, however old the session.
    since = max(named, known.since) if named > known.first + JITTER else known.since
    away = known.away.get(address, 0.0)
    is_back = away > since
    since = max(since, away)
    if inherited is not None:
        since, seen, is_back = inherited.since, inherited.seen, inherited.is_back
    if not seen and address not in known.leased:
        return None
    limit, fallback, ended = known.limit, known.fallback, known.end
    if address not in has:
        since = left = seen or since
        limit = fallback = ended = min(left, ended or left)
    return Claim(
        user=known.user,
        since=since,
        seen=seen,
        limit=limit,
        fallback=fallback,
        ended=ended,
        mac=known.mac,
        groups=known.groups,
        named=named,
        is_back=is_back,
    )
