"""The bridge runs on uvloop, whose sockets and TLS are its own: so do these tests."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One name and one maker of loops for each run of a test."""
    return {"uvloop": uvloop.new_event_loop}
