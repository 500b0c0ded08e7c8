"""What every long-running process of ours does the same way."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from radius_bridge.process import configure_logging, notify_systemd, run_until, signals, together


async def test_sigterm_stops_and_sighup_reloads() -> None:
    reloads: list[int] = []
    async with signals(lambda: reloads.append(1)) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(run_until(stop, asyncio.sleep(3600)), 5)
    assert reloads == [1]


async def test_a_task_that_fails_is_heard_of() -> None:
    async def fails() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await run_until(asyncio.Event(), asyncio.sleep(3600), fails())


async def test_a_task_that_ends_by_itself_is_a_fault() -> None:
    with pytest.raises(RuntimeError, match="ended by itself"):
        await run_until(asyncio.Event(), asyncio.sleep(0))


async def test_of_several_errors_the_one_that_nobody_waits_out_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()

    async def fails(error: Exception) -> None:
        raise error

    async def work() -> None:
        async with together(TimeoutError) as tasks:
            tasks.create_task(fails(TimeoutError("waited out")))
            tasks.create_task(fails(TypeError("a bug")))
            tasks.create_task(asyncio.sleep(3600))

    with pytest.raises(TypeError, match="a bug"):
        await work()
    assert "waited out" in capsys.readouterr().err


async def test_a_task_group_is_cancelled_from_outside_as_ever() -> None:
    async def waits() -> None:
        async with together() as tasks:
            tasks.create_task(asyncio.sleep(3600))

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_systemd("READY=1")


def test_a_traceback_in_the_log_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "not for the log"
    try:
        configure_logging()
        structlog.get_logger().info(repr(1 // (len(secret) - len(secret))))
    except ZeroDivisionError:
        structlog.get_logger().exception("broken")
    finally:
        structlog.reset_defaults()
    logged = json.loads(capsys.readouterr().err)
    assert logged["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert secret not in json.dumps(logged)


def test_what_a_large_answer_took_goes_back_to_the_system() -> None:
    """Though something that stays was made after it."""
    done = subprocess.run([sys.executable, "-c", _LARGE_ANSWERS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * 256  # pages, of 16 MiB


_LARGE_ANSWERS = """
from radius_bridge.process import give_memory_back
def pages(): return int(open("/proc/self/statm").read().split()[1])
give_memory_back()
before = pages()
large = bytearray(b"x" * (1 << 24)); del large  # glibc would adapt to this
parts = [bytearray(b"x" * (1 << 20)) for _ in range(16)]
stays = bytearray(b"x" * (1 << 20)); del parts
print(pages() - before)
"""
