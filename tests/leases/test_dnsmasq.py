"""The lease file of dnsmasq."""

import asyncio
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radius_bridge.leases.dnsmasq import DnsmasqFile, lease_of
from radius_bridge.leases.kea import FOREVER
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.clients import Networks
from tests.leases.recorder import Recorder, running
from tests.waiting import until

WITHIN = Networks([parse_prefix("192.0.2.0/24"), parse_prefix("2001:db8::/32")])
MAC = "7a:e5:9c:d7:bf:06"
THEN = int(time.time()) + 600
DUID = "duid 00:01:00:01:32:95:2e:7d:76:fe:83:2c:9e:4d\n"


def line(host: int, mac: str = "", expiry: int = THEN) -> str:
    return f"{expiry} {mac or f'02:00:00:00:00:{host:02x}'} 192.0.2.{host} * 01:{MAC}\n"


def test_a_line_says_who_holds_an_address_until_when() -> None:
    lease = lease_of(f"1795322969 {MAC} 192.0.2.102 laptop 01:{MAC}", "dhcp", 1e9)
    assert lease is not None
    assert (str(lease.address), lease.mac, lease.at, lease.expires) == ("192.0.2.102", MAC, 1e9, 1_795_322_969)


def test_of_an_ipv6_lease_the_duid_tells_the_mac() -> None:
    lease = lease_of("1795323022 1319935049 2001:db8:1::108 * 00:03:00:01:36:47:4e:ac:9c:49", "dhcp", 1e9)
    assert lease is not None
    assert (str(lease.address), lease.mac) == ("2001:db8:1::108", "36:47:4e:ac:9c:49")


def test_an_expiry_of_0_is_never() -> None:
    lease = lease_of(f"0 {MAC} 192.0.2.102 * *", "dhcp", 1e9)
    assert lease is not None
    assert lease.expires == FOREVER


def test_the_servers_own_duid_is_no_lease() -> None:
    assert lease_of(DUID.strip(), "dhcp", 1e9) is None


@pytest.mark.parametrize(
    "text", ["", "x", f"1 {MAC} 192.0.2.1 *", f"1 {MAC} 192.0.2.0/24 * *", f"-1 {MAC} 192.0.2.1 * *"]
)
def test_any_other_line_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        lease_of(text, "dhcp", 1e9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dnsmasq.leases"


def follow(path: Path) -> tuple[DnsmasqFile, Recorder]:
    recorder = Recorder()
    source = DnsmasqFile("dhcp", WITHIN, recorder.submit, path)
    source.every = 0.01
    return source, recorder


async def test_leases_come_are_renewed_and_go(path: Path) -> None:
    path.write_text(line(1) + line(2) + line(3) + DUID)
    source, recorder = follow(path)
    async with running(source):
        await until(lambda: len(recorder.leases) == 3, "all leases")
        path.write_text(line(1, expiry=THEN + 60) + line(2, MAC) + DUID)
        await until(lambda: len(recorder.leases) == 6, "what has changed")
        assert recorder.last("192.0.2.1").expires == THEN + 60
        assert recorder.now["192.0.2.2"] == (MAC, True)
        assert recorder.now["192.0.2.3"] == ("02:00:00:00:00:03", False)
        assert not source.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (line(1) + line(2)[:20], "it ends in half a line"),
        (line(1) + "what is this\n" + line(2), "line 2 was left out: it is no lease"),
        ("", "the leases of 4 of 4 stations vanished at once"),
        (line(1), "the leases of 3 of 4 stations vanished at once"),
        (None, "cannot be read: No such file"),
    ],
    ids=["half a line", "no lease", "empty", "cut off", "gone"],
)
async def test_a_file_that_is_not_believed_ends_nothing_and_is_shown(
    path: Path, content: str | None, problem: str
) -> None:
    path.write_text("".join(map(line, range(1, 5))))
    source, recorder = follow(path)
    async with running(source):
        await until(lambda: len(recorder.leases) == 4, "all leases")
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        await until(lambda: source.problem, "the problem")
        assert problem in source.problem
        path.write_text("".join(map(line, range(1, 6))))
        await until(lambda: not source.problem, "its end")
        await until(lambda: len(recorder.leases) == 5, "the new lease")
        assert all(lives for _, lives in recorder.now.values())


async def test_a_file_that_is_half_written_for_a_moment_is_no_problem(path: Path) -> None:
    path.write_text(line(1) + line(2)[:20])
    source, recorder = follow(path)
    async with running(source):
        await until(lambda: len(recorder.leases) == 1, "the first look")
        path.write_text(line(1) + line(2))
        await until(lambda: len(recorder.leases) == 2, "the second")
        assert source.counters["problems"] == 0


FILE = "".join(map(line, range(1, 7))) + DUID


@given(st.integers(0, len(FILE)))
@settings(max_examples=40, deadline=None)
def test_any_truncation_gives_a_prefix_of_the_leases_or_a_shown_error_and_never_ends_them_all(length: int) -> None:
    async def after(path: Path, *contents: str) -> tuple[Recorder, DnsmasqFile, str]:
        source, recorder = follow(path)
        problem = ""
        outbox = asyncio.create_task(source._outbox.run())
        for content in contents:
            path.write_text(content)
            for _ in range(2):  # an end is believed at the second look
                problem = await source._compare()
        await until(lambda: not any(lane.waiting for lane in source._outbox._lanes), "the outbox")
        outbox.cancel()
        await asyncio.gather(outbox, return_exceptions=True)
        return recorder, source, problem

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "dnsmasq.leases")
        recorder, _, problem = asyncio.run(after(path, FILE[:length]))
        whole = FILE[:length].count("\n")
        assert len(recorder.now) == min(whole, 6)
        assert bool(problem) == (not FILE[:length].endswith("\n") and length > 0)
        recorder, _, problem = asyncio.run(after(path, FILE, FILE[:length]))
        ended = sum(not lives for _, lives in recorder.now.values())
        assert ended == 0 or (not problem and ended == 6 - whole <= 3)


@given(st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_no_octets_crash_it(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "dnsmasq.leases")
        path.write_bytes(content)
        source, _ = follow(path)
        asyncio.run(source._compare())
