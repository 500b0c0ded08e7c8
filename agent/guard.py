"""The guard against mass mistakes: what a re-read says about many at once is not enforced before it is sure. Pure.

A wrong mask once took a whole company down in two seconds. What somebody announces is meant (commands ask before they
write much); but what a host merely finds when it reads again may be a restored snapshot, a lost table, or a slip of
another program. So a mass removal, or a very wide opening, that is found like this waits for a second, consistent read
that says the same, and above a higher bound for a person's word (`radius-bridge confirm DIGEST`).

Nothing here opens: what is held is what was enforced before, with its own end, and no held member outlives it.
What ends by itself, what is announced, and denies are never held back.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Final

from agent.desired import Posture
from radius_bridge.policy.expiry import earliest, is_over
from radius_bridge.policy.members import Prefix

LEAST: Final = 10
"""Members that must go for it to be a mass removal; that the last one goes is always one."""

SHARE: Final = 0.5
"""The share of a service's members from which on their going is a mass removal: it waits for a second read."""

WORD_LEAST: Final = 100
WORD_SHARE: Final = 0.8
"""From so many members, and such a share, a removal waits for a person's word too."""

WIDE: Final = {4: 15, 6: 47}
"""Networks of this length (bits) and wider are very wide: that one is new waits for a second read."""

WORD_WIDE: Final = {4: 8, 6: 32}
"""Networks of this length and wider wait for a person's word too."""

WINDOW: Final = 60.0
"""Seconds within which removals that come in pieces count as one."""


class Kind(StrEnum):
    """What is held back."""

    REMOVAL = "removal"
    """Members would go, and stay for now."""
    OPENING = "opening"
    """Networks would come in, and stay out for now."""


@dataclass(slots=True)
class Held:
    """One change of one service or override that is held back."""

    name: str
    kind: Kind
    since: float
    """When it was first held (epoch seconds)."""
    members: dict[Prefix, float] = field(default_factory=dict)
    """Of a removal, who stays and until when (epoch seconds or NEVER); of an opening, what stays out."""
    soonest: float = inf
    """When the next of them is over."""
    digest: str = ""
    """Names the change: the same members of the same service have the same digest on every host."""
    needs_word: bool = False
    """True if a person must confirm it."""
    agreed: bool = False
    """True if a second, consistent read said the same."""


@dataclass(slots=True)
class _Window:
    began: float
    base: int
    """Members when it began."""
    lost: int = 0


class _Guarded(Mapping[Prefix, float]):
    """Members as Consul wants them, with what is held back; none of them is copied."""

    def __init__(
        self, wanted: Mapping[Prefix, float], kept: Mapping[Prefix, float], out: Mapping[Prefix, float]
    ) -> None:
        """`kept` are in addition, `out` are not; nobody who is kept is wanted."""
        self._wanted = wanted
        self._kept = kept
        self._out = out

    def __getitem__(self, prefix: Prefix) -> float:
        if prefix in self._kept:
            return self._kept[prefix]
        if prefix in self._out:
            raise KeyError(prefix)
        return self._wanted[prefix]

    def __iter__(self) -> Iterator[Prefix]:
        yield from self._kept
        yield from (prefix for prefix in self._wanted if prefix not in self._out)

    def __len__(self) -> int:
        return len(self._kept) + len(self._wanted) - sum(prefix in self._wanted for prefix in self._out)


class Guard:
    """Between what Consul says and what the kernel is told. Services and overrides go by their names."""

    def __init__(self, posture: Posture = Posture()) -> None:  # noqa: B008 — it is immutable
        self._shuts_out = posture.shuts_out
        self._held: dict[tuple[str, Kind], Held] = {}
        self._windows: dict[str, _Window] = {}
        self._changed: defaultdict[str, set[Prefix]] = defaultdict(set)

    @property
    def held(self) -> Collection[Held]:
        """What is held back."""
        return self._held.values()

    def review(
        self,
        name: str,
        before: Mapping[Prefix, float],
        wanted: Mapping[Prefix, float],
        changed: Iterable[Prefix],
        now: float,
    ) -> None:
        """A re-read made `wanted` (end by member, as in Desired) of `before`, which was wanted until then.

        Only members in `changed` differ. `now` is in epoch seconds.
        """
        lost: dict[Prefix, float] = {}
        opened: dict[Prefix, float] = {}
        settled: list[Prefix] = []
        removal, opening = self._held.get((name, Kind.REMOVAL)), self._held.get((name, Kind.OPENING))
        for prefix in changed:
            old, new = before.get(prefix), wanted.get(prefix)
            if new is None:
                if opening is not None and prefix in opening.members:
                    settled.append(prefix)
                elif old is not None and not is_over(old, now):
                    lost[prefix] = old
            elif removal is not None and prefix in removal.members:
                settled.append(prefix)
            elif old is None and not self._shuts_out(name) and prefix.length <= WIDE[prefix.version]:
                opened[prefix] = new
        self.announce(name, settled)
        if lost and (removal or self._is_mass(name, lost, len(before), len(wanted), now)):
            self._hold(name, Kind.REMOVAL, lost, now)
        if opened:
            self._hold(name, Kind.OPENING, opened, now)

    def announce(self, name: str, members: Iterable[Prefix]) -> None:
        """Somebody said what is to become of these members: nothing about them is held any more."""
        for kind in Kind:
            held = self._held.get((name, kind))
            if held is None:
                continue
            for prefix in members:
                if held.members.pop(prefix, None) is not None:
                    self._changed[name].add(prefix)
            self._drop_if_empty(held)

    def take_away(self, names: Iterable[str], member: Prefix | None) -> None:
        """Somebody took `member` (None: a group, whose members are not known) away from these services.

        Nobody who may be meant by that is kept.
        """
        for name in names:
            held = self._held.get((name, Kind.REMOVAL))
            if held is not None:
                self.announce(name, list(held.members) if member is None else [member])

    def shorten(self, name: str, ends: Mapping[Prefix, float]) -> None:
        """Somebody gave what lets these members in another end (epoch seconds): who is kept is not kept longer."""
        held = self._held.get((name, Kind.REMOVAL))
        if held is None:
            return
        sooner = {
            prefix: end
            for prefix, end in ends.items()
            if prefix in held.members and earliest(end, held.members[prefix]) != held.members[prefix]
        }
        held.members.update(sooner)
        held.soonest = min(held.soonest, *sooner.values(), inf)
        self._changed[name].update(sooner)

    def agree(self, digest: str) -> None:
        """A second, consistent read said the same."""
        for held in list(self._held.values()):
            if held.digest == digest:
                held.agreed = True
                if not held.needs_word:
                    self._release(held)

    def confirm(self, digests: Mapping[str, float], now: float) -> None:
        """A person said yes to these changes, each until its end (epoch seconds or NEVER)."""
        for held in list(self._held.values()):
            if held.agreed and held.digest in digests and not is_over(digests[held.digest], now):
                self._release(held)

    def protect(self, names: Collection[str]) -> None:
        """These services and overrides are enforced, and no others."""
        for held in [held for held in self._held.values() if held.name not in names]:
            del self._held[held.name, held.kind]
        self._windows = {name: window for name, window in self._windows.items() if name in names}

    def enforce(self, name: str, wanted: Mapping[Prefix, float], now: float) -> Mapping[Prefix, float]:
        """Whom to let in at `now` (epoch seconds): `wanted` itself as long as nothing is held."""
        removal = self._held.get((name, Kind.REMOVAL))
        if removal is not None and removal.soonest <= now:
            self.announce(name, [prefix for prefix, end in removal.members.items() if is_over(end, now)])
            removal.soonest = min((end for end in removal.members.values() if end >= 0), default=inf)
            removal = self._held.get((name, Kind.REMOVAL))
        opening = self._held.get((name, Kind.OPENING))
        if removal is None and opening is None:
            return wanted
        return _Guarded(wanted, removal.members if removal else {}, opening.members if opening else {})

    def take(self) -> dict[str, set[Prefix]]:
        """Members about whom something else is enforced since this was last called, by service and override."""
        changed, self._changed = self._changed, defaultdict(set)
        return changed

    def _is_mass(self, name: str, lost: Collection[Prefix], before: int, left: int, now: float) -> bool:
        """Whether so many go, together with those who went a moment ago."""
        window = self._windows.get(name)
        if window is None or not 0 <= now - window.began <= WINDOW:
            window = self._windows[name] = _Window(now, before)
        window.lost += len(lost)
        is_mass = window.lost >= LEAST and window.lost > SHARE * window.base
        wide = self._shuts_out(name) and any(prefix.length <= WIDE[prefix.version] for prefix in lost)
        return is_mass or left == 0 or wide

    def _hold(self, name: str, kind: Kind, members: Mapping[Prefix, float], now: float) -> None:
        held = self._held.setdefault((name, kind), Held(name, kind, now))
        held.members.update(members)
        held.soonest = min((end for end in held.members.values() if end >= 0), default=inf)
        held.agreed = False
        digest = hashlib.sha256(f"{kind} {name}".encode())
        for prefix in sorted(held.members):
            digest.update(b"\n%d %x %d" % prefix)
        held.digest = digest.hexdigest()[:12]
        if kind is Kind.REMOVAL:
            window = self._windows.get(name) or _Window(now, len(held.members))
            held.needs_word = len(held.members) >= max(WORD_LEAST, WORD_SHARE * window.base)
        if kind is Kind.OPENING or self._shuts_out(name):
            held.needs_word |= any(prefix.length <= WORD_WIDE[prefix.version] for prefix in held.members)
        self._changed[name].update(members)

    def _release(self, held: Held) -> None:
        del self._held[held.name, held.kind]
        self._windows.pop(held.name, None)
        self._changed[held.name].update(held.members)

    def _drop_if_empty(self, held: Held) -> None:
        if not held.members:
            self._held.pop((held.name, held.kind), None)
