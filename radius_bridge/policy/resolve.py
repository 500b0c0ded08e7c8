"""Who may reach what, and until when: groups within groups, resolved. Pure.

An address is in a service until the earliest end along its path of links, the latest over all paths.
"""

import heapq
from collections.abc import Mapping
from math import inf

from radius_bridge.policy.expiry import NEVER, earliest, is_over, latest
from radius_bridge.policy.members import GroupRef, Member, Prefix

Members = Mapping[Member, float]
"""Members of a group, a grant or a set with their expiry (epoch seconds or NEVER)."""


def resolve(members: Members, groups: Mapping[GroupRef, Members], now: float) -> dict[Prefix, float]:
    """The addresses and networks behind `members`, each with the end of its access (epoch seconds or NEVER).

    Cycles end; a group that is not in `groups` has no members; a link that is over at `now` leads nowhere.
    """
    found: dict[Prefix, float] = {}
    reached: dict[GroupRef, float] = {}
    # The group with the latest end first, so that each group is opened once, with the best path to it.
    queue: list[tuple[float, str]] = []

    def follow(links: Members, path_end: float) -> None:
        for member, link_end in links.items():
            if is_over(link_end, now):
                continue
            end = earliest(path_end, link_end)
            if isinstance(member, GroupRef):
                heapq.heappush(queue, (-inf if end < 0 else -end, member.name))
            else:
                found[member] = latest(found[member], end) if member in found else end

    follow(members, NEVER)
    while queue:
        order, name = heapq.heappop(queue)
        group = GroupRef(name)
        if group in reached:
            continue
        reached[group] = NEVER if order == -inf else -order
        follow(groups.get(group, {}), reached[group])
    return found
