"""What the kernel has beside what it should have. Pure."""

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf

from agent.dataplane.kinds import KINDS, Kind, kind_of, kind_of_set, set_name
from agent.dataplane.plan import Range, Wanted, last_address, live, ranges
from agent.desired import Desired
from radius_bridge.policy.members import Prefix

SLACK = 5.0
"""Seconds that ends may differ: the kernel counts in seconds, and writing and listing many takes some."""

_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Listing:
    """What the kernel has of ours, in a canonical form: two listings are the same if nothing was changed."""

    rules: tuple[str, ...]
    """The rules of our chains, in order, and where they hang."""
    members: Mapping[str, Mapping[Range, float]]
    """By set: the first and last address → seconds left, infinity if permanent."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as desired."""

    what: str
    """`rules`, or the kernel's name of a set."""
    missing: tuple[str, ...] = ()
    """Rules or members that should be there; of many, the first."""
    extra: tuple[str, ...] = ()
    """Rules or members that should not."""
    wrong: tuple[str, ...] = ()
    """Members that are there until another time."""

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("not ours", self.extra), ("with another end", self.wrong))
        return f"{self.what}: " + ("; ".join(f"{name}: {', '.join(each)}" for name, each in parts if each) or "order")


def wanted_members(
    desired: Desired, versions: Collection[int], now: float, *, cut: bool, only: Collection[str] | None = None
) -> dict[str, dict[Range, float]]:
    """What our sets should hold at `now` (epoch seconds): by set, first and last address → end.

    `cut` says that this is nftables, where networks are kept as ranges without overlaps; ipset refuses the address that
    is all zeros. `only` names the sets that are asked about.
    """
    found: dict[str, dict[Range, float]] = {}
    for name in desired.names:
        if only is not None and not any(set_name(kind, name) in only for kind in KINDS):
            continue
        wanted = Wanted(desired.of(name), versions, shuts_out=not cut and desired.posture.shuts_out(name))
        by_kind: dict[Kind, dict[Prefix, float]] = {kind: {} for kind in wanted.kinds}
        for prefix, end in live(wanted.entries(), now).items():
            by_kind[kind_of(prefix, joined=wanted.shuts_out)][prefix] = end
        for kind in wanted.kinds:
            if only is None or set_name(kind, name) in only:
                ours = by_kind[kind]
                whole = {
                    (prefix.number, last_address(prefix)): end
                    for prefix, end in ours.items()
                    if cut or prefix.number or not kind.hosts
                }
                found[set_name(kind, name)] = ranges(ours) if cut and not kind.hosts else whole
    return found


def differences(
    rules: tuple[str, ...],
    wanted: Mapping[str, Mapping[Range, float]],
    found: Listing,
    now: float,
    longest: float = inf,
    permanent: Collection[str] = (),
) -> list[Difference]:
    """Where `found` is not as wanted at `now`; `longest` is the longest timeout (seconds) that the kernel can hold.

    Members with an end further away are cut short, and in the sets `permanent` they are that (agent.dataplane.plan,
    `timeout`). What is over, or about to be, is neither missing nor extra.
    """
    result = [_rules(rules, found.rules)] if rules != found.rules else []
    for name in sorted(wanted.keys() - found.members.keys()):
        result.append(Difference(name, missing=("the set itself",)))
    for name in sorted(found.members):
        if name not in wanted:
            result.append(Difference(name, extra=("the set itself",)))
            continue
        has, should = found.members[name], wanted[name]
        text = _Text(kind_of_set(name).version)
        missing = [each for each in should.keys() - has.keys() if not 0 <= should[each] <= now + SLACK]
        extra = [each for each in has.keys() - should.keys() if has[each] > SLACK]
        wrong = [
            each
            for each in should.keys() & has.keys()
            if _is_wrong(should[each] - now if should[each] >= 0 else inf, has[each], longest, name in permanent)
        ]
        if missing or extra or wrong:
            result.append(Difference(name, text.some(missing), text.some(extra), text.some(wrong)))
    return result


def _rules(wanted: tuple[str, ...], found: tuple[str, ...]) -> Difference:
    missing = tuple(rule for rule in wanted if rule not in set(found))
    extra = tuple(rule for rule in found if rule not in set(wanted))
    return Difference("rules", missing[:_MOST_NAMED], extra[:_MOST_NAMED])


def _is_wrong(should: float, left: float, longest: float, is_permanent: bool) -> bool:
    """Whether the kernel has another time than it should, both in seconds left (infinity: for good)."""
    if should == inf:
        return left != inf
    if should > longest + SLACK:
        return (left == inf) is not is_permanent
    if should > longest - SLACK:  # it is programmed again just now
        return left == inf and not is_permanent
    return left == inf or abs(should - left) > SLACK


class _Text:
    """Ranges of one IP version as people write them."""

    def __init__(self, version: int) -> None:
        self._address = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address

    def some(self, each: Iterable[Range]) -> tuple[str, ...]:
        chosen = sorted(each)[:_MOST_NAMED]
        return tuple(
            str(self._address(first)) if first == last else f"{self._address(first)}-{self._address(last)}"
            for first, last in chosen
        )
