"""A disk that is full, or cannot be written any more: the last state stays, and that it gets old is told."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.saving import Saver
from agent.state import State, encode
from agent.statefile import StateFile
from radius_bridge.policy.members import Prefix
from radius_bridge.registry.keys import Scope

pytestmark = pytest.mark.e2e


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.fail("mounting needs root: run this as root, or leave tests/e2e out")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def state(members: int) -> State:
    many = {Prefix(4, number, 32): 2000.0 for number in range(members)}
    return State("befw", Scope("dc1", "web1"), 1000.0, (), {"rules_allow": many, "rules_deny": {}}, {}, 1000.0)


def full(disk: Path) -> None:
    (disk / "something else").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))


def read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


@pytest.mark.parametrize(("trouble", "named"), [(full, "No space left"), (read_only, "Read-only file system")])
async def test_the_last_state_stays_and_the_failure_is_told(
    disk: Path, trouble: Callable[[Path], None], named: str
) -> None:
    file = StateFile(disk)
    file.write(encode(state(1000)))
    await asyncio.to_thread(trouble, disk)

    async def take() -> State:
        return state(2000)

    saver = Saver(file, take)
    assert not await saver.save()
    assert named in saver.error
    assert file.read() == state(1000)
    if trouble is full:
        (disk / "something else").unlink()
        assert await saver.save()
        assert saver.error == ""
        assert file.read() == state(2000)
        assert {path.name for path in disk.iterdir()} == {"state"}
