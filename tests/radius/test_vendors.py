"""Accounting as makers' controllers send it, from the octets to who holds which address (vendors/README.md)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from radius_bridge.identity.engine import take_event, take_lease
from radius_bridge.identity.events import Event, Lease
from radius_bridge.identity.names import Naming
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.accounting import Rules, interpret
from radius_bridge.radius.addresses import Source
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.clients import Client, Networks
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import Attribute, accounting_request, is_genuine, parse
from radius_bridge.radius.users import USER_NAME, GroupRule, Users
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import Known
from radius_bridge.registry.records import members
from radius_bridge.registry.turn import Overlay

STORIES = sorted(Path(__file__).parent.glob("vendors/*.txt"))
BEGAN = 1_700_000_000.0
SECRET = b"a shared secret!"
CLIENT = Client(
    name="campus",
    address=parse_prefix("192.0.2.1"),
    secret=SECRET,
    networks=Networks(map(parse_prefix, ("10.20.0.0/16", "2001:db8:20::/64"))),
)
GROUPS = (
    GroupRule("Class", "radius.staff", value="staff"),
    GroupRule("Class", "radius.printers", value="printers"),
    GroupRule("Aruba-User-Role", "radius.employees", value="employee"),
    GroupRule("NAS-Identifier", "radius.vpn", value="gateway"),
)
RULES = Rules(
    default_lease=8 * 3600,
    shared=Networks([]),
    users=Users(Naming(), (USER_NAME, Source("Chargeable-User-Identity")), GROUPS, standard()),
)


@dataclass
class Step:
    """One block of a story."""

    at: float
    what: str
    lines: list[str]
    """Attributes, or a lease."""
    event: str
    who: str


def steps(story: Path) -> Iterator[Step]:
    """The blocks of a story's file."""
    text = re.sub(r"^#.*\n", "", story.read_text(), flags=re.M)
    for block in text.strip().split("\n\n"):
        head, *lines = block.splitlines()
        seconds, _, what = head.removeprefix("@").partition(" ")
        said = {name: value for line in lines for name, _, value in [line.partition(": ")] if name in {"event", "who"}}
        rest = [line for line in lines if not line.startswith(("event: ", "who: "))]
        yield Step(BEGAN + float(seconds), what, rest, said.get("event", ""), said["who"])


def attributes(lines: list[str]) -> list[Attribute]:
    """The attributes of a packet as a story writes them."""
    found: list[Attribute] = []
    for line in lines:
        name, _, value = line.partition(" = ")
        quoted = re.fullmatch('"(.*)"', value)
        found += assign(f"{name}=0x{quoted[1].encode().hex()}" if quoted else f"{name}={value}", standard())
    return found


def as_text(event: Event) -> str:
    """An event as a story writes it."""
    return " ".join([event.user or "?", event.mac or "-", event.session, *map(str, event.addresses), *event.groups])


class Engine:
    """Sessions and bindings, and what there would be in Consul."""

    def __init__(self) -> None:
        self.keys = Keys()
        self.state = Overlay(Known(self.keys), lambda _source, address: parse_prefix(address) in CLIENT.networks)

    def take(self, step: Step) -> Event | None:
        """Takes what a step says; gives the event if that is a packet."""
        if step.lines[0].startswith("lease "):
            _, address, mac, seconds = step.lines[0].split()
            lease = Lease(parse_prefix(address), mac, step.at, step.at + float(seconds), "dhcp")
            take_lease(self.state, lease, step.at)
            return None
        packet = parse(accounting_request(1, attributes(step.lines), SECRET))
        assert is_genuine(packet, SECRET)
        result = interpret(packet.attributes, CLIENT, RULES, step.at)
        assert isinstance(result.event, Event)
        assert (result.refused, result.ignored) == ((), 0)
        assert take_event(self.state, result.event, step.at)
        return result.event

    def who(self, now: float) -> str:
        """Who holds which address, as a story writes it."""
        held = []
        for address, binding in sorted(self.state.bindings.items()):
            holding = binding.holding(now)
            if holding.user:
                held.append(" ".join([address, holding.user, *sorted(holding.groups)]))
        return "; ".join(held) or "-"

    def written(self, now: float) -> set[str]:
        """The groups that hold an address."""
        found = set()
        for address, binding in self.state.bindings.items():
            found |= {key.split("/")[2] for key in members(self.keys, address, binding, now)}
        return found


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.stem)
def test_each_packet_means_what_the_story_says(story: Path) -> None:
    engine = Engine()
    for step in steps(story):
        event = engine.take(step)
        assert (as_text(event) if event else "") == step.event, step.what
        assert engine.who(step.at) == step.who, step.what
        assert "$user.@nobody$" not in engine.written(step.at)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.stem)
def test_every_packet_may_come_twice(story: Path) -> None:
    engine = Engine()
    for step in steps(story):
        engine.take(step)
        engine.take(step)
        assert engine.who(step.at) == step.who, step.what


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.stem)
def test_after_its_last_packet_no_packet_of_a_story_changes_or_revives_anything(story: Path) -> None:
    every = list(steps(story))
    engine = Engine()
    for step in every:
        engine.take(step)
    for step in every:
        engine.take(step)
        assert engine.who(every[-1].at) == every[-1].who, step.what


def test_every_story_has_a_login_an_update_and_a_logout() -> None:
    assert {story.stem for story in STORIES} >= {"cisco-catalyst", "cisco-wlc", "aruba", "ruckus", "mikrotik", "huawei"}
    for story in STORIES:
        packets = "\n".join(line for step in steps(story) for line in step.lines)
        assert all(f"Acct-Status-Type = {status}" in packets for status in ("Start", "Interim-Update", "Stop"))
