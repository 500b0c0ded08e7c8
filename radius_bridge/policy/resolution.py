"""Who may reach what, kept up to date: the result of `policy.resolve` without resolving everything again. Pure.

An address is in a service until the latest end over its paths, and a path ends with its earliest link. So what a
link that is over leads to needs no search: exactly the groups and addresses whose own end has come are left.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping
from math import inf
from typing import NamedTuple

from radius_bridge.policy.expiring import Expiring
from radius_bridge.policy.expiry import NEVER, earliest, is_over, latest
from radius_bridge.policy.members import GroupRef, Member, Prefix

_SET_BACK = 1.0
"""Seconds by which a clock may go backwards before what was over is looked at again."""


class _Access:
    """One service or override: who is named, which groups that reaches, and whom it lets in."""

    def __init__(self) -> None:
        self.grants: dict[Member, float] = {}
        self.reached: Expiring[GroupRef] = Expiring()
        """Groups with the end of the best path to them."""
        self.found: Expiring[Prefix] = Expiring()
        """Addresses and networks with the end of their access."""
        self.changed: dict[Prefix, float | None] = {}
        """What `found` has got, or lost (None), since it was last asked for."""


class Changes(NamedTuple):
    """What is different since the last time."""

    members: dict[str, dict[Prefix, float | None]]
    """Per service or override: addresses and networks with their new end (epoch seconds or NEVER); None: out."""
    groups: frozenset[GroupRef]
    """Groups that may have become needed, or not needed any more: ask `Resolution.needs`."""


class Links(NamedTuple):
    """All grants and groups at one moment; a copy."""

    grants: dict[str, dict[Member, float]]
    """Per service or override, who is named and until when (epoch seconds or NEVER)."""
    groups: dict[GroupRef, dict[Member, float]]


class Resolution:
    """Groups and grants, and at any time what `resolve` makes of them.

    A changed address costs as much as there are services times groups that hold it; a changed link between groups
    as much as hangs on it. Nothing costs what is stored.
    """

    def __init__(self, now: float) -> None:
        """`now` (epoch seconds) is the time until `advance` is called."""
        self._now = now
        self._access: dict[str, _Access] = {}
        self._members: dict[GroupRef, dict[Member, float]] = {}
        self._links: dict[GroupRef, dict[GroupRef, float]] = {}
        """The groups among the members: few, where addresses are many."""
        self._groups_of: dict[Member, tuple[GroupRef, ...]] = {}
        """Which groups hold a member: mostly one, and a tuple is a quarter of a set."""
        self._alone: dict[GroupRef, tuple[GroupRef, ...]] = {}
        """The tuple for all members that no other group holds."""
        self._turned: set[GroupRef] = set()

    def protect(self, names: Iterable[str]) -> None:
        """Resolves these services and overrides from now on, and no others; a new one has no grants yet."""
        wanted = set(names)
        for name in self._access.keys() - wanted:
            self._turned.update(self._access.pop(name).reached.ends)
        for name in wanted - self._access.keys():
            self._access[name] = _Access()

    def set_member(self, group: GroupRef, member: Member, end: float | None) -> None:
        """A member of a group now ends at `end` (epoch seconds or NEVER), or is gone (None)."""
        if self._members.get(group, {}).get(member) == end:
            return
        members = self._members.setdefault(group, {})
        holders = self._groups_of.get(member, ())
        if end is None:
            del members[member]
            self._groups_of[member] = tuple(each for each in holders if each != group)
            if not self._groups_of[member]:
                del self._groups_of[member]
        else:
            members[member] = end
            if group not in holders:
                alone = self._alone.setdefault(group, (group,))
                self._groups_of[member] = (*holders, group) if holders else alone
        if not members:
            del self._members[group]
            self._alone.pop(group, None)
        if isinstance(member, GroupRef):
            self._set_link(group, member, end)
        for access in self._access.values():
            if group in access.reached.ends:
                self._follow(access, member)

    def set_grant(self, name: str, member: Member, end: float | None) -> None:
        """A member of the service or override `name` now ends at `end` (as in `set_member`), or is gone (None).

        Raises KeyError for a name that is not protected.
        """
        access = self._access[name]
        if access.grants.get(member) == end:
            return
        if end is None:
            del access.grants[member]
        else:
            access.grants[member] = end
        self._follow(access, member)

    def forget(self, group: GroupRef) -> None:
        """All members of a group are gone."""
        for member in list(self._members.get(group, ())):
            self.set_member(group, member, None)

    def advance(self, now: float) -> None:
        """It is `now` (epoch seconds): what is over leaves; if the clock was set back, what is not over returns."""
        if now < self._now - _SET_BACK:
            self._now = now
            for access in self._access.values():
                self._resolve_anew(access)
            return
        self._now = max(now, self._now)
        for access in self._access.values():
            self._turned.update(access.reached.expire(self._now))
            access.changed.update(dict.fromkeys(access.found.expire(self._now)))

    def take(self) -> Changes:
        """What has changed since this was last called."""
        members = {}
        for name, access in self._access.items():
            if access.changed:
                members[name], access.changed = access.changed, {}
        turned, self._turned = frozenset(self._turned), set()
        return Changes(members, turned)

    def links(self) -> Links:
        """What everything is resolved from, as it is now."""
        return Links(
            {name: dict(access.grants) for name, access in self._access.items()},
            {group: dict(members) for group, members in self._members.items()},
        )

    def grants(self, name: str) -> Mapping[Member, float]:
        """Who is named by a service or override, and until when (epoch seconds or NEVER): as it is, not a copy.

        Raises KeyError for a name that is not protected.
        """
        return self._access[name].grants

    def holders(self, member: Member) -> dict[GroupRef, float]:
        """The known groups that hold a member, and until when (epoch seconds or NEVER)."""
        return {group: self._members[group][member] for group in self._groups_of.get(member, ())}

    def needs(self, group: GroupRef) -> bool:
        """True if the members of this group decide about access."""
        return any(group in access.reached.ends for access in self._access.values())

    def members(self, name: str) -> Mapping[Prefix, float]:
        """Whom a service or override lets in, with the end of access: as it is, not a copy.

        Raises KeyError for a name that is not protected.
        """
        return self._access[name].found.ends

    def soonest(self, name: str) -> float | None:
        """When the next member of a service or override ends (epoch seconds); None if none does."""
        return self._access[name].found.soonest()

    def ending(self, name: str, until: float) -> int:
        """How many members of a service or override end until then (epoch seconds).

        Raises KeyError for a name that is not protected.
        """
        return self._access[name].found.ending(until)

    def reached(self, name: str) -> Collection[GroupRef]:
        """The groups through which members of a service or override are found."""
        return self._access[name].reached.ends.keys()

    def _set_link(self, group: GroupRef, linked: GroupRef, end: float | None) -> None:
        links = self._links.setdefault(group, {})
        if end is None:
            del links[linked]
        else:
            links[linked] = end
        if not links:
            del self._links[group]

    def _end(self, access: _Access, member: Member) -> float | None:
        """The end of the best path to a member, over the groups that are reached; None if none leads there."""
        best = access.grants.get(member)
        for group in self._groups_of.get(member, ()):
            if group in access.reached.ends:
                end = earliest(access.reached.ends[group], self._members[group][member])
                best = end if best is None else latest(best, end)
        return None if best is None or is_over(best, self._now) else best

    def _follow(self, access: _Access, member: Member) -> None:
        """Brings up to date what hangs on a member, one of whose links has changed."""
        if isinstance(member, GroupRef):
            self._repair(access, member)
        else:
            self._update(access, member)

    def _update(self, access: _Access, address: Prefix) -> None:
        end = self._end(access, address)
        if end == access.found.ends.get(address):
            return
        access.changed[address] = end
        if end is None:
            access.found.drop(address)
        else:
            access.found.put(address, end)

    def _repair(self, access: _Access, start: GroupRef) -> None:
        """Finds the best paths to `start`, and to what is reached by way of it, again."""
        reached = access.reached
        if start not in self._links:
            # A user's own group, mostly: nothing is reached by way of it.
            old, new = reached.ends.get(start), self._end(access, start)
            if new is None:
                reached.drop(start)
            else:
                reached.put(start, new)
            self._settle(access, start, old)
            return
        before = self._take_out(reached, start)
        # Then the best first, as `resolve` does it.
        queue: list[tuple[float, str]] = []

        def push(group: GroupRef, end: float) -> None:
            known = reached.ends.get(group)
            if not is_over(end, self._now) and (known is None or latest(known, end) != known):
                heapq.heappush(queue, (-inf if end < 0 else -end, group.name))

        for group in before:
            end = self._end(access, group)
            if end is not None:
                push(group, end)
        while queue:
            order, name = heapq.heappop(queue)
            group, end = GroupRef(name), NEVER if order == -inf else -order
            known = reached.ends.get(group)
            if known is not None and latest(known, end) == known:
                continue
            before.setdefault(group, known)
            reached.put(group, end)
            for linked, link_end in self._links.get(group, {}).items():
                push(linked, earliest(end, link_end))
        for group, old in before.items():
            self._settle(access, group, old)

    def _take_out(self, reached: Expiring[GroupRef], start: GroupRef) -> dict[GroupRef, float | None]:
        """Takes out, and gives, what `start` may lead to: groups in a circle must not hold each other."""
        taken: dict[GroupRef, float | None] = {}
        stack = [start]
        while stack:
            group = stack.pop()
            if group in taken:
                continue
            end = taken[group] = reached.ends.get(group)
            if end is not None:
                stack += [
                    linked
                    for linked, link_end in self._links.get(group, {}).items()
                    if reached.ends.get(linked) == earliest(end, link_end)
                ]
        for group in taken:
            reached.drop(group)
        return taken

    def _settle(self, access: _Access, group: GroupRef, old: float | None) -> None:
        """Brings the members of a group up to date if the path to it does not end at `old` any more."""
        new = access.reached.ends.get(group)
        if new == old:
            return
        if new is None or old is None:
            self._turned.add(group)
        for member in self._members.get(group, ()):
            if isinstance(member, Prefix):
                self._update(access, member)

    def _resolve_anew(self, access: _Access) -> None:
        found, access.found = access.found, Expiring()
        self._turned.update(access.reached.ends)
        access.reached = Expiring()
        for member in access.grants:
            self._follow(access, member)
        for address in found.ends.keys() - access.found.ends.keys():
            access.changed[address] = None
