"""Who has which address, worked out anew from the set of all that was ever said: slow, and without any state.

The session engine must come to the same end, whatever the order and the number of times it hears things in.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import cached_property

from radius_bridge.identity.events import Event, Kind, Lease, Restart
from radius_bridge.identity.sessions import JITTER, ROAMING
from radius_bridge.policy.members import Prefix


@dataclass(frozen=True)
class Claimed:
    """What one session comes to on one address."""

    session: str
    user: str
    since: float
    seen: float
    ended: float
    expires: float
    leased_away: bool
    is_back: bool

    @property
    def end(self) -> float:
        """When it was over."""
        return min(self.ended, self.expires) if self.ended else self.expires

    def voids(self, other: "Claimed") -> bool:
        """True if this is another user's who had the address later, and the other was not heard after its end."""
        newer, end = (self.since, self.session) > (other.since, other.session), self.end
        early, late = (other, self) if newer else (self, other)
        if early.is_back and early.seen > late.seen:
            newer = not newer
        return newer and self.user != other.user and other.seen <= end and self.since <= end


class Reference:
    """All facts."""

    def __init__(self, facts: Iterable[Event | Lease | Restart]) -> None:
        every = frozenset(facts)
        self.events = frozenset(each for each in every if isinstance(each, Event))
        self.leases = frozenset(each for each in every if isinstance(each, Lease))
        self.restarts = frozenset(each for each in every if isinstance(each, Restart))
        self.sessions = {each.session: Told(self, each.session) for each in self.events}

    def owner(self, address: Prefix, now: float) -> tuple[str, float]:
        """The user who has an address at `now`, and until when."""
        claims = [claim for told in self.sessions.values() for claim in told.claims(address)]
        live = [
            claim
            for claim in claims
            if not claim.ended
            and claim.expires > max(now, claim.since)
            and not claim.leased_away
            and not any(other.voids(claim) for other in claims)
        ]
        if not live:
            return "", 0.0
        user = max(live, key=lambda claim: (claim.expires, claim.since, claim.session)).user
        return user, max(claim.expires for claim in live if claim.user == user)


class Told:
    """What was said of one session."""

    def __init__(self, everything: Reference, name: str) -> None:
        self.name = name
        self.everything = everything
        self.events = frozenset(each for each in everything.events if each.session == name)
        self.newest = max(self.events, key=lambda each: (each.at, each.kind is Kind.STOP, each.heard, each.user))
        self.mac = self.newest.mac
        self.user = self.newest.user
        vague = [each.started for each in self.events if each.started]
        telling = [
            (each.at - each.heard + each.started, each.started)
            for each in self.events
            if each.started and (each.kind is Kind.START or each.started < each.heard)
        ]
        self.begun, self.since = max(telling, default=(0.0, min(vague, default=0.0)))

    @cached_property
    def end(self) -> float:
        """When it ended; 0 if it did not."""
        if self.newest.kind is Kind.STOP:
            return self.newest.heard
        nas = self.name.partition("/")[0]
        over = [
            each
            for each in self.everything.restarts
            if each.source == self.newest.source and each.nas in ("", nas) and each.at >= self.newest.at
        ]
        return max(over, key=lambda each: each.at).heard if over else 0.0

    @cached_property
    def limit(self) -> float:
        limit = self.newest.heard + self.newest.longest
        return min(limit, (self.since or self.newest.heard) + self.newest.timeout) if self.newest.timeout else limit

    @cached_property
    def named(self) -> Set[Prefix]:
        """The addresses that its newest event naming any says, of each IP version."""
        found: set[Prefix] = set()
        for version in (4, 6):
            naming = [(each.at, a) for each in self.events for a in each.addresses if a.version == version]
            found |= {address for at, address in naming if at == max(naming)[0] >= self.begun - JITTER}
        return found

    @cached_property
    def elder(self) -> "Told | None":
        """The session that its station roamed from, if it names no address itself."""
        if any(each.addresses for each in self.events) or not self.since:
            return None
        elders = [
            other
            for other in self.everything.sessions.values()
            if other.user == self.user
            and (other.since, other.name) < (self.since, self.name)
            and (
                (other.mac and other.mac == self.mac)
                or (other.newest.multi and other.newest.multi == self.newest.multi)
            )
            and (other.end or other.limit) >= self.since - ROAMING
            and other.addresses
        ]
        return max(elders, key=lambda other: (other.since, other.name)) if elders else None

    @cached_property
    def addresses(self) -> Set[Prefix]:
        return self.named or (self.taken_over(self.elder) if self.elder else set())

    def taken_over(self, elder: "Told") -> Set[Prefix]:
        """What its station still had when it roamed."""
        ends = {address: each.end for address in elder.addresses for each in elder.claims(address)}
        return {address for address, end in ends.items() if end >= self.since - ROAMING}

    def evidence(self, address: Prefix) -> tuple[float, float, bool]:
        """Since when it has an address, when that was last said (0 for never), and if it had others in between."""
        said = [each.heard for each in self.events if address in each.addresses]
        if said:
            had = [each.heard for each in self.events if address in each.addresses and each.kind is not Kind.STOP]
            is_late = had and min(had) > min(each.heard for each in self.events) + JITTER
            since = max(min(had), self.since) if is_late else self.since
            if address not in self.named:
                return since, max(said), False
            others = [each for each in self.events if any(a.version == address.version for a in each.addresses)]
            away = max((each.heard for each in others if address not in each.addresses), default=0.0)
            return max(since, away), max(said), away > since
        if self.elder is not None and address in self.addresses:
            return self.elder.evidence(address)
        return 0.0, 0.0, False

    def alike(self, reports: Iterable[Lease], seen: float) -> "list[Tenure]":
        """The leases that may be its own, going by the address alone."""
        every = [Tenure(mac, reports) for mac in {each.mac for each in reports}]
        found = [each for each in every if not (self.mac and each.mac) and seen <= each.end]
        return [
            one
            for one in found
            if not one.mac
            or all(
                seen <= (other.first if other.first > one.at else other.at)
                for other in every
                if other.mac not in ("", one.mac) and other.at > one.at
            )
        ]

    def claims(self, address: Prefix) -> list[Claimed]:
        """At most one."""
        since, seen, is_back = self.evidence(address)
        reports = [each for each in self.everything.leases if each.address == address]
        given = [each for each in reports if each.expires > each.at]
        mine = [each for each in given if self.mac and each.mac == self.mac]
        last = max(mine, key=lambda each: (each.at, each.expires)) if mine else None
        back = 0.0
        if self.mac in {each.mac for each in reports} - {""}:
            back = max((each.at for each in reports if each.mac in ("", self.mac) and each not in given), default=0.0)
        is_held = last is not None and last.at > back
        first = min((each.at for each in mine), default=0.0)
        joins = bool(
            last
            and self.since
            and first < (self.end or self.limit)
            and (last.expires if is_held else min(back, last.expires)) > self.since
        )
        if not seen and not joins:
            return []
        if not seen:
            since = self.since
        limit, ended = self.limit, self.end
        own = limit if self.newest.timeout else min(limit, self.newest.heard + self.newest.lease)
        if address not in self.addresses and not joins:
            since = seen
            limit = own = ended = min(seen, self.end or seen)
        if last is not None and is_held and seen <= last.expires:
            since = since if seen else max(since, first)
            expires, evident = min(limit, last.expires), max(seen, last.at)
        elif back and seen <= back:
            expires, evident = min(limit, back, last.expires if last else back), seen
        elif seen:
            ends = [
                min(limit, each.end) if each.is_held and each.at <= own else min(own, each.end)
                for each in self.alike(reports, seen)
            ]
            expires, evident = min(ends, default=own), seen
        else:
            expires, evident = 0.0, seen
        away = any(each.mac not in ("", self.mac) and evident <= each.at for each in given)
        if not self.mac:
            away = len({each.mac for each in self.alike(reports, seen)} - {""}) > 1
        return [Claimed(self.name, self.user, since, evident, ended, expires, away, is_back)]


class Tenure:
    """What DHCP servers said about one address and one MAC address."""

    def __init__(self, mac: str, reports: Iterable[Lease]) -> None:
        self.mac = mac
        given = [(each.at, each.expires) for each in reports if each.mac == mac and each.expires > each.at]
        back = max((each.at for each in reports if each.mac in ("", mac) and each.expires <= each.at), default=0.0)
        self.first = min((at for at, _ in given), default=0.0)
        self.at, expires = max(given, default=(0.0, 0.0))
        self.is_held = self.at > back
        self.end = expires if self.is_held else min(back, expires) if given else back
