"""Programs that the agent runs."""

import os
import signal
import time
from pathlib import Path

import pytest

from agent.dataplane.base import call
from agent.dataplane.errors import DataplaneError
from tests.waiting import until


async def test_a_program_is_given_up_in_time_though_what_it_started_lives_on() -> None:
    began = time.monotonic()
    with pytest.raises(DataplaneError, match="sh did not end"):
        await call(("sh", "-c", "sleep 30"), "", 0.2, "dash")
    with pytest.raises(DataplaneError, match="sh did not end"):
        await call(("sh", "-c", "sleep 30 & wait"), "", 0.2, "dash")
    assert time.monotonic() - began < 20


async def test_nobody_waits_for_what_cannot_be_ended(tmp_path: Path) -> None:
    began, handles = time.monotonic(), _open_handles()
    number = tmp_path / "pid"
    try:
        with pytest.raises(DataplaneError, match="sh did not end"):
            await call(("sh", "-c", f"setsid sleep 30 & echo $! > {number}; wait"), "", 0.5, "util-linux")
        assert time.monotonic() - began < 20
    finally:
        os.kill(int(number.read_text()), signal.SIGKILL)
    await until(lambda: _open_handles() <= handles, "closed pipes")


def _open_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
