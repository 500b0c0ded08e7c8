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


class Session(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One session, as it is kept in Consul. Times are epoch seconds, by our clock unless said otherwise."""

    user: str
    since: float
    """When it began; 0 if nothing is known of it but its Stop, and that does not say."""
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
    restart: tuple[float, float] = (0.0, 0.0)
    """A restart of its NAS that ended it: `at` (by the NAS's clock) and `heard`."""
    mac: str = ""
    multi: str = ""
    groups: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """What the newest event that names any says, of each IP version; or what it took over (`heir`)."""
    named: tuple[float, float] = (0.0, 0.0)
    """The `at` of that event, for IPv4 and IPv6."""
    leased: tuple[str, ...] = ()
    """Addresses that were leased to its MAC."""
    left: tuple[str, ...] = ()
    """Addresses that it named and does not have any more."""
    heir: str = ""
    """The session that it took its addresses over from, while no event of its own names any."""

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
    def claimed(self) -> tuple[str, ...]:
        """All addresses that it claims."""
        return (*self.addresses, *(each for each in self.leased if each not in self.addresses))

    def is_live(self, now: float) -> bool:
        """True if it may still be going on."""
        return not self.end and self.limit > now

    def over(self) -> float:
        """From when on nothing that was true of it can be contradicted any more."""
        return (self.end or self.limit) + RETENTION


def heard(before: Session | None, event: Event) -> Session:
    """The session after an event, whether that is new, repeated or late; the same object if it tells nothing new.

    The newest event counts, at equal times the Stop; what it leaves open, older ones say.
    """
    ended = event.heard if event.kind is Kind.STOP else 0.0
    if before is None:
        after = Session(
            user=event.user,
            since=event.started,
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
        )
    elif _order(event.at, ended, event.heard, event.user) > _order(before.at, before.ended, before.heard, before.user):
        after = replace(
            before,
            user=event.user or before.user,
            since=_earlier(before.since, event.started),
            at=event.at,
            heard=event.heard,
            first=min(before.first, event.heard),
            source=event.source,
            lease=event.lease,
            longest=event.longest,
            timeout=event.timeout or before.timeout,
            ended=ended,
            mac=event.mac or before.mac,
            multi=event.multi or before.multi,
            groups=event.groups[:MAX_GROUPS],
        )
    else:
        after = replace(
            before,
            user=before.user or event.user,
            since=_earlier(before.since, event.started),
            first=min(before.first, event.heard),
            timeout=before.timeout or event.timeout,
            mac=before.mac or event.mac,
            multi=before.multi or event.multi,
        )
    if event.addresses:
        after = _named(after, tuple(text(each) for each in event.addresses), event.at)
    return before if after == before and before is not None else after


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


def _earlier(one: float, other: float) -> float:
    return min(one, other) if one and other else one or other


def _order(at: float, ended: float, heard: float, user: str) -> tuple[float, bool, float, str]:
    return at, ended > 0, heard, user


def _named(session: Session, addresses: tuple[str, ...], at: float) -> Session:
    """The session after an event that names addresses: of each IP version, the newest such event counts."""
    own = () if session.heir else session.addresses
    kept = set(own)
    times = [*session.named]
    for place, number in enumerate((4, 6)):
        fresh = {each for each in addresses if version(each) == number}
        if not fresh or at < times[place]:
            continue
        if at > times[place]:
            kept = {each for each in kept if version(each) != number}
        kept |= fresh
        times[place] = at
    has = tuple(sorted(kept))[:MAX_ADDRESSES]
    left = [*(each for each in session.left if each not in has)]
    left += [each for each in (*own, *addresses) if each not in has and each not in left]
    return replace(session, addresses=has, left=tuple(left[-MAX_ADDRESSES:]), named=(times[0], times[1]), heir="")
