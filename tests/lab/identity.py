"""Two bridges' session engines on one Consul, the facts that they are told, and the faults that befall them.

A bridge here is a process of its own with the real lanes, neighbours, feed, leader and sweeper, but without a listener:
what it takes are facts on its standard input (`python -m tests.lab.identity_bridge`), so that leases can be told like
packets, and that what happened when is the test's to say.
"""

import asyncio
import itertools
import pickle
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from radius_bridge.identity.events import Kind, Lease, Restart
from radius_bridge.policy.members import Prefix
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.records import decode_binding, members
from tests.identity.reference import Reference
from tests.identity.world import NOW, Fact, accounting
from tests.lab.processes import PROJECT, LabError

CLOCK = NOW + 3000.0
"""What the bridges take for the present (epoch seconds): all facts are of the hour before."""

STEP = 400.0
"""Seconds between any two moments of one session: none is so slight that it is not written."""

LOCK = 10
"""Seconds that a leader's lock lives unrenewed; Consul takes up to twice that."""

PATIENCE = 30.0
"""Seconds within which all must be well after the last fault."""


@dataclass(frozen=True)
class Island:
    """Some stations, users, NASes and addresses that nobody else has to do with, and what happens there."""

    facts: tuple[Fact, ...]
    addresses: tuple[Prefix, ...]


def island(number: int, dice: random.Random, facts: int = 12) -> Island:
    """Draws an island: logins with and without addresses, leases, roaming, hand-overs, restarts."""
    addresses = (
        Prefix(4, 0x0A000000 + 4 * number, 32),
        Prefix(4, 0x0A000001 + 4 * number, 32),
        Prefix(6, (0x20010DB8 << 96) + number, 128),
    )
    alice, bob, carol = (f"{name}{number}" for name in ("alice", "bob", "carol"))
    laptop, phone = (
        f"02:{kind:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}:00" for kind in (1, 2)
    )
    nases = (f"ap{number}", f"sw{number}")
    controller, multi = f"controller{number}", f"M{number}"
    sessions = (
        (f"{nases[0]}/1", (alice, bob), laptop, "", 0),
        (f"{nases[0]}/2", (bob,), phone, multi, 0),
        (f"{nases[1]}/1", (alice,), laptop, multi, 0),
        (f"{nases[1]}/2", (alice, carol), "", multi, 0),
        (f"{nases[1]}/3", (carol,), "", "", 1500),
    )

    def fact() -> Fact:
        at = STEP * dice.randint(0, 7)
        kind = dice.random()
        if kind < 0.7:
            name, users, mac, common, timeout = dice.choice(sessions)
            return accounting(
                dice.choice((Kind.START, Kind.INTERIM, Kind.INTERIM, Kind.STOP)),
                dice.choice(users),
                name,
                *dice.sample(addresses, dice.choice((0, 0, 1, 1, 2))),
                at=at + (37 if name.startswith("sw") else 0),
                heard=at,
                source=controller,
                mac=mac,
                multi=common,
                timeout=timeout,
            )
        if kind < 0.93:
            term = dice.choice((0.0, 1800.0, 3600.0))
            return Lease(dice.choice(addresses), dice.choice((laptop, phone, "")), NOW + at, NOW + at + term, "kea")
        nas = dice.choice((*nases, ""))
        return Restart(controller, nas, NOW + at + (37 if nas.startswith("sw") else 0), NOW + at)

    return Island(tuple(fact() for _ in range(facts)), addresses)


class Cut:
    """A way to Consul that can be cut (connections end, none is made) or frozen (nothing arrives, nothing ends)."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = asyncio.Event()
        self._open.set()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends all connections, and those that come at once."""
        self._is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def freeze(self) -> None:
        """Keeps everything on its way."""
        self._open.clear()

    def mend(self) -> None:
        """All is well again."""
        self._is_cut = False
        self._open.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            other_reader, other_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, other_writer}
        try:
            with suppress(asyncio.CancelledError):  # at the end: asyncio would log it
                await asyncio.gather(self._pump(reader, other_writer), self._pump(other_reader, writer))
        finally:
            for each in (writer, other_writer):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Bridge:
    """One bridge: a process that can be killed, stopped and cut off."""

    def __init__(self, root: str, way: Cut) -> None:
        self._root = root
        self.way = way
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._numbers = itertools.count()
        self.ready = asyncio.Event()

    async def start(self) -> None:
        """Starts the process; returns when it has read what is recorded."""
        argv = (sys.executable, "-m", "tests.lab.identity_bridge", f"http://127.0.0.1:{self.way.port}", self._root)
        self._process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=PROJECT,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        async with asyncio.timeout(60):
            await self.ready.wait()

    async def tell(self, fact: Fact, timeout: float = 5.0) -> bool:
        """Tells it a fact; True if it said within `timeout` seconds that this is recorded."""
        process = self._process
        if process is None or process.stdin is None or process.returncode is not None or not self.ready.is_set():
            return False
        number = next(self._numbers)
        done = self._waiting[number] = asyncio.get_running_loop().create_future()
        frame = pickle.dumps((number, fact))
        try:
            process.stdin.write(len(frame).to_bytes(4, "big") + frame)
            async with asyncio.timeout(timeout):
                await process.stdin.drain()
                return bool(await done)
        except (TimeoutError, OSError):
            return False
        finally:
            self._waiting.pop(number, None)

    @property
    def pid(self) -> int:
        """The process's id; 0 if there is none."""
        return 0 if self._process is None else self._process.pid

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self.ready.clear()
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    def pause(self) -> None:
        """SIGSTOP."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        # One that was killed may leave half a line.
        while (line := await process.stdout.readline()).endswith(b"\n"):
            word, _, number = line.decode().strip().partition(" ")
            if word == "ready":
                self.ready.set()
            else:
                waiting = self._waiting.get(int(number))
                if waiting is not None and not waiting.done():
                    waiting.set_result(word == "done")
        self.ready.clear()
        for each in self._waiting.values():
            if not each.done():
                each.set_result(False)


@dataclass
class Outcome:
    """What a run came to."""

    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class Run:
    """One run: facts through two bridges, faults meanwhile, and the state in Consul against the reference."""

    def __init__(
        self, url: str, root: str, dice: random.Random, islands: Sequence[Island], faults: Sequence[str]
    ) -> None:
        self._url = url
        self._keys = Keys(root)
        self._dice = dice
        self._islands = islands
        self._faults = faults
        self._may_tell = asyncio.Semaphore(0)
        self.outcome = Outcome()

    async def run(self, consul: Consul, *, at_once: int = 100) -> Outcome:
        """Does it all; `consul` is a connection that no fault befalls."""
        host, _, port = self._url.removeprefix("http://").partition(":")
        async with Cut(host, int(port)) as one, Cut(host, int(port)) as two:
            bridges = [Bridge(self._keys.root, one), Bridge(self._keys.root, two)]
            try:
                await asyncio.gather(*(bridge.start() for bridge in bridges))
                async with asyncio.TaskGroup() as tasks:
                    watcher = tasks.create_task(self._watch(consul))
                    trouble = tasks.create_task(self._trouble(consul, bridges))
                    await self._tell_all(bridges, at_once)
                    await trouble
                    watcher.cancel()
                await self._judge(consul)
            finally:
                for bridge in bridges:
                    bridge.resume()
                    await bridge.kill()
        return self.outcome

    async def _tell_all(self, bridges: list[Bridge], at_once: int) -> None:
        """Tells every fact until some bridge says that it is recorded; some of them once more afterwards."""
        facts = [fact for each in self._islands for fact in each.facts]
        facts += self._dice.sample(facts, len(facts) // 5)
        self._dice.shuffle(facts)
        self.outcome.events = len(facts)
        queue = iter(facts)

        async def work() -> None:
            for fact in queue:
                await self._may_tell.acquire()
                for attempt in itertools.count():
                    if await self._dice.choice(bridges).tell(fact, timeout=min(2.0 * 2**attempt, 15.0)):
                        break
                    await asyncio.sleep(0.02)
                    if attempt > 200:
                        raise LabError(f"nobody records {fact}")

        await asyncio.gather(*(work() for _ in range(at_once)))

    async def _trouble(self, consul: Consul, bridges: list[Bridge]) -> None:
        """Faults, one after the other: each befalls one bridge for a while, and a share of the facts is told then."""
        for fault in self._faults:
            self._let_tell(len(self._faults) + 1)
            await asyncio.sleep(self._dice.uniform(0.1, 0.6))
            bridge = self._dice.choice(bridges)
            self.outcome.faults[fault] += 1
            match fault:
                case "kill":
                    await bridge.kill()
                    await bridge.start()
                case "pause":
                    bridge.pause()
                    await asyncio.sleep(self._dice.uniform(0.2, 2.0))
                    bridge.resume()
                case "lapse":
                    # Longer than its lock, until the other one has it.
                    leader = await self._leader(consul, bridges)
                    leader.pause()
                    await self._leader(consul, [each for each in bridges if each is not leader])
                    leader.resume()
                case "cut":
                    bridge.way.cut()
                    await asyncio.sleep(self._dice.uniform(0.2, 2.0))
                    bridge.way.mend()
                case "freeze":
                    bridge.way.freeze()
                    await asyncio.sleep(self._dice.uniform(0.2, 6.0))
                    bridge.way.mend()
        self._let_tell(1)

    def _let_tell(self, parts: int) -> None:
        """Lets one of so many parts of all facts be told (every fifth is told twice)."""
        for _ in range(-(-sum(len(each.facts) for each in self._islands) * 6 // (5 * parts))):
            self._may_tell.release()

    async def _leader(self, consul: Consul, bridges: list[Bridge]) -> Bridge:
        """Waits until one of these leads, and tells which."""
        async with asyncio.timeout(6 * LOCK):
            while True:
                lock = await consul.get(self._keys.lock("sweeper"))
                for bridge in bridges if lock is not None and lock.session else []:
                    if lock is not None and lock.value.endswith(b":%d" % bridge.pid):
                        return bridge
                await asyncio.sleep(0.1)

    async def _watch(self, consul: Consul) -> None:
        """No address may be in two users' groups at any moment."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            users: dict[str, str] = {}
            for entry in (await consul.read(self._keys.groups, consistency="consistent")).entries:
                group, _, address = entry.key.removeprefix(self._keys.groups).partition("/")
                if int(entry.value) > CLOCK and users.setdefault(address, group) != group:
                    self.outcome.violations.append(f"{address} is in {users[address]} and {group}")
            await asyncio.sleep(max(0.1, 2 * (loop.time() - began)))

    async def _judge(self, consul: Consul) -> None:
        """In the end everybody has what the reference says; bridges may need a moment to make up for lost news."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while wrong := await self._differences(consul):
            if loop.time() > deadline:
                self.outcome.violations += wrong
                return
            await asyncio.sleep(0.5)

    async def _differences(self, consul: Consul) -> list[str]:
        bindings = {
            entry.key.removeprefix(self._keys.bindings): decode_binding(entry.key, entry.value)
            for entry in (await consul.read(self._keys.bindings, consistency="consistent")).entries
        }
        stored = {
            entry.key: entry.value
            for entry in (await consul.read(self._keys.groups, consistency="consistent")).entries
            if int(entry.value) > CLOCK
        }
        wrong: list[str] = []
        expected: dict[str, bytes] = {}
        for each in self._islands:
            reference = Reference(each.facts)
            for address in each.addresses:
                user, expires = reference.owner(address, CLOCK)
                binding = bindings.get(str(address))
                holding = None if binding is None else binding.holding(CLOCK)
                has = ("", 0.0) if holding is None else (holding.user, holding.expires)
                if has != (user, expires):
                    wrong.append(f"{address}: Consul has {has}, the reference {(user, expires)}")
                if binding is not None:
                    expected |= members(self._keys, str(address), binding, CLOCK)
        if expected != stored:
            wrong.append(f"groups and bindings differ: {sorted(expected.items() ^ stored.items())[:4]}")
        return wrong
