"""The last good state is written one state after the other, also at the end of the process."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.saving import Saver
from agent.state import State
from agent.statefile import StateFile
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Service, parse_ports
from radius_bridge.registry.keys import Scope

SSH = Service("ssh_tcp_22", (parse_ports("22"),))
PEOPLE = {Prefix(4, number, 32): 2_000_000_000.0 for number in range(3)}


class _Slow(Mapping[str, Mapping[Prefix, float]]):
    """Members that are being written for as long as the test wants."""

    def __init__(self) -> None:
        self.is_reached = threading.Event()
        self.may_go_on = threading.Event()

    def __getitem__(self, name: str) -> Mapping[Prefix, float]:
        self.is_reached.set()
        self.may_go_on.wait(10)
        return PEOPLE

    def __iter__(self) -> Iterator[str]:
        yield SSH.name

    def __len__(self) -> int:
        return 1


def _state(written: float, members: Mapping[str, Mapping[Prefix, float]]) -> State:
    return State("befw", Scope("dc1", "web1"), written, (SSH,), members, {}, written)


async def test_a_stop_while_a_state_is_written_leaves_the_last_one_whole(tmp_path: Path) -> None:
    slow = _Slow()
    states = [_state(2.0, {SSH.name: {}}), _state(1.0, slow)]

    async def take() -> State:
        return states.pop()

    file = StateFile(tmp_path)
    saver = Saver(file, take)
    saver.changed()
    running = asyncio.create_task(saver.run())
    assert await asyncio.to_thread(slow.is_reached.wait, 10)
    # As at SIGTERM: the task ends, its thread does not, and the process writes once more.
    running.cancel()
    last = asyncio.create_task(saver.save())
    await asyncio.wait({last}, timeout=0.2)
    slow.may_go_on.set()
    assert await last, saver.error
    await asyncio.get_running_loop().shutdown_default_executor()
    kept = file.read()
    assert kept is not None
    assert kept.written == 2.0


async def test_what_is_forgotten_while_it_is_written_does_not_come_back(tmp_path: Path) -> None:
    slow = _Slow()

    async def take() -> State:
        return _state(1.0, slow)

    file = StateFile(tmp_path)
    saver = Saver(file, take)
    writing = asyncio.create_task(saver.save())
    assert await asyncio.to_thread(slow.is_reached.wait, 10)
    forgetting = asyncio.create_task(saver.forget())
    await asyncio.wait({forgetting}, timeout=0.2)
    slow.may_go_on.set()
    await forgetting
    await writing
    await saver.save()
    assert file.read() is None
