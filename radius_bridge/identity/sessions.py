"""What is known of one accounting session: the sum of its events, in whatever order they were heard. Pure."""

from collections.abc import Iterable
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from radius_bridge.identity.events import Event, Kind, Restart

RETENTION = 3600.0
"""How long (seconds) what is over is remembered against late and repeated packets."""

MAX_ADDRESSES = 8
"""Addresses of one session, at most: what it changes must fit into one transaction."""

MAX_GROUPS = 3
"""Groups from attributes that one session joins, at most; for the same reason."""

ROAMING = 10.0
"""Seconds that may lie between the end of a session and the one its station roamed to."""

SLIGHT = 0.1
"""An extension by less than this part of the whole term is not written."""

JITTER = 2.0
"""Seconds by which a time may vary that is worked out from one told in whole seconds."""

LATENESS = 60.0
"""Seconds by which the beginning of a session may seem later than it was: packets that tell it may be late, and not say
so."""


_NEVER = (0.0, 0.0)
"""When what has not happened happened, by two clocks or of two kinds."""


class Session(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One session, as it is kept in Consul. Times are epoch seconds, by our clock unless said otherwise."""

    user: str
    since: float
    """When it began, as the newest event that says so has it; 0 if nothing is known of it but its Stop, and that does
    not say."""
    at: float
    """When the newest event heard of it happened, by the NAS's clock."""
    heard: float
    """The same, by ours."""
    first: float
    """When the earliest event heard of it happened, by our clock."""
    source: str
    """The RADIUS client that told of it."""
    lease: int
    longest: int
    timeout: int = 0
    """These three as in its newest event (identity.events)."""
    ended: float = 0.0
    """When its Stop happened; 0 while it has none."""
    restart: tuple[float, float] = _NEVER
    """A restart of its NAS that ended it: `at` (by the NAS's clock) and `heard`."""
    mac: str = ""
    multi: str = ""
    groups: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """What the newest event that names any says, of each IP version; or what it took over (`heir`)."""
    named: tuple[float, float] = _NEVER
    """The `at` of that event, for IPv4 and IPv6."""
    leased: tuple[str, ...] = ()
    """Addresses that were leased to its MAC."""
    left: tuple[str, ...] = ()
    """Addresses that it named and does not have any more."""
    away: dict[str, float] = {}
    """Of each of `addresses` that an event did not name, though it named others, when the last such event happened, by
    our clock."""
    heir: str = ""
    """The session that it took its addresses over from, while no event of its own names any."""
    ahead: float = 0.0
    """Seconds by which the NAS's clock was ahead of ours when it told of the beginning, if that is more than JITTER."""
    is_vague: bool = False
    """True while no event says when it began: `since` is that of the earliest one, then."""
    told: float = 0.0
    """The `at` of the event that says who the user is, if the newest one does not."""

    @property
    def end(self) -> float:
        """When it ended; 0 while it is live, as far as is known."""
        if self.ended:
            return self.ended
        return self.restart[1] if self.restart[0] and self.at <= self.restart[0] else 0.0

    @property
    def limit(self) -> float:
        """When it is over if nothing more is heard, whatever leases say."""
        limit = self.heard + self.longest
        return min(limit, (self.since or self.heard) + self.timeout) if self.timeout else limit

    @property
    def fallback(self) -> float:
        """When its claims end if no lease says."""
        return self.limit if self.timeout else min(self.limit, self.heard + self.lease)

    @property
    def begun(self) -> float:
        """When it began, by the NAS's clock; 0 if no event says."""
        return 0.0 if self.is_vague or not self.since else self.since + self.ahead

    @property
    def held(self) -> tuple[str, ...]:
        """`addresses`, without those that were named only before it began: by an earlier session with its id."""
        begun = self.begun - 2 * JITTER
        four, six = self.named
        if self.heir or not (0 < four < begun or 0 < six < begun):
            return self.addresses
        return tuple(each for each in self.addresses if (four if version(each) == 4 else six) >= begun)

    @property
    def claimed(self) -> tuple[str, ...]:
        """All addresses that it claims."""
        held = self.held
        return (*held, *(each for each in self.leased if each not in held)) if self.leased else held

    def is_live(self, now: float) -> bool:
        """True if it may still be going on."""
        return not self.end and self.limit > now

    def over(self) -> float:
        """From when on nothing that was true of it can be contradicted any more."""
        return (self.end or self.limit) + RETENTION


def heard(before: Session | None, event: Event) -> Session:
    """The session after an event, whether that is new, repeated or late; the same object if it tells nothing new.

    The newest event counts, at equal times the Stop; what it leaves open, older ones say. But a NAS that restarted may
    use an Acct-Session-Id again: what happened before the session began is another one's.
    """
    ended = event.heard if event.kind is Kind.STOP else 0.0
    since, ahead, is_vague = _begun(before, event)
    if before is None:
        after = Session(
            user=event.user,
            since=since,
            at=event.at,
            heard=event.heard,
            first=event.heard,
            source=event.source,
            lease=event.lease,
            longest=event.longest,
            timeout=event.timeout,
            ended=ended,
            mac=event.mac,
            multi=event.multi,
            groups=event.groups[:MAX_GROUPS],
            ahead=ahead,
            is_vague=is_vague,
        )
        return _named(after, event) if event.addresses else after
    first = min(before.first, event.heard)
    if _order(event.at, ended, event.heard, event.user) > _order(before.at, before.ended, before.heard, before.user):
        after = replace(
            before,
            user=event.user,
            since=since,
            at=event.at,
            heard=event.heard,
            first=first,
            source=event.source,
            lease=event.lease,
            longest=event.longest,
            timeout=event.timeout,
            ended=ended,
            mac=event.mac,
            multi=event.multi,
            groups=event.groups[:MAX_GROUPS],
            ahead=ahead,
            is_vague=is_vague,
            told=0.0,
        )
        after = _completed(after, before, before.told or before.at)
    else:
        after = replace(before, since=since, first=first, ahead=ahead, is_vague=is_vague)
        after = _completed(after, event, event.at)
    if after.told and after.told < after.begun - JITTER:
        after = replace(after, user="", told=0.0)
    if event.addresses:
        after = _named(after, event)
    return before if after == before else after


def _completed(session: Session, older: Session | Event, told: float) -> Session:
    """A session with what an older event says of it and the newest one leaves open; `told`: when it named the user."""
    if older.at < session.begun - JITTER:
        return session
    if older.user and (not session.user or 0 < session.told < told):
        session = replace(session, user=older.user, told=told)
    if (session.timeout and session.mac and session.multi) or not (older.timeout or older.mac or older.multi):
        return session
    return replace(
        session,
        timeout=session.timeout or older.timeout,
        mac=session.mac or older.mac,
        multi=session.multi or older.multi,
    )


def _begun(session: Session | None, event: Event) -> tuple[float, float, bool]:
    """When a session began, given what an event says of that: `since`, `ahead` and `is_vague`.

    Of several beginnings that it had, the latest counts; of what is said of one, the earliest.
    """
    before = (0.0, 0.0, False) if session is None else (session.since, session.ahead, session.is_vague)
    if not event.started:
        return before
    if event.kind is not Kind.START and event.started >= event.heard:  # it does not know: that is when it was sent
        is_earlier = not before[0] or (before[2] and event.started < before[0])
        return (event.started, 0.0, True) if is_earlier else before
    since, begun = event.started, event.started + event.at - event.heard
    if session is not None and session.begun:
        later, later_there = since - session.since, begun - session.begun
        is_another = event.kind is not Kind.STOP and 0 < session.end < since
        if min(abs(later), abs(later_there)) <= LATENESS and not is_another:
            # The same one, if either clock says so: that of the NAS may be set meanwhile, and a packet may be late.
            since, begun = min(since, session.since), min(begun, session.begun)
        elif min(later, later_there) < 0:
            return before
    ahead = begun - since
    return since, ahead if abs(ahead) > JITTER else 0.0, False


def restarted(session: Session, restarts: Iterable[Restart]) -> Session:
    """The session after its NAS restarted: over, if its newest event is not newer than that."""
    for restart in restarts:
        if not session.ended and session.at <= restart.at and session.restart[0] < restart.at:
            session = replace(session, restart=(restart.at, restart.heard))
    return session


def is_kin(elder: Session, younger: Session) -> bool:
    """True if a station that roams may have gone from one of these sessions to the other.

    RFC 3580 §2.2: they have the Acct-Multi-Session-Id in common; else the MAC address will do.
    """
    if not younger.since or elder.user != younger.user or elder.since > younger.since:
        return False
    if (elder.end or elder.limit) < younger.since - ROAMING:
        return False
    return bool(elder.mac and elder.mac == younger.mac) or bool(elder.multi and elder.multi == younger.multi)


def is_slight(before: Session, after: Session) -> bool:
    """True if `after` says no more than that the session goes on, and too little of that to be written."""
    if bool(before.end) != bool(after.end):
        return False  # it goes on though its NAS restarted
    slack = SLIGHT * min(after.lease, after.longest)
    ahead = (after.heard - before.heard, *(new - old for new, old in zip(after.named, before.named, strict=True)))
    if max(ahead) > slack or max(abs(before.since - after.since), abs(before.first - after.first)) > JITTER:
        return False
    return after == replace(
        before,
        since=after.since,
        at=after.at,
        heard=after.heard,
        first=after.first,
        named=after.named,
        source=after.source,
    )


text = lru_cache(maxsize=16384)(str)
"""An address as text: the same few are asked for again and again."""


def version(address: str) -> int:
    """The IP version of an address in text."""
    return 6 if ":" in address else 4


def _order(at: float, ended: float, heard: float, user: str) -> tuple[float, bool, float, str]:
    return at, ended > 0, heard, user


def _named(session: Session, event: Event) -> Session:
    """The session after an event that names addresses: of each IP version, the newest such event counts."""
    named = [text(each) for each in event.addresses]
    own = () if session.heir else session.addresses
    kept, away, times = {*named}, session.away, session.named
    if session.named == _NEVER:
        versions = {each.version for each in event.addresses}
        times = (event.at if 4 in versions else 0.0, event.at if 6 in versions else 0.0)
    else:
        kept, away, times = _weighed(session, {*own}, named, event)
    has = tuple(sorted(kept))[:MAX_ADDRESSES]
    left = [each for each in dict.fromkeys((*session.left, *own, *named)) if each not in has]
    return replace(
        session,
        addresses=has,
        left=tuple(left[-MAX_ADDRESSES:]),
        away={each: away[each] for each in has if each in away},
        named=times,
        heir="",
    )


def _weighed(
    session: Session, kept: set[str], named: list[str], event: Event
) -> tuple[set[str], dict[str, float], tuple[float, float]]:
    """What a session has of `kept`, which earlier events named, and of what one names that may be newer or older.

    Gives `away` and `named` of the session, too.
    """
    away, times = dict(session.away), [*session.named]
    for place, number in enumerate((4, 6)):
        fresh = {each for each in named if version(each) == number}
        if not fresh:
            continue
        before, newest = {each for each in kept if version(each) == number}, times[place]
        if event.at <= newest:
            away |= {each: max(event.heard, away.get(each, 0.0)) for each in before - fresh}
        if event.at >= newest:
            if newest:
                away |= dict.fromkeys(fresh - before, newest - (event.at - event.heard))
            kept = (kept | fresh) if event.at == newest else (kept - before) | fresh
            times[place] = event.at
    return kept, away, (times[0], times[1])
