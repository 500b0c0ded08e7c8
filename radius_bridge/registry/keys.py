"""The key space in Consul (see docs/architecture.md). Pure: text in, text out.

<root>/$alias$/$<group>$/<member>                   = expiry
<root>/$service$/[<dc>/[<node>/]]<service>/<member> = expiry
<root>/$ipset$/[<dc>/[<node>/]]<set>/<member>       = expiry
<root>/$binding$/<address>                          = identity.bindings.Binding
<root>/$session$/<nas>/<acct-session-id>            = identity.sessions.Session
<root>/$restart$/<client>/<nas>                     = registry.records.Restarted
<root>/$changes$/access/<class>/<writer>            = registry.feed.Record, followed by hosts
<root>/$changes$/identity/<writer>                  = registry.feed.Record, followed by bridges
<root>/$meta$                                       = registry.records.Meta, the sentinel
<root>/$health$/<bridge>                            = when it last wrote, for the sake of writing (registry.health)
<root>/$confirm$/<digest>                           = expiry: a person's word for a change that hosts hold back
<root>/$host$/<node>                                = registry.hosts.HostRecord: what the host enforces
<root>/$lock$/<what>                                = the leader's Consul session
<root>/$datacenters$                                = registry.datacenters.Datacenters, in each of them
<root>/$names$                                      = identity.names.Naming: how engineers' commands read names
<root>/$copy$                                       = registry.copies.Fence, where a copy is kept
"""

from dataclasses import dataclass
from urllib.parse import quote

from radius_bridge.policy.members import GroupRef, Member, Prefix, parse_member

ALIAS = "$alias$"
SERVICE = "$service$"
IPSET = "$ipset$"
BINDING = "$binding$"
SESSION = "$session$"
RESTART = "$restart$"
CHANGES = "$changes$"
META = "$meta$"
LOCK = "$lock$"
HEALTH = "$health$"
DATACENTERS = "$datacenters$"
NAMES = "$names$"
COPY = "$copy$"
CONFIRM = "$confirm$"
HOST = "$host$"

ALLOW = "rules_allow"
DENY = "rules_deny"
"""The static set whose members may reach nothing on a host."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a grant holds: everywhere, in one datacenter, or on one node of a datacenter."""

    dc: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        if self.node and not self.dc:
            raise ValueError(f"node {self.node!r} needs its datacenter")

    @property
    def path(self) -> str:
        """The scope as it stands in a key, with its closing slash; empty for everywhere."""
        return "".join(f"{part}/" for part in (self.dc, self.node) if part)

    def __str__(self) -> str:
        return self.path.rstrip("/") or "everywhere"


@dataclass(frozen=True, slots=True)
class GrantKey:
    """One grant (or one member of a static set): where, which service (or set), and who."""

    scope: Scope
    service: str
    member: Member


class Keys:
    """Makes and reads the keys below one root."""

    def __init__(self, root: str = "befw") -> None:
        self.root = root
        self.meta = f"{root}/{META}"
        self.datacenters = f"{root}/{DATACENTERS}"
        self.names = f"{root}/{NAMES}"
        self.copy = f"{root}/{COPY}"
        self.groups = f"{root}/{ALIAS}/"
        self.services = f"{root}/{SERVICE}/"
        self.sets = f"{root}/{IPSET}/"
        self.bindings = f"{root}/{BINDING}/"
        self.sessions = f"{root}/{SESSION}/"
        self.restarts = f"{root}/{RESTART}/"
        self.confirmations = f"{root}/{CONFIRM}/"
        self.hosts = f"{root}/{HOST}/"
        self.bridges = f"{root}/{HEALTH}/"
        self.changes = f"{root}/{CHANGES}/"
        self.access_changes = f"{self.changes}access/"
        self.identity_changes = f"{self.changes}identity/"

    def group(self, group: GroupRef) -> str:
        """The folder of a group's members."""
        return f"{self.groups}{group}/"

    def group_member(self, group: GroupRef, member: Member | str) -> str:
        """The key whose value is the expiry of `member` in `group`."""
        return f"{self.group(group)}{member}"

    def grant(self, scope: Scope, service: str, member: Member) -> str:
        """The key whose value is the expiry of the grant of `service` to `member` in `scope`."""
        return f"{self.services}{scope.path}{service}/{member}"

    def set_member(self, scope: Scope, name: str, member: Member) -> str:
        """The key whose value is the expiry of `member` in the static set `name` in `scope`."""
        return f"{self.sets}{scope.path}{name}/{member}"

    def binding(self, address: Prefix | str) -> str:
        """The key of the record of who is behind an address."""
        return f"{self.bindings}{address}"

    def session(self, session: str) -> str:
        """The key of the record of a session, named by NAS and Acct-Session-Id."""
        return f"{self.sessions}{session}"

    def restart(self, source: str, nas: str) -> str:
        """The key that says when a NAS restarted last; `nas` is empty for all that a RADIUS client stands for."""
        return f"{self.restarts}{source}/{nas}"

    def host(self, node: str) -> str:
        """The key that the agent of a node writes."""
        return f"{self.hosts}{node}"

    def lock(self, what: str) -> str:
        """The key that the leader for `what` holds."""
        return f"{self.root}/{LOCK}/{what}"

    def health(self, bridge: str) -> str:
        """The key that a bridge writes to see whether Consul records; `bridge` is its host's name."""
        return f"{self.bridges}{quote(bridge, safe='')}"

    def read_group_member(self, key: str) -> tuple[GroupRef, Member]:
        """Reads a key below `groups`. Raises ValueError if it names no group and member."""
        group_text, _, member_text = key.removeprefix(self.groups).partition("/")
        group = parse_member(group_text)
        if not isinstance(group, GroupRef):
            raise ValueError(f"{key!r}: {group_text!r} is no group")
        return group, parse_member(member_text)

    def read_grant(self, key: str) -> GrantKey:
        """Reads a key below `services` or `sets`. Raises ValueError if it names no grant."""
        folder = self.services if key.startswith(self.services) else self.sets
        parts = key.removeprefix(folder).split("/")
        # A network's own slash makes one more key level.
        is_network = len(parts) > 2 and parts[-1].isascii() and parts[-1].isdigit() and not parts[-2].startswith("$")
        member_parts = 2 if is_network else 1
        member = parse_member("/".join(parts[-member_parts:]))
        match parts[:-member_parts]:
            case [service] if service:
                return GrantKey(Scope(), service, member)
            case [dc, service] if dc and service:
                return GrantKey(Scope(dc), service, member)
            case [dc, node, service] if dc and node and service:
                return GrantKey(Scope(dc, node), service, member)
        raise ValueError(f"{key!r} is no grant: expected [dc/[node/]]service/member")
