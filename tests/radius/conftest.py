"""The bridge runs on uvloop, whose sockets and TLS are its own: so do these tests."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import structlog
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One name and one maker of loops for each run of a test."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    """What one test's `capture_logs` leaves in structlog's settings is not the next one's."""
    yield
    structlog.reset_defaults()
