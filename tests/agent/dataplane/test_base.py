"""Programs that the agent runs."""

import time

import pytest

from agent.dataplane.base import call
from agent.dataplane.errors import DataplaneError


async def test_a_program_is_given_up_in_time_though_what_it_started_lives_on() -> None:
    began = time.monotonic()
    with pytest.raises(DataplaneError, match="sh did not end"):
        await call(("sh", "-c", "sleep 30"), "", 0.2, "dash")
    with pytest.raises(DataplaneError, match="sh did not end"):
        await call(("sh", "-c", "sleep 30 & wait"), "", 0.2, "dash")
    assert time.monotonic() - began < 20
