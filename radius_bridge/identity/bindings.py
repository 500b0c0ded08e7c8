"""Who is behind one address: a pure state machine over the events that name it.

A binding keeps what each session claimed about its address. Sessions that ended stay in it as long as late packets
are plausible, so that a Start that arrives after its own Stop revives nothing.
"""

import msgspec

from radius_bridge.identity.events import Event, Kind

RETENTION = 3600.0
"""How long (seconds) a claim that is over is remembered against late and repeated packets."""

MAX_CLAIMS = 64
"""Claims remembered per address; the oldest ended ones go first."""


class Claim(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What one session says about an address. Times are epoch seconds."""

    user: str
    since: float
    """Start of the session."""
    at: float
    """Time of the newest event heard of it."""
    expires: float
    """End of the claim; for one that ended, the end."""
    ended: bool = False
    """True after a Stop, or when a newer claim of another user took the address."""
    nas: str = ""
    mac: str = ""
    source: str = ""

    def is_live(self, now: float) -> bool:
        """True while the session holds the address."""
        return not self.ended and self.expires > now


class Binding(msgspec.Struct, frozen=True, gc=False):
    """The record of one address, kept in Consul."""

    claims: dict[str, Claim]
    """By session (`Event.session`)."""

    def live(self, now: float) -> dict[str, Claim]:
        """The claims that hold at `now`; they are all of one user."""
        return {session: claim for session, claim in self.claims.items() if claim.is_live(now)}

    @property
    def owner(self) -> str:
        """The user whose group has the address, whether or not the time is over; empty if all sessions ended."""
        return next((claim.user for claim in self.claims.values() if not claim.ended), "")

    @property
    def expires(self) -> float:
        """When the owner's last claim ends; 0 without an owner."""
        return max((claim.expires for claim in self.claims.values() if not claim.ended), default=0.0)

    def is_forgettable(self, now: float) -> bool:
        """True when nothing is left that a late packet could contradict."""
        return all(_over_since(claim) + RETENTION <= now for claim in self.claims.values())


EMPTY = Binding({})
"""An address that nobody has claimed."""


def apply(binding: Binding, event: Event, now: float) -> Binding:
    """What `binding` becomes by `event`, heard at `now`; the same object when nothing changes.

    Repeating an event changes nothing. Within a session the newest event counts, and at equal times the Stop. Between
    users the session that began later has the address; the other's claim ends.
    """
    known = binding.claims.get(event.session)
    if known is not None and _is_late(known, event):
        return binding
    claims = dict(binding.claims)
    over = event.kind is Kind.STOP or event.expires <= now
    since = event.started if known is None or known.user != event.user else min(known.since, event.started)
    claim = Claim(
        user=event.user,
        since=since,
        at=event.at,
        expires=event.at if event.kind is Kind.STOP else event.expires,
        ended=over,
        nas=event.nas,
        mac=event.mac,
        source=event.source,
    )
    if not over:
        rivals = {s: c for s, c in claims.items() if c.is_live(now) and c.user != event.user and s != event.session}
        if any((rival.since, rival.at) > (claim.since, claim.at) for rival in rivals.values()):
            claim = msgspec.structs.replace(claim, ended=True)
    if not claim.ended:
        # One owner at a time: whoever else held the address, even if only in name, has lost it.
        for session, other in claims.items():
            if other.user != event.user and not other.ended:
                claims[session] = msgspec.structs.replace(other, ended=True)
    if claim == known and claims == binding.claims:
        return binding
    claims[event.session] = claim
    return Binding(_forget(claims, now))


def _is_late(known: Claim, event: Event) -> bool:
    if event.at != known.at:
        return event.at < known.at
    return known.ended and event.kind is not Kind.STOP


def _over_since(claim: Claim) -> float:
    return claim.at if claim.ended else max(claim.at, claim.expires)


def _forget(claims: dict[str, Claim], now: float) -> dict[str, Claim]:
    kept = {s: c for s, c in claims.items() if c.is_live(now) or _over_since(c) + RETENTION > now}
    if len(kept) > MAX_CLAIMS:
        by_age = sorted(kept, key=lambda session: (kept[session].is_live(now), kept[session].at))
        for session in by_age[: len(kept) - MAX_CLAIMS]:
            del kept[session]
    return kept
