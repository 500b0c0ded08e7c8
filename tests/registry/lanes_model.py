"""Bridges' lanes on a Consul in memory, told what happens on one island, whatever goes wrong, against the reference.

It shows in some milliseconds what `tests.lab.identity` shows in some ten seconds on a real Consul: only what follows
from one fact for another is tried here, and thousands of times.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from unittest.mock import patch

from radius_bridge.identity.events import Lease
from radius_bridge.registry import announcer, lanes, pages
from radius_bridge.registry.errors import NotRecorded, RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.records import decode_binding, members
from tests.identity.reference import Reference
from tests.identity.world import Fact
from tests.lab.identity import CLOCK, island
from tests.registry.fake_consul import FakeConsul, Fault

KEYS = Keys()
LEARNT = (KEYS.sessions, KEYS.bindings, KEYS.restarts)
"""What bridges learn from one another."""


async def violations(seed: int) -> list[str]:
    """What is other than the reference has it, in the end of one run."""
    with (
        patch.object(announcer, "QUIET", 0.0),
        patch.object(announcer, "BACKOFF", (0.0, 0.0)),
        patch.object(announcer, "FIRST_INTERVAL", 0.0),
        patch.object(announcer, "LONGEST_INTERVAL", 0.0),
        patch.object(pages, "QUIET", 0.0),
        patch.object(lanes, "INTERVALS", (0.0, 0.0)),
        patch.object(lanes, "IDENTITY_INTERVAL", 0.0),
        patch.object(lanes, "BACKOFF", (0.0, 0.0)),
    ):
        return await _Run(random.Random(seed)).run()


async def settled(bridge: Lanes) -> None:
    """Returns when a bridge has done all that follows from what it knows."""
    while any(lane.pending for lane in bridge._tickets.lanes):  # noqa: ASYNC110 - refreshes have nobody who waits
        await asyncio.sleep(0)


class _Bridge:
    """The lanes of one bridge, and what it has heard of by the feed."""

    def __init__(self, consul: FakeConsul, life: AsyncExitStack) -> None:
        self.consul = consul
        self.life = life
        self.lanes = Lanes(consul, KEYS, count=2, clock=lambda: CLOCK, patience=60.0)
        self.heard: dict[str, int] = {}

    def news(self) -> list[Entry]:
        """What it has not heard of yet."""
        return [
            entry
            for key, entry in self.consul.store.items()
            if key.startswith(LEARNT) and self.heard.get(key, 0) < entry.modify_index
        ]

    def hear(self, news: Sequence[Entry]) -> None:
        """It hears of this."""
        self.heard |= {entry.key: entry.modify_index for entry in news}
        self.lanes.learn(news)


class _Run:
    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        island_ = island(0, dice, facts=dice.randint(2, 12))
        self.facts, self.addresses = list(island_.facts), island_.addresses
        self.faulty = dice.random() < 0.5
        self.consul = FakeConsul(self._fault)
        self.bridges: list[_Bridge] = []

    def _fault(self) -> Fault:
        return self.dice.choices(list(Fault), (12, 1, 1, 1))[0] if self.faulty else Fault.NONE

    async def run(self) -> list[str]:
        """Tells every fact, some of them twice, to some bridge."""
        facts = self.facts + self.dice.sample(self.facts, len(self.facts) // 5)
        self.dice.shuffle(facts)
        async with AsyncExitStack() as stack:
            for _ in range(self.dice.choice((1, 2, 2, 3))):
                self.bridges.append(await self._start(stack))
            telling: list[asyncio.Task[None]] = []
            for fact in facts:
                telling.append(asyncio.create_task(self._tell(fact)))
                await self._something_happens(stack, telling)
            await asyncio.gather(*telling)
            self.faulty = False
            await self._settle()
        return self._differences()

    async def _start(self, stack: AsyncExitStack) -> _Bridge:
        bridge = _Bridge(self.consul, await stack.enter_async_context(AsyncExitStack()))
        await bridge.life.enter_async_context(bridge.lanes)
        await self._load(bridge)
        return bridge

    async def _load(self, bridge: _Bridge) -> None:
        while True:
            try:
                await bridge.lanes.load()
            except RegistryError:
                continue
            return

    async def _tell(self, fact: Fact) -> None:
        """Tells it until some bridge says that it is recorded."""
        while True:
            bridge = self.dice.choice(self.bridges)
            try:
                await (bridge.lanes.submit_lease(fact) if isinstance(fact, Lease) else bridge.lanes.submit(fact))
            except NotRecorded:
                continue
            return

    async def _something_happens(self, stack: AsyncExitStack, telling: Sequence[asyncio.Task[None]]) -> None:
        match self.dice.choice(("nothing", "a moment", "a moment", "recorded", "news", "news", "news", "again", "end")):
            case "a moment":
                await asyncio.sleep(0)
            case "recorded":
                await telling[-1]
            case "news":
                bridge = self.dice.choice(self.bridges)
                news = bridge.news()
                bridge.hear(self.dice.sample(news, self.dice.randint(0, len(news))))
            case "again":
                await self._load(self.dice.choice(self.bridges))
            case "end" if self.dice.random() < 0.2:
                place = self.dice.randrange(len(self.bridges))
                bridge = self.bridges[place]
                self.bridges[place] = await self._start(stack)
                await bridge.life.aclose()

    async def _settle(self) -> None:
        """Everybody hears of everything, until that changes nothing any more."""
        while True:
            before, some = self.consul.index, False
            for bridge in self.bridges:
                news = bridge.news()
                some |= bool(news)
                self.dice.shuffle(news)
                bridge.hear(news)
            for bridge in self.bridges:
                await settled(bridge.lanes)
            if not some and self.consul.index == before:
                return

    def _differences(self) -> list[str]:
        reference, wrong = Reference(self.facts), []
        store = self.consul.store
        expected: dict[str, bytes] = {}
        for address in self.addresses:
            user, expires = reference.owner(address, CLOCK)
            entry = store.get(KEYS.binding(address))
            binding = None if entry is None else decode_binding(entry.key, entry.value)
            holding = None if binding is None else binding.holding(CLOCK)
            has = ("", 0.0) if holding is None else (holding.user, holding.expires)
            if has != (user, expires):
                wrong.append(f"{address}: Consul has {has}, the reference {(user, expires)}")
            if binding is not None:
                expected |= members(KEYS, str(address), binding, CLOCK)
        groups = {k: e.value for k, e in store.items() if k.startswith(KEYS.groups) and int(e.value) > CLOCK}
        if groups != expected:
            wrong.append(f"groups and bindings differ: {sorted(expected.items() ^ groups.items())}")
        return wrong
