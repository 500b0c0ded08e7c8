"""From what policy asks to what the kernel's sets hold: entries, timeouts, differences. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from math import inf
from operator import itemgetter, not_
from typing import NamedTuple

from agent.dataplane.kinds import KINDS, Kind, kind_of
from radius_bridge.policy.expiry import NEVER, is_over, latest
from radius_bridge.policy.members import Prefix

LONGEST_TIMEOUT = 2_147_483
"""The longest timeout of an ipset entry, in seconds (24.8 days)."""

_SAME_SECOND = 1.0
_EVERYTHING = (Prefix(4, 0, 0), Prefix(6, 0, 0))
_HALVES = {
    whole: (Prefix(whole.version, 0, 1), Prefix(whole.version, 1 << (31 if whole.version == 4 else 127), 1))
    for whole in _EVERYTHING
}
_LEAST_ROOM = 65_536

NUMBER_OF = itemgetter(1)
"""The address of a prefix, as an unsigned integer."""

_SHAPE = itemgetter(0, 2)
"""IP version and length of a prefix."""

NOBODY = (Prefix(4, 0x7FFFFFFF, 32), Prefix(6, 0x100 << 112, 128))
"""127.255.255.255 and 100:: (RFC 6666): no packet comes from them or goes to them. While a hash:net has a host among
networks, the last one that leaves has the kernel move the prefix lengths under the packets that look at them, and one
could miss its network. So sets that shut out always have one."""


class Wanted:
    """The entries that stand for a service's members in the sets of this kernel.

    hash:net holds no /0, so it becomes its two halves; what is of an IP version that the kernel lacks is left out. What
    shuts out also holds one address of nobody's for good.
    """

    def __init__(
        self, members: Mapping[Prefix, float], versions: Collection[int] = (4, 6), *, shuts_out: bool = False
    ) -> None:
        """`members` (with their end, epoch seconds or NEVER) is looked into when it is asked about, and not copied.

        `shuts_out` says that they are kept out, so that one that is lost opens; then hosts are held with networks.
        """
        self._members = members
        self._versions = versions
        self.shuts_out = shuts_out

    def __len__(self) -> int:
        return len(self._members)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of sets that hold them."""
        return tuple(kind for kind in KINDS if kind.version in self._versions and not (self.shuts_out and kind.hosts))

    def entries(self) -> Mapping[Prefix, float]:
        """All entries with their end."""
        everything = [prefix for prefix in _EVERYTHING if prefix in self._members]
        if not everything and len(self._versions) == 2 and not self.shuts_out:
            return self._members
        entries = {prefix: end for prefix, end in self._members.items() if prefix.version in self._versions}
        for whole in everything:
            entries.pop(whole, None)
            entries.update({half: end for half in _HALVES[whole] if (end := self.end(half)) is not None})
        if self.shuts_out:
            entries.update({nobody: NEVER for nobody in NOBODY if nobody.version in self._versions})
        return entries

    def end(self, prefix: Prefix) -> float | None:
        """The end of one entry; None if it is not wanted."""
        if prefix.version not in self._versions:
            return None
        if self.shuts_out and prefix in NOBODY:
            return NEVER
        end = self._members.get(prefix)
        if prefix.length == 1:
            whole = self._members.get(Prefix(prefix.version, 0, 0))
            if whole is not None:
                return whole if end is None else latest(end, whole)
        return end


def entries_of(member: Prefix) -> tuple[Prefix, ...]:
    """The entries that a change of `member` can concern."""
    return _HALVES.get(member, (member,))


def timeout(end: float, now: float, *, shuts_out: bool) -> tuple[int, float | None]:
    """The timeout of an ipset entry that ends at `end` and is not over.

    `end` is in epoch seconds or NEVER. Gives the timeout in seconds, where 0 is permanent, and when the entry must
    be programmed again (epoch seconds) if the kernel cannot hold its end. Such a grant is cut short, and renewed in
    time, at the latest when the kernel can hold it; for a set that shuts out that would open what must stay closed, so
    there the entry is permanent until the kernel can hold its end.
    """
    if end < 0:
        return 0, None
    left = math.floor(end - now)
    if left <= LONGEST_TIMEOUT:
        return max(1, left), None
    if shuts_out:
        return 0, end - LONGEST_TIMEOUT
    return LONGEST_TIMEOUT, min(now + LONGEST_TIMEOUT // 2, end - LONGEST_TIMEOUT)


def timeouts(ends: Sequence[float], now: float, *, shuts_out: bool) -> list[int]:
    """The timeouts of many entries, in seconds: `timeout` of each."""
    first, last = now + 1, now + LONGEST_TIMEOUT
    return [int(end - now) if first <= end <= last else timeout(end, now, shuts_out=shuts_out)[0] for end in ends]


class Part(NamedTuple):
    """The entries of one kind."""

    prefixes: Sequence[Prefix]
    ends: Sequence[float]
    """Of each: epoch seconds or NEVER."""


def by_kind(entries: Mapping[Prefix, float], *, joined: bool = False) -> dict[Kind, Part]:
    """The same entries by their kind; `joined` is as in `kind_of`."""
    found: dict[Kind, Part] = {}
    prefixes, ends = list(entries), list(entries.values())
    shapes = {kind_of(Prefix(version, 0, length), joined=joined) for version, length in set(map(_SHAPE, prefixes))}
    if len(shapes) == 1:  # mostly
        return {shapes.pop(): Part(prefixes, ends)}
    for kind in KINDS:
        whole = 32 if kind.version == 4 else 128
        if joined:
            is_mine = [not kind.hosts and version == kind.version for version, _, _ in prefixes]
        else:
            is_mine = [version == kind.version and (length == whole) is kind.hosts for version, _, length in prefixes]
        if any(is_mine):
            found[kind] = Part(list(compress(prefixes, is_mine)), list(compress(ends, is_mine)))
            others = list(map(not_, is_mine))
            prefixes, ends = list(compress(prefixes, others)), list(compress(ends, others))
    return found


@dataclass(frozen=True, slots=True)
class Delta:
    """What to send to make the kernel's entries the wanted ones."""

    add: Mapping[Prefix, float]
    """New entries, and those with another end (epoch seconds or NEVER)."""
    delete: frozenset[Prefix]

    def __len__(self) -> int:
        return len(self.add) + len(self.delete)


def delta(held: Mapping[Prefix, float], wanted: Mapping[Prefix, float], now: float) -> Delta:
    """The difference between what was programmed and what is wanted.

    What is over at `now` counts as not wanted; ends less than a second apart count as the same, since the
    kernel counts in seconds.
    """
    # One pass in which nearly every entry is the same: 65,000 take some milliseconds.
    unlike = [
        (prefix, end, old)
        for (prefix, end), old in zip(wanted.items(), map(held.get, wanted), strict=True)
        if end != old or 0 <= end <= now
    ]
    gone: Iterable[Prefix] = ()
    if len(held) + sum(old is None for _, _, old in unlike) != len(wanted):
        gone = held.keys() - wanted.keys()
    return _delta([*unlike, *((prefix, None, held[prefix]) for prefix in gone)], now)


def delta_of(held: Mapping[Prefix, float], wanted: Wanted, changed: Iterable[Prefix], now: float) -> Delta:
    """The same if nothing but the members `changed` can differ; it costs nothing for the others."""
    concerned = {prefix for member in changed for prefix in entries_of(member)}
    return _delta([(prefix, wanted.end(prefix), held.get(prefix)) for prefix in concerned], now)


def _delta(concerned: Iterable[tuple[Prefix, float | None, float | None]], now: float) -> Delta:
    """The difference from entries with their wanted and their held end."""
    add: dict[Prefix, float] = {}
    delete: set[Prefix] = set()
    for prefix, end, old in concerned:
        if end is not None and not is_over(end, now):
            if old is None or abs(end - old) >= _SAME_SECOND:
                add[prefix] = end
        elif old is not None:
            # Not just forgotten: the last second of an entry is rounded up, so the kernel may still have it.
            delete.add(prefix)
    return Delta(add, frozenset(delete))


def live(wanted: Mapping[Prefix, float], now: float) -> dict[Prefix, float]:
    """What of `wanted` is not over at `now`, as a copy."""
    found = dict(wanted)
    if min(found.values(), default=inf) > now:  # mostly: then nobody else is looked at
        return found
    for over in [prefix for prefix, end in wanted.items() if 0 <= end <= now]:
        del found[over]
    return found


class Size(NamedTuple):
    """How a set is created."""

    maxelem: int
    """How many entries it may hold."""
    hashsize: int
    """Buckets, a power of two: enough that the kernel need not enlarge the table while it is filled."""


def size(need: int) -> Size:
    """The size of a set that must hold `need` entries now and may double before it is built anew."""
    return Size(
        maxelem=max(_LEAST_ROOM, 1 << (2 * need - 1).bit_length() if need else 0),
        hashsize=max(1024, 1 << (need - 1).bit_length() if need else 0),
    )


Range = tuple[int, int]
"""The first and the last address of a range, as unsigned integers."""


def ranges(networks: Mapping[Prefix, float]) -> dict[Range, float]:
    """The same networks, all of one IP version, as ranges without overlaps: each with the latest end that covers it.

    nft's interval sets take no network inside another one; merged, they would share one end.
    """
    found: dict[Range, float] = {}
    around: list[tuple[int, float]] = []  # the networks that we are in: last address, end
    at = 0  # up to here everything is cut

    def leave_until(first: int) -> None:
        """Leaves the networks that end before `first`."""
        nonlocal at
        while around and around[-1][0] < first:
            last, end = around.pop()
            if at <= last:
                found[at, last] = end
                at = last + 1

    for network in sorted(networks, key=lambda each: (each.number, each.length)):
        first, end = network.number, networks[network]
        leave_until(first)
        if around:
            outer = around[-1][1]
            if latest(outer, end) == outer:
                continue
            if at < first:
                found[at, first - 1] = outer
        at = first
        around.append((last_address(network), end))
    leave_until(1 << 128)
    return found


def last_address(prefix: Prefix) -> int:
    """The last address of a network, as an unsigned integer."""
    return prefix.number + (1 << (32 if prefix.version == 4 else 128) - prefix.length) - 1
