"""Following Kea's lease file through what Kea, and others, do to it."""

import asyncio
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radius_bridge.leases.keafile import KeaFile, Reader
from radius_bridge.leases.outbox import LANES, WAITING
from radius_bridge.leases.source import Trouble
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.clients import Networks
from tests.leases.recorder import Recorder, running
from tests.leases.test_kea import HEADER4, MAC
from tests.waiting import until

WITHIN = Networks([parse_prefix("10.0.0.0/8"), parse_prefix("192.0.2.0/24")])
NOW = int(time.time())
OTHER = "02:00:00:00:00:77"


def row(address: str, mac: str = MAC, *, lifetime: int = 600, given: int = NOW, state: int = 0) -> str:
    return f"{address},{mac},,{lifetime},{given + lifetime},1,0,0,,{state},\n"


def write(path: Path, *rows: str) -> Path:
    path.write_text(HEADER4 + "\n" + "".join(rows))
    return path


def append(path: Path, *rows: str) -> None:
    with path.open("a") as file:
        file.write("".join(rows))


def clean_up(path: Path, *rows: str) -> None:
    """What Kea does first when it cleans up: rename, and begin a new file."""
    path.rename(path.with_name(path.name + ".1"))
    write(path, *rows)


class Following:
    """A source whose looks the test takes itself."""

    def __init__(self, path: Path) -> None:
        self.recorder = Recorder()
        self.source = KeaFile("dhcp", WITHIN, self.recorder.submit, path)

    async def look(self) -> list[tuple[str, str, bool]]:
        """Takes a look; gives what it told: address, MAC, whether it lives. What is wrong is in `trouble`."""
        self.recorder.leases.clear()
        self.trouble = ""
        task = asyncio.create_task(self.source._outbox.run())
        try:
            await self.source.look()
        except Trouble as trouble:
            self.trouble = str(trouble)
        lanes = self.source._outbox._lanes
        await until(lambda: not any(lane.waiting for lane in lanes) and not self.recorder.under_way, "the outbox")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return sorted((str(each.address), each.mac, each.expires > each.at) for each in self.recorder.leases)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kea-leases4.csv"


async def test_the_whole_file_is_told_first_the_last_row_of_each_address_and_then_only_what_is_new(path: Path) -> None:
    write(path, row("192.0.2.1"), row("192.0.2.2"), row("192.0.2.1", OTHER))
    following = Following(path)
    assert await following.look() == [("192.0.2.1", OTHER, True), ("192.0.2.2", MAC, True)]
    assert await following.look() == []
    append(path, row("192.0.2.2", lifetime=0), row("192.0.2.3"))
    assert await following.look() == [("192.0.2.2", MAC, False), ("192.0.2.3", MAC, True)]
    assert not following.trouble


async def test_what_ran_out_long_ago_is_not_told_but_what_was_given_back_is(path: Path) -> None:
    write(path, row("192.0.2.1", given=NOW - 5000), row("192.0.2.2", lifetime=0), row("192.0.2.3", state=1))
    assert await Following(path).look() == [("192.0.2.2", MAC, False), ("192.0.2.3", MAC, False)]


async def test_what_is_outside_the_sources_networks_is_counted_and_left_out(path: Path) -> None:
    following = Following(write(path, row("198.51.100.1"), row("192.0.2.1")))
    assert await following.look() == [("192.0.2.1", MAC, True)]
    assert following.source.counters["outside_networks"] == 1


async def test_half_a_line_waits_for_its_other_half_and_is_shown_if_that_does_not_come(path: Path) -> None:
    whole = row("192.0.2.2")
    following = Following(write(path, row("192.0.2.1"), whole[:15]))
    assert await following.look() == [("192.0.2.1", MAC, True)]
    assert not following.trouble
    assert await following.look() == []
    assert "ends in half a line" in following.trouble
    append(path, whole[15:])
    assert await following.look() == [("192.0.2.2", MAC, True)]
    assert not following.trouble


async def test_a_clean_up_loses_nothing_and_repeats_nothing(path: Path) -> None:
    following = Following(write(path, row("192.0.2.1")))
    await following.look()
    append(path, row("192.0.2.2"))
    clean_up(path, row("192.0.2.3"))
    assert await following.look() == [("192.0.2.2", MAC, True), ("192.0.2.3", MAC, True)]
    assert not following.trouble
    assert following.source.counters["rotations"] == 1
    path.with_name(path.name + ".1").unlink()
    append(path, row("192.0.2.4"))
    assert await following.look() == [("192.0.2.4", MAC, True)]


async def test_what_is_written_between_our_reading_and_a_clean_up_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = Following(write(path, row("192.0.2.1")))
    await following.look()
    read_on = KeaFile._read_on

    async def slowly(source: KeaFile, reader: Reader) -> None:
        await read_on(source, reader)
        monkeypatch.undo()
        append(path, row("192.0.2.2"))
        clean_up(path, row("192.0.2.3"))

    monkeypatch.setattr(KeaFile, "_read_on", slowly)
    assert await following.look() == [("192.0.2.2", MAC, True), ("192.0.2.3", MAC, True)]


async def test_after_a_long_sleep_a_clean_up_makes_it_read_everything(path: Path) -> None:
    following = Following(write(path, row("192.0.2.1")))
    await following.look()
    clean_up(path)
    # A whole file came and went: its rows are in .2 now.
    path.with_name(path.name + ".1").unlink()
    write(path.with_name(path.name + ".2"), row("192.0.2.1"), row("192.0.2.9"))
    following.source._looked -= 60
    assert await following.look() == [("192.0.2.1", MAC, True), ("192.0.2.9", MAC, True)]


@pytest.mark.parametrize("during", ["before", "merging", "merged", "deleted", "after"])
async def test_a_bridge_that_starts_while_kea_cleans_up_reads_all_there_is(path: Path, during: str) -> None:
    older, copy, merged = (path.with_name(path.name + suffix) for suffix in (".2", ".1", ".completed"))
    write(older, row("192.0.2.1", OTHER), row("192.0.2.2"))
    write(path, row("192.0.2.1"))
    if during != "before":
        clean_up(path, row("192.0.2.3"))
    if during in ("merged", "deleted", "after"):
        write(merged, row("192.0.2.1"), row("192.0.2.2"))
    if during in ("deleted", "after"):
        copy.unlink()
        older.unlink()
    if during == "after":
        merged.replace(older)
    expected = [("192.0.2.1", MAC, True), ("192.0.2.2", MAC, True)]
    assert await Following(path).look() == expected + [("192.0.2.3", MAC, True)] * (during != "before")


async def test_a_file_that_is_gone_is_shown_and_ends_nothing(path: Path) -> None:
    following = Following(write(path, row("192.0.2.1")))
    await following.look()
    path.unlink()
    assert await following.look() == []
    assert f"{path} is not there: No such file" in following.trouble
    write(path, row("192.0.2.2"))
    assert await following.look() == [("192.0.2.2", MAC, True)]
    assert not following.trouble


async def test_a_file_that_is_not_there_at_the_start_is_shown_and_read_once_it_is(path: Path) -> None:
    following = Following(path)
    assert await following.look() == []
    assert "cannot be read: No such file" in following.trouble
    write(path, row("192.0.2.1"))
    assert await following.look() == [("192.0.2.1", MAC, True)]


async def test_a_truncated_file_is_shown_and_ends_nothing(path: Path) -> None:
    following = Following(write(path, row("192.0.2.1"), row("192.0.2.2")))
    await following.look()
    path.write_text("")
    assert await following.look() == []
    assert "was truncated or rewritten in place" in following.trouble
    assert await following.look() == []
    assert "has not even a header" in following.trouble
    write(path, row("192.0.2.2", OTHER))
    assert await following.look() == [("192.0.2.2", OTHER, True)]
    assert not following.trouble


async def test_a_file_that_is_rewritten_longer_is_noticed_too(path: Path) -> None:
    following = Following(write(path, row("192.0.2.1")))
    await following.look()
    write(path, *(row(f"192.0.2.{host}", OTHER) for host in range(1, 9)))
    assert await following.look() == []
    assert "rewritten in place" in following.trouble
    assert len(await following.look()) == 8


async def test_a_row_that_cannot_be_read_is_shown_and_left_out(path: Path) -> None:
    following = Following(write(path, row("192.0.2.1"), "something else\n", row("192.0.2.2")))
    assert await following.look() == [("192.0.2.1", MAC, True), ("192.0.2.2", MAC, True)]
    assert "line 3, was left out: it has 1 values, the header 11" in following.trouble


async def test_a_file_of_something_else_is_shown(path: Path) -> None:
    path.write_text("1795322969 7a:e5:9c:d7:bf:06 192.0.2.102 * *\n")
    following = Following(path)
    assert await following.look() == []
    assert "the first line is no header of Kea's lease files" in following.trouble


async def test_a_lease_from_a_clock_that_is_ahead_is_given_now(path: Path) -> None:
    following = Following(write(path, row("192.0.2.1", given=NOW + 9000)))
    await following.look()
    lease = following.recorder.last("192.0.2.1")
    assert lease.at <= time.time()
    assert lease.expires - lease.at == pytest.approx(600), "which is what the station was given"


async def test_what_is_given_back_and_given_again_ends_as_given(path: Path) -> None:
    following = Following(write(path, row("192.0.2.1")))
    await following.look()
    append(path, row("192.0.2.1", lifetime=0))
    assert await following.look() == [("192.0.2.1", MAC, False)]
    ended = following.recorder.last("192.0.2.1").at
    append(path, row("192.0.2.1"))
    assert await following.look() == [("192.0.2.1", MAC, True)]
    assert following.recorder.last("192.0.2.1").at > ended


async def test_many_leases_are_read_no_faster_than_they_are_recorded_and_nothing_else_waits(path: Path) -> None:
    count = 3 * LANES * WAITING
    addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]
    write(path, *map(row, addresses))
    recorder = Recorder()
    recorder.gate.clear()
    source = KeaFile("dhcp", WITHIN, recorder.submit, path)
    async with running(source):
        await until(lambda: recorder.under_way == LANES, "all that may be under way")
        waiting = sum(len(lane.waiting) for lane in source._outbox._lanes)
        assert waiting <= LANES * WAITING
        recorder.gate.set()
        await until(lambda: len(recorder.leases) == count, "everything")
        append(path, row("10.255.0.1"))
        await until(lambda: len(recorder.leases) == count + 1, "what is new")


async def test_a_problem_is_said_once_and_so_is_its_end(path: Path) -> None:
    source = KeaFile("dhcp", WITHIN, Recorder().submit, path)
    source.every = 0.01
    async with running(source):
        await until(lambda: source.problem, "the problem")
        write(path, row("192.0.2.1"))
        await until(lambda: not source.problem, "its end")
        assert source.counters["problems"] == 1


FILE = HEADER4 + "\n" + "".join(row(f"192.0.2.{host}") for host in range(1, 6))


@given(st.integers(0, len(FILE)))
@settings(max_examples=60, deadline=None)
def test_any_truncation_gives_a_prefix_of_the_leases_and_never_an_end(length: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "kea-leases4.csv")
        path.write_text(FILE[:length])
        following = Following(path)
        told = asyncio.run(following.look())
        assert told == [(f"192.0.2.{host}", MAC, True) for host in range(1, len(told) + 1)]
        assert len(told) == max(0, FILE[:length].count("\n") - 1)
        # After having seen it whole.
        path.write_text(FILE)
        following = Following(path)
        assert len(asyncio.run(following.look())) == 5
        path.write_text(FILE[:length])
        assert asyncio.run(following.look()) == []
        assert bool(following.trouble) == (length < len(FILE))


@given(st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_no_octets_crash_it(tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "kea-leases4.csv")
        path.write_bytes(FILE.encode() + tail)
        told = asyncio.run(Following(path).look())
        assert {("192.0.2.1", MAC, True), ("192.0.2.4", MAC, True)} <= set(told)


def test_a_line_without_end_is_no_lease_file(path: Path) -> None:
    path.write_bytes(b"x" * 400_000)
    reader = Reader(path)
    with pytest.raises(Trouble, match="has a line of more than"):
        list(iter(reader.read, None))
