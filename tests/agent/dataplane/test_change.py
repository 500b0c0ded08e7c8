"""Work that is done in another thread."""

import asyncio
import threading

import pytest

from agent.dataplane.change import MANY, aside


async def test_who_is_cancelled_leaves_no_thread_behind() -> None:
    is_reached, may_go_on, is_over = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        is_reached.set()
        may_go_on.wait(10)
        is_over.set()

    working = asyncio.create_task(aside(MANY + 1, work))
    assert await asyncio.to_thread(is_reached.wait, 10)
    working.cancel()
    asyncio.get_running_loop().call_later(0.1, may_go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await working
    assert is_over.is_set()
