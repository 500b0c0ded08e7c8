"""What this host needs to know of Consul, and what that makes it enforce. Pure: keys in, members out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from agent.desired import ALLOW, DENY, Desired, Failsafe, Posture
from radius_bridge.policy.expiry import NEVER, latest, parse_expiry
from radius_bridge.policy.members import GroupRef, Member, Prefix
from radius_bridge.policy.resolution import Links, Resolution
from radius_bridge.policy.services import Service
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.view import View


class Step(NamedTuple):
    """What follows from what was learnt."""

    uncover: list[str]
    """Prefixes that matter no more: to be uncovered first."""
    cover: list[str]
    """Prefixes that have come to matter."""
    changed: Mapping[str, Iterable[Prefix]]
    """Members whose end may be another one, by service and override."""


class Host:
    """The services and overrides of one host and who gets into them, kept up to date key by key.

    It looks keys up in a view, of which it says what is to be covered: the grants of its services and the overrides,
    each in its three scopes, and the groups that these lead to. Values that cannot be read grant nothing (what
    shuts out does so for good) and are named in `problems`. Of several keys for one member the latest end counts.
    """

    def __init__(
        self,
        keys: Keys,
        scope: Scope,
        failsafe: tuple[Failsafe, ...],
        view: View,
        now: float,
        posture: Posture = Posture(),  # noqa: B008 — it is immutable
    ) -> None:
        """`scope` is this host's datacenter and node; `now` is in epoch seconds."""
        self.scope = scope
        self.services: tuple[Service, ...] | None = None
        """What to protect; None until that is known. Set it with `protect`."""
        self._keys = keys
        self._scopes = (Scope(), Scope(scope.dc), scope)
        self._failsafe = failsafe
        self._posture = posture
        self.overrides = (ALLOW, DENY, *(each.name for each in posture.sets))
        """What has its members in the key space of sets: the two overrides, and the custom sets."""
        self._view = view
        self._resolution = Resolution(now)
        self._folders: dict[str, list[str]] = {}
        """Where grants of a service, or members of an override, are that hold on this host."""
        self._ready: set[str] = set()
        """Services and overrides of which everything was read once."""
        self._dropped: set[str] = set()
        """Folders of services that went away since the last step: what they held is known no more."""
        self._covered_folders: set[str] = set()
        self._covered_groups: set[GroupRef] = set()
        """What was covered by the last step."""
        self._spellings: defaultdict[str, set[str]] = defaultdict(set)
        """Keys that name their member in an unusual way, such as an IPv6 address in capitals, by the usual key."""
        self._service_problems: tuple[str, ...] = ()
        self._problems: dict[str, str] = {}
        self._choose(self.overrides)

    def protect(self, services: Iterable[Service], problems: Iterable[str] = ()) -> None:
        """These are the services of this host from now on; `problems` is what was wrong with others."""
        self.services = tuple(sorted(services, key=lambda service: service.name))
        self._service_problems = tuple(problems)
        self._choose((*self.overrides, *(service.name for service in self.services)))

    def look(self, key: str) -> None:
        """Takes what the view has at `key` now."""
        if key.endswith("/"):
            return
        try:
            if key.startswith(self._keys.groups):
                group, member = self._keys.read_group_member(key)
                usual = self._keys.group_member(group, member)
                self._resolution.set_member(group, member, self._end(key, [usual]))
            else:
                self._look_at_grant(key)
        except ValueError as error:
            self._note(key, str(error) if self._view.get(key) is not None else "")

    def settle(self, now: float) -> Step:
        """It is `now` (epoch seconds): gives what has changed since this was last called."""
        self._resolution.advance(now)
        changes = self._resolution.take()
        folders = {folder for each in self._folders.values() for folder in each}
        kept = folders & self._covered_folders - self._dropped
        cover, uncover = list(folders - kept), list(self._covered_folders - kept)
        self._covered_folders, self._dropped = folders, set()
        for group in changes.groups:
            if self._resolution.needs(group):
                if group not in self._covered_groups:
                    self._covered_groups.add(group)
                    cover.append(self._keys.group(group))
            elif group in self._covered_groups:
                self._covered_groups.remove(group)
                self._resolution.forget(group)
                uncover.append(self._keys.group(group))
        for prefix in uncover:
            for key in [key for key in self._problems if key.startswith(prefix)]:
                del self._problems[key]
        return Step(uncover, cover, changes.members)

    @property
    def covered(self) -> int:
        """How many prefixes matter here."""
        return len(self._covered_folders) + len(self._covered_groups)

    def is_ready(self) -> bool:
        """True if everything that decides about this host was read once: before that, nothing may be programmed."""
        return self.services is not None and not self._unready()

    def desired(self) -> Desired:
        """What the host must enforce. Its members are not a copy: they go on changing.

        A service that was added later is left out until everything about it has been read.
        """
        waiting = self._unready()
        services = tuple(service for service in self.services or () if service.name not in waiting)
        names = (*self.overrides, *(service.name for service in services))
        return Desired(
            services, {name: self._resolution.members(name) for name in names}, self._failsafe, self._posture
        )

    def waiting_for(self) -> list[str]:
        """What has not been read yet."""
        waiting = ["services"] if self.services is None else []
        return waiting + sorted({prefix for name in self._unready() for prefix in self._unread(name)})

    def grants(self, name: str) -> Mapping[Member, float]:
        """Who is named by a service or override, and until when (epoch seconds or NEVER): as it is, not a copy."""
        return self._resolution.grants(name) if name in self._folders else {}

    def holders(self, member: Member) -> Mapping[GroupRef, float]:
        """The groups that hold a member, as far as they matter here, and until when."""
        return self._resolution.holders(member)

    def links(self) -> Links:
        """The grants and groups that are known, as they are now."""
        return self._resolution.links()

    def prefixes(self, name: str) -> list[str]:
        """The prefixes that decide about a service or override."""
        if name not in self._folders:
            return []
        return [*self._folders[name], *(self._keys.group(group) for group in self._resolution.reached(name))]

    def count(self, name: str, now: float) -> tuple[int, float | None]:
        """How many members a service or override has at `now` (epoch seconds), and when the next one's time is over."""
        if name not in self._folders:
            return 0, None
        self._resolution.advance(now)
        return len(self._resolution.members(name)), self._resolution.soonest(name)

    def ending(self, name: str, until: float) -> int:
        """How many members of a service or override end until then (epoch seconds)."""
        return self._resolution.ending(name, until) if name in self._folders else 0

    def problems(self) -> list[str]:
        """What could not be understood, and therefore grants nothing."""
        return [*self._service_problems, *(f"{key}: {problem}" for key, problem in self._problems.items())]

    def _choose(self, names: Iterable[str]) -> None:
        """These services and overrides are to be resolved, and no others."""
        before = self._folders
        self._folders = {
            name: [
                f"{self._keys.sets if name in self.overrides else self._keys.services}{scope.path}{name}/"
                for scope in self._scopes
            ]
            for name in names
        }
        self._dropped.update(*(folders for name, folders in before.items() if name not in self._folders))
        self._ready &= self._folders.keys()
        self._resolution.protect(self._folders)

    def _unready(self) -> set[str]:
        """The services and overrides of which something has never been read."""
        self._ready.update(
            name for name in self._folders if name not in self._ready and next(self._unread(name), None) is None
        )
        return self._folders.keys() - self._ready

    def _unread(self, name: str) -> Iterator[str]:
        """The prefixes that decide about a service or override and are not complete."""
        return (prefix for prefix in self.prefixes(name) if not self._view.is_complete(prefix))

    def _look_at_grant(self, key: str) -> None:
        is_override = key.startswith(self._keys.sets)
        grant = self._keys.read_grant(key)
        name = grant.service
        if name not in self._folders or (name in self.overrides) != is_override or grant.scope not in self._scopes:
            return
        usual = [f"{folder}{grant.member}" for folder in self._folders[name]]
        self._resolution.set_grant(name, grant.member, self._end(key, usual, is_deny=self._posture.shuts_out(name)))

    def _end(self, key: str, usual: list[str], *, is_deny: bool = False) -> float | None:
        """The latest end that the view has for a member at its `usual` keys, and at `key` and others that mean it."""
        if key not in usual and self._view.get(key) is not None:
            self._spellings[usual[0]].add(key)
        elif key in (others := self._spellings.get(usual[0], set())):
            self._note(key, "")
            others.remove(key)
            if not others:
                del self._spellings[usual[0]]
        best: float | None = None
        for each in (*usual, *self._spellings.get(usual[0], ())):
            value = self._view.get(each)
            if value is None:
                self._note(each, "")
                continue
            end = parse_expiry(value)
            self._note(each, "" if end is not None else f"the value {value[:40]!r} is no expiry (-1 for never)")
            if end is None and is_deny:
                end = NEVER
            if end is not None:
                best = end if best is None else latest(best, end)
        return best

    def _note(self, key: str, problem: str) -> None:
        """What is wrong with a key; nothing, if `problem` is empty."""
        if problem:
            self._problems[key] = problem
        else:
            self._problems.pop(key, None)
