"""The session engine against a reference: any interleaving, repetition and delay ends in the same state."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from radius_bridge.identity.events import Kind, Lease, Restart
from radius_bridge.policy.members import Prefix
from tests.identity.reference import Reference
from tests.identity.world import LAPTOP, NOW, PHONE, Fact, World, X, Y, Z, accounting

ADDRESSES = (X, Y, Z)
NASES = {"ap1": 0.0, "ap2": 40.0}
"""How far their clocks are ahead, in seconds."""

sessions = st.sampled_from(
    [
        # NAS and session, its users (the machine's, and then a person), MAC address, Acct-Multi-Session-Id
        ("ap1/1", ("alice", "bob"), LAPTOP, ""),
        ("ap1/2", ("bob",), PHONE, "M"),
        ("ap2/1", ("alice",), LAPTOP, "M"),
        ("ap2/2", ("alice", "carol"), "", "M"),
        ("ap2/3", ("carol",), "", ""),
    ]
)
moments = st.integers(1, 9).map(lambda number: 70.0 * number)
"""More than LATENESS apart: closer together, beginnings are one."""
addresses = st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple)


class Bridges(RuleBasedStateMachine):
    """Facts come to be, and are heard at some time, once or more often, by one engine."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.heard: list[Fact] = []
        self.delayed: list[Fact] = []

    def happens(self, fact: Fact, is_delayed: bool) -> None:
        """Something happens; bridges hear of it now or later."""
        if is_delayed:
            self.delayed.append(fact)
        else:
            self.hear(fact)

    def hear(self, fact: Fact) -> None:
        """Bridges hear of something."""
        self.heard.append(fact)
        self.world.play(fact)

    @rule(
        session=sessions,
        kind=st.sampled_from(Kind),
        which=st.integers(0, 1),
        at=moments,
        named=addresses,
        delayed=st.booleans(),
    )
    def accounting(
        self,
        session: tuple[str, tuple[str, ...], str, str],
        kind: Kind,
        which: int,
        at: float,
        named: tuple[Prefix, ...],
        delayed: bool,
    ) -> None:
        """A NAS reports."""
        name, users, mac, multi = session
        skew = NASES[name.partition("/")[0]]
        user = users[which % len(users)]
        timeout = 400 if name == "ap2/3" else 0
        self.happens(
            accounting(kind, user, name, *named, at=at + skew, heard=at, mac=mac, multi=multi, timeout=timeout), delayed
        )

    @rule(
        mac=st.sampled_from([LAPTOP, PHONE, ""]),
        address=st.sampled_from(ADDRESSES),
        at=moments,
        term=st.sampled_from([0.0, 150.0, 1000.0]),
        delayed=st.booleans(),
    )
    def lease(self, mac: str, address: Prefix, at: float, term: float, delayed: bool) -> None:
        """A DHCP server gives, renews or takes back."""
        self.happens(Lease(address, mac, NOW + at, NOW + at + term, "kea"), delayed)

    @rule(nas=st.sampled_from(["", "ap1", "ap2"]), at=moments, delayed=st.booleans())
    def restart(self, nas: str, at: float, delayed: bool) -> None:
        """A NAS restarts."""
        self.happens(Restart("controller", nas, NOW + at + NASES.get(nas, 0.0), NOW + at), delayed)

    @rule(data=st.data())
    def arrives(self, data: st.DataObject) -> None:
        """Something that was delayed arrives."""
        if self.delayed:
            self.hear(self.delayed.pop(data.draw(st.integers(0, len(self.delayed) - 1))))

    @rule(data=st.data())
    def is_repeated(self, data: st.DataObject) -> None:
        """Something that was heard already arrives once more, and changes nothing."""
        if self.heard:
            fact = self.heard[data.draw(st.integers(0, len(self.heard) - 1))]
            before = (dict(self.world.sessions), dict(self.world.bindings))
            self.world.play(fact)
            assert (self.world.sessions, self.world.bindings) == before, fact

    @invariant()
    def nobody_has_what_the_reference_gives_to_somebody_else(self) -> None:
        """Of what was heard by now, the engine makes what the reference does."""
        self.compare(self.world, self.heard)

    def teardown(self) -> None:
        """In the end all has arrived; in another order it comes to the same."""
        facts = [*self.heard, *self.delayed]
        self.compare(self.world.play(*self.delayed), facts)
        random.Random(len(facts)).shuffle(facts)
        self.compare(World().play(*facts), facts)

    @staticmethod
    def compare(world: World, facts: list[Fact]) -> None:
        """Both say who has each address, and until when."""
        reference = Reference(facts)
        for address in ADDRESSES:
            for at in (0.0, 300.0, 650.0):
                holding = world.holding(address, at)
                assert (holding.user, holding.expires) == reference.owner(address, NOW + at), (str(address), at)


Bridges.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestBridges = Bridges.TestCase
