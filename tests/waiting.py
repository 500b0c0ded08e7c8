"""Waiting for what nobody announces."""

import asyncio
from collections.abc import Callable


async def until(
    condition: Callable[[], object], what: str = "a condition", *, within: float = 10.0, every: float = 0.002
) -> None:
    """Waits until `condition()` holds, looking every so many seconds. Raises TimeoutError that names `what`."""
    try:
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - who could announce it, would not be tested
                await asyncio.sleep(every)
    except TimeoutError:
        raise TimeoutError(f"waited {within:g} s for {what}") from None
