"""Who is behind one address: what sessions claim and what is leased, and the rules that make an owner of it. Pure.

A binding is a set of facts. Who owns the address is computed from them, so that the order in which they were heard
does not matter:
- Of two users, the one whose session had the address later first (or again) has it. The other's claim is void, and
  stays so when the newer one ends, unless its session was heard naming the address after that end: nobody inherits an
  address.
- A lease to another MAC address voids a claim that was not heard later than that.
- A claim of a session with a leased MAC address ends with the lease, and when that is given back.
- If the session or the lease has no MAC address, the address alone joins them: while the claim stands by itself, since
  the lease may be anybody's. Leases to two MAC addresses since the claim was heard void it.
"""

from math import inf

import msgspec
from msgspec.structs import replace

from radius_bridge.identity.events import Lease
from radius_bridge.identity.sessions import JITTER, RETENTION, SLIGHT

MAX_CLAIMS = 32
"""Claims remembered per address; the oldest that are over go first."""

MAX_LEASES = 4
"""MAC addresses remembered per address."""


class Claim(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What one session says about the address. Times are epoch seconds, by our clock."""

    user: str
    since: float
    """When its session first had the address (its beginning, if the first that was heard of it says so), or the
    session that it took the address over from."""
    seen: float
    """When an event that names the address was last heard; 0 for none: then it rests on a lease."""
    limit: float
    """When it ends at the latest."""
    fallback: float
    """When it ends if there is no lease."""
    ended: float = 0.0
    """When the session ended or left the address; 0 while it has it."""
    mac: str = ""
    groups: tuple[str, ...] = ()
    named: float = 0.0
    """When an event other than a Stop that names the address was first heard; 0 for none."""
    is_back: bool = False
    """True if the session had the address before, then others (last at `since`), and has it again."""


class Leased(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is known of the leases of the address to one MAC address. Times are epoch seconds."""

    since: float = 0.0
    """When it was first given."""
    at: float = 0.0
    """When it was last given or renewed; 0: never, as far as is known."""
    expires: float = 0.0
    ended: float = 0.0
    """When it was released, declined, or found to have expired."""
    source: str = ""

    @property
    def is_held(self) -> bool:
        """False if it was given back since it was given; that its time is over is not looked at."""
        return self.at > self.ended

    @property
    def end(self) -> float:
        """When it ends or ended."""
        if self.is_held:
            return self.expires
        return min(self.ended, self.expires) if self.at else self.ended

    @property
    def over(self) -> float:
        """From when on nothing hangs on it."""
        return max(self.at, self.ended, self.end) + RETENTION


class Standing(msgspec.Struct, frozen=True, gc=False):
    """A claim as the rules see it."""

    session: str
    claim: Claim
    since: float
    seen: float
    expires: float
    is_void: bool = False

    @property
    def end(self) -> float:
        """When the session, or its time, was over."""
        return min(self.claim.ended, self.expires) if self.claim.ended else self.expires


class Holding(msgspec.Struct, frozen=True, gc=False):
    """Who has the address."""

    user: str
    """Empty for nobody."""
    expires: float
    groups: dict[str, float]
    """The groups from attributes that it joins, and until when."""
    sessions: tuple[str, ...]


NOBODY = Holding("", 0.0, {}, ())


class Binding(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The record of one address, kept in Consul."""

    claims: dict[str, Claim] = {}
    """By session."""
    leases: dict[str, Leased] = {}
    """By MAC address."""

    def lease(self, mac: str) -> Leased | None:
        """What is known of the leases to a MAC address; an end that names none is that of whatever lease there was."""
        found, nobodys = self.leases.get(mac), self.leases.get("")
        if found is None or nobodys is None or nobodys.ended <= found.ended:
            return found
        return replace(found, ended=nobodys.ended)

    def end_of(self, session: str) -> float:
        """When the claim of a session, which must be there, was over."""
        return self._standing(session, self.claims[session]).end

    def standings(self) -> list[Standing]:
        """All claims, each with what the others and the leases make of it."""
        every = [self._standing(session, claim) for session, claim in self.claims.items()]
        if len(every) == 1 and not self.leases:
            return every
        return [replace(s, is_void=self._is_leased_away(s) or _is_superseded(s, every)) for s in every]

    def holding(self, now: float) -> Holding:
        """Who has the address at `now`."""
        live = [s for s in self.standings() if not s.is_void and not s.claim.ended and s.expires > max(now, s.since)]
        if not live:
            return NOBODY
        if len(live) == 1:  # nearly always
            only = live[0]
            return Holding(
                only.claim.user, only.expires, dict.fromkeys(only.claim.groups, only.expires), (only.session,)
            )
        user = max(live, key=lambda s: (s.expires, s.since, s.session)).claim.user
        holders = [each for each in live if each.claim.user == user]
        groups: dict[str, float] = {}
        for each in holders:
            for group in each.claim.groups:
                groups[group] = max(each.expires, groups.get(group, 0.0))
        return Holding(user, max(s.expires for s in holders), groups, tuple(s.session for s in holders))

    def is_forgettable(self, now: float) -> bool:
        """True when nothing is left that a late packet could contradict."""
        return self.over() <= now

    def over(self) -> float:
        """From when on it is forgettable."""
        ends = [each.end + RETENTION for each in self.standings()]
        return max(ends + [lease.over for lease in self.leases.values()], default=0.0)

    def _standing(self, session: str, claim: Claim) -> Standing:
        if not self.leases:
            return Standing(session, claim, claim.since, claim.seen, claim.fallback if claim.seen else 0.0)
        lease = self.lease(claim.mac) if claim.mac else None
        if lease is not None and lease.is_held and claim.seen <= lease.expires:
            since = claim.since if claim.seen else max(claim.since, lease.since)
            return Standing(session, claim, since, max(claim.seen, lease.at), min(claim.limit, lease.expires))
        if lease is not None and claim.seen <= lease.ended:
            return Standing(session, claim, claim.since, claim.seen, min(claim.limit, lease.end))
        if not claim.seen:
            return Standing(session, claim, claim.since, 0.0, 0.0)
        ends = [_end_with(lease, claim) for lease in self._alike(claim).values()]
        return Standing(session, claim, claim.since, claim.seen, min(ends, default=claim.fallback))

    def _alike(self, claim: Claim) -> dict[str, Leased]:
        """The leases that may be those of a claim, though only the address says so, by MAC address."""
        macs = ("",) if claim.mac else self.leases
        found = ((mac, lease) for mac in macs if (lease := self.lease(mac)) is not None)
        return {mac: lease for mac, lease in found if claim.seen <= min(lease.end, self._passed_on(mac))}

    def _passed_on(self, mac: str) -> float:
        """When the address was leased to another MAC address than `mac`, after that had it; infinity if it was not."""
        at = self.leases[mac].at
        later = (each for other, each in self.leases.items() if mac and other not in ("", mac) and each.at > at)
        return min((each.since if each.since > at else each.at for each in later), default=inf)

    def _is_leased_away(self, standing: Standing) -> bool:
        claim = standing.claim
        if not claim.mac:  # then all that can be told is that the address went from one to another
            return bool(claim.seen) and len(self._alike(claim).keys() - {""}) > 1
        return any(
            other not in ("", claim.mac) and lease.at and standing.seen <= lease.at
            for other, lease in self.leases.items()
        )


def _end_with(lease: Leased, claim: Claim) -> float:
    """When a claim ends if the lease is its own, which only the address says: so it prolongs none that was over."""
    is_in_time = lease.is_held and lease.at <= claim.fallback
    return min(claim.limit if is_in_time else claim.fallback, lease.end)


def _is_superseded(one: Standing, every: list[Standing]) -> bool:
    return any(_supersedes(other, one) for other in every)


def _supersedes(other: Standing, one: Standing) -> bool:
    """True if `other` voids `one`."""
    return (
        other.claim.user != one.claim.user
        and one.seen <= other.end
        and other.since <= other.end
        and _is_newer(other, one)
    )


def _is_newer(other: Standing, one: Standing) -> bool:
    """True if `other` had the address later first. When a session came back to it is not known, only that this was
    between `since` and `seen`: against whoever came since then, the last word counts.
    """
    if (other.since, other.session) > (one.since, one.session):
        return not (one.claim.is_back and one.seen > other.seen)
    return other.claim.is_back and other.seen > one.seen


EMPTY = Binding()
"""An address of which nothing is known."""


def claimed(binding: Binding, session: str, claim: Claim | None) -> Binding:
    """The binding with the claim of a session, or without one."""
    if binding.claims.get(session) == claim:
        return binding
    if claim is None:
        return Binding({name: each for name, each in binding.claims.items() if name != session}, binding.leases)
    return Binding({**binding.claims, session: claim}, binding.leases)


def leased(binding: Binding, lease: Lease) -> Binding:
    """The binding with what a DHCP server says; the same object if that is nothing new."""
    known = binding.leases.get(lease.mac, Leased())
    if lease.expires <= lease.at:
        fresh = replace(known, ended=max(known.ended, lease.at))
    elif (lease.at, lease.expires) > (known.at, known.expires):
        since = lease.at if not known.at else min(known.since, lease.at)
        fresh = replace(known, since=since, at=lease.at, expires=lease.expires, source=lease.source)
    else:
        fresh = replace(known, since=min(known.since, lease.at))
    if fresh == known:
        return binding
    return Binding(binding.claims, {**binding.leases, lease.mac: fresh})


def forget(binding: Binding, now: float) -> Binding:
    """The binding without what is over for long, and without what that has made void."""
    every = binding.standings()
    gone = {s.session for s in every if s.end + RETENTION <= now}
    if not gone and not binding.leases and len(every) <= MAX_CLAIMS:
        return binding
    if len(every) - len(gone) > MAX_CLAIMS:
        by_age = sorted(
            (s for s in every if s.session not in gone),
            key=lambda s: (not s.claim.ended and s.expires > now and not s.is_void, s.end),
        )
        gone |= {s.session for s in by_age[: len(by_age) - MAX_CLAIMS]}
    leases = _kept_leases(binding, now)
    if not gone and len(leases) == len(binding.leases):
        return binding
    forgotten = [s for s in every if s.session in gone]
    gone |= {s.session for s in every if _is_superseded(s, forgotten)}
    return Binding({session: claim for session, claim in binding.claims.items() if session not in gone}, leases)


def is_slight(before: Binding, after: Binding, now: float) -> bool:
    """True if `after` changes nothing but ends, and these too little to be written."""
    if before == after:
        return True
    if before.leases.keys() != after.leases.keys() or before.claims.keys() != after.claims.keys():
        return False
    if not all(_is_slight_renewal(old, after.leases[mac]) for mac, old in before.leases.items()):
        return False
    if not all(_is_slight_news(old, after.claims[session]) for session, old in before.claims.items()):
        return False
    old_holding, new_holding = before.holding(now), after.holding(now)
    if (old_holding.user, old_holding.groups.keys()) != (new_holding.user, new_holding.groups.keys()):
        return False
    extension = new_holding.expires - old_holding.expires
    return 0 <= extension <= SLIGHT * max(0.0, new_holding.expires - now)


def _is_slight_news(old: Claim, new: Claim) -> bool:
    slack = SLIGHT * (new.fallback - (new.seen or new.since))
    ahead = (new.seen - old.seen, new.limit - old.limit, new.fallback - old.fallback)
    if max(ahead) > slack or max(abs(new.since - old.since), abs(new.named - old.named)) > JITTER:
        return False
    return new == replace(old, since=new.since, seen=new.seen, limit=new.limit, fallback=new.fallback, named=new.named)


def _is_slight_renewal(old: Leased, new: Leased) -> bool:
    slack = SLIGHT * (new.expires - new.at)
    if max(new.at - old.at, new.expires - old.expires) > slack or abs(new.since - old.since) > JITTER:
        return False
    if new.expires < old.expires:
        return False
    return new == replace(old, since=new.since, at=new.at, expires=new.expires, source=new.source)


def _kept_leases(binding: Binding, now: float) -> dict[str, Leased]:
    newest = sorted(binding.leases.items(), key=lambda item: item[1].over)[-MAX_LEASES:]
    kept = {mac: lease for mac, lease in newest if lease.over > now}
    if "" in kept or "" not in binding.leases:
        return kept
    return {mac: lease for mac in kept if (lease := binding.lease(mac)) is not None}  # what it ended stays so
