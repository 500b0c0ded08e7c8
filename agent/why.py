"""Why an address gets into a service, or what is missing for it. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from agent.desired import ALLOW, DENY, Desired, Target
from radius_bridge.policy.expiry import earliest, is_over
from radius_bridge.policy.members import GroupRef, Member, Prefix, describe, parse_prefix
from radius_bridge.policy.services import Ports, Service, parse_ports
from radius_bridge.policy.services import Protocol as Transport

DEEPEST: Final = 20
"""Groups in groups that are followed."""

MOST: Final = 50
"""Ways that are told."""


class Knowledge(Protocol):
    """What the host knows of Consul: agent.host.Host."""

    def grants(self, name: str) -> Mapping[Member, float]:
        """Who is named by a service or override, and until when (epoch seconds or NEVER)."""

    def holders(self, member: Member) -> Mapping[GroupRef, float]:
        """The groups that hold a member, and until when."""


@dataclass(frozen=True, slots=True)
class Link:
    """One step of a way: `what` holds or names `member` until `end` (epoch seconds or NEVER)."""

    what: str
    member: str
    end: float
    is_over: bool


@dataclass(frozen=True, slots=True)
class Way:
    """From the address to the service: groups first, the grant last."""

    links: tuple[Link, ...]
    end: float
    is_over: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What `why` says."""

    service: str
    gets_in: bool
    reasons: tuple[str, ...]
    """What decides, then what else there is to say."""
    ways: tuple[Way, ...] = ()
    of: str = ""
    """What the ways lead to: the service, or an override that comes before it."""
    users: tuple[str, ...] = ()
    """Whose own groups hold the address, as far as this host follows them."""
    observe: bool = False

    def as_json(self) -> dict[str, Any]:
        """The same for the control socket."""
        ways = [
            {
                "end": way.end,
                "over": way.is_over,
                "links": [
                    {"what": link.what, "member": link.member, "end": link.end, "over": link.is_over}
                    for link in way.links
                ],
            }
            for way in self.ways
        ]
        return {
            "service": self.service,
            "gets_in": self.gets_in,
            "observe": self.observe,
            "reasons": list(self.reasons),
            "of": self.of,
            "users": list(self.users),
            "ways": ways,
        }


@dataclass(frozen=True, slots=True)
class Situation:
    """What the host enforces, and what it waits for."""

    enforced: Desired | None
    """None: nothing was programmed yet."""
    kept: Mapping[str, Collection[Prefix]] = field(default_factory=dict)
    """By service or override, who stays though he should go: the guard holds that back."""
    kept_out: Mapping[str, Collection[Prefix]] = field(default_factory=dict)
    """The same of networks that should come in."""


def find_service(text: str, services: Sequence[Service]) -> Service:
    """The service that `ssh_tcp_22`, `ssh`, `22/tcp` or `22` means. Raises ValueError that says what there is."""
    exact = [each for each in services if each.name == text]
    named = [each for each in services if each.name.rsplit("_", 2)[0] == text]
    found = exact or named or [each for each in services if any(_has(ports, text) for ports in each.ports)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.name for each in found or services) or "none"
    if found:
        raise ValueError(f"{text!r} could be {names}: name one of them")
    raise ValueError(f"{text!r} is no service that this host protects; it protects: {names}")


def _has(ports: Ports, text: str) -> bool:
    try:
        wanted = [parse_ports(text, each) for each in Transport] if "/" not in text else [parse_ports(text)]
    except ValueError:
        return False
    return any(_holds(ports, each) for each in wanted)


def _holds(ports: Ports, other: Ports) -> bool:
    return ports.protocol is other.protocol and ports.first <= other.first and other.last <= ports.last


def around(address: Prefix) -> list[Prefix]:
    """The address, and all networks that it is in, the smallest first."""
    bits = 32 if address.version == 4 else 128
    return [
        Prefix(address.version, address.number >> bits - length << bits - length, length)
        for length in range(address.length, -1, -1)
    ]


def explain(address: Prefix, service: Service, knowledge: Knowledge, situation: Situation, now: float) -> Answer:
    """Why `address` gets into `service` at `now` (epoch seconds), in the order in which the rules ask."""
    enforced = situation.enforced
    if enforced is None:
        return Answer(service.name, gets_in=False, reasons=("nothing is enforced yet: Consul was not read",))
    near = around(address)
    users = tuple(sorted(_users(near, knowledge, now)))
    observe = enforced.posture.observe

    def answer(of: str, *reasons: str, gets_in: bool) -> Answer:
        ways = tuple(_ways(of, near, knowledge, now)) if of else ()
        held = [
            f"{prefix}: should {what}, which this host holds back (radius-bridge-agent status)"
            for what, held in (("go", situation.kept), ("come in", situation.kept_out))
            for prefix in near
            if prefix in held.get(of, ())
        ]
        return Answer(service.name, gets_in, (*reasons, *held), ways, of, users, observe)

    def is_in(name: str) -> bool:
        members = enforced.of(name)
        return any(prefix in members and not is_over(members[prefix], now) for prefix in near)

    for entry in enforced.failsafe:
        if any(network in near for network in entry.networks) and _covers(entry.ports, service):
            return answer("", "in the failsafe networks of this host's configuration", gets_in=True)
    if is_in(ALLOW):
        return answer(ALLOW, f"a member of {ALLOW}, who may reach everything", gets_in=True)
    if is_in(DENY):
        return answer(DENY, f"a member of {DENY}, who may reach nothing", gets_in=False)
    for each in enforced.posture.sets:
        if each.target is not Target.NONE and is_in(each.name):
            accepts = each.target is Target.ACCEPT
            return answer(each.name, f"a member of the set {each.name}: {each.target}", gets_in=accepts)
    if service.name not in {each.name for each in enforced.services}:
        return answer(service.name, "not ready: what Consul says of this service was not read yet", gets_in=False)
    if is_in(service.name):
        return answer(service.name, "a member of the service", gets_in=True)
    reasons = _missing(address, service, near, users, knowledge, now)
    return answer(service.name, *reasons, gets_in=False)


def _covers(ports: Sequence[Ports], service: Service) -> bool:
    return any(_holds(ours, each) for ours in ports for each in service.ports)


def _users(near: Sequence[Prefix], knowledge: Knowledge, now: float) -> set[str]:
    return {
        describe(group)
        for prefix in near
        for group, end in knowledge.holders(prefix).items()
        if group.name.startswith("user.") and not is_over(end, now)
    }


def _ways(name: str, near: Sequence[Prefix], knowledge: Knowledge, now: float) -> Iterator[Way]:
    """All ways from the address to what `name` grants; each group once, the ways that still hold first."""
    grants = knowledge.grants(name)
    found: list[Way] = []
    waiting: list[tuple[Member, tuple[Link, ...], float]] = [(prefix, (), -1) for prefix in near]
    seen: set[Member] = set()
    while waiting and len(found) < MOST:
        member, links, end = waiting.pop(0)
        if member in seen or len(links) > DEEPEST:
            continue
        seen.add(member)
        if member in grants:
            last = Link(f"grant {name}", describe(member), grants[member], is_over(grants[member], now))
            whole = earliest(end, last.end)
            found.append(Way((*links, last), whole, is_over(whole, now)))
        for group, until in knowledge.holders(member).items():
            link = Link(describe(group), describe(member), until, is_over(until, now))
            waiting.append((group, (*links, link), earliest(end, until)))
    yield from sorted(found, key=lambda way: way.is_over)


def _missing(
    address: Prefix, service: Service, near: Sequence[Prefix], users: Sequence[str], knowledge: Knowledge, now: float
) -> list[str]:
    """What would have to be there for the address to get in."""
    grants = knowledge.grants(service.name)
    ways = list(_ways(service.name, near, knowledge, now))
    if ways:
        over = [link for way in ways[:3] for link in way.links if link.is_over]
        return [f"expired: {link.member} in {link.what}" for link in over] or ["a change is on its way"]
    groups = sorted({describe(group) for prefix in near for group in knowledge.holders(prefix)})
    if not any(not is_over(end, now) for end in grants.values()):
        return [
            f"no grant: nobody is granted {service.name} (radius-bridge grant WHO {service.name})",
            *_who(address, groups),
        ]
    if groups:
        return [f"no grant of {service.name} names {', '.join(groups[:10])}, nor a group that holds them"]
    named = ", ".join(sorted(map(describe, grants))[:10])
    return [f"no member: {service.name} is granted to {named}, none of which holds {address}", *_who(address, groups)]


def _who(address: Prefix, groups: Sequence[str]) -> list[str]:
    return [] if groups else [f"`radius-bridge who {address}` says who is behind it, and until when"]


def parse_address(text: str) -> Prefix:
    """One address. Raises ValueError for anything else."""
    try:
        found = parse_prefix(text)
    except ValueError as error:
        raise ValueError(f"{error}: ask for one address (`radius-bridge who NAME` shows a user's)") from None
    if not found.is_host:
        raise ValueError(f"{text!r} is a network: ask for one address")
    return found
