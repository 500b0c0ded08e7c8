"""What every long-running process of ours does the same way: logs, signals, systemd, tasks that are never lost."""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_LARGE: Final = 128 * 1024
"""Octets: as glibc begins, before it adapts."""

_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # among them may be secrets
)


def configure_logging(*, verbose: bool = False) -> None:
    """Logs to stderr: for people on a terminal, one JSON object a line elsewhere. Epochs in UTC, ISO 8601."""
    on_terminal = sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
        if on_terminal
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.set_exc_info if on_terminal else _TRACEBACKS,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def give_memory_back() -> None:
    """From now on what is freed goes back to the system, as far as the C library is glibc.

    By itself it keeps the pages of large answers and tables for the next ones, and an arena for each thread: of an
    agent's memory an eighth (mallopt(3)).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_ARENA_MAX, 1)):
        mallopt(option, value)


def notify_systemd(state: str) -> None:
    """Tells systemd our state (`READY=1`, `STOPPING=1`, `RELOADING=1`; sd_notify(3)). Nothing outside systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        try:
            sock.sendto(state.encode(), address)
        except OSError as error:
            structlog.get_logger().warning("systemd not told", state=state, error=str(error))


@asynccontextmanager
async def signals(reload: Callable[[], None]) -> AsyncIterator[asyncio.Event]:
    """Gives an event that SIGTERM or SIGINT sets; SIGHUP calls `reload`.

    What comes after that, until the loop is closed, changes nothing: a second SIGTERM does not cut short an end that is
    under way.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield stop
    finally:
        loop.add_signal_handler(signal.SIGHUP, lambda: None)


@asynccontextmanager
async def together(*passing: type[Exception]) -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup that raises one error: of several the first that is none of `passing` (what the caller waits out).

    The others are logged: none is lost behind another.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except ExceptionGroup as group:
        first, *others = sorted(group.exceptions, key=lambda error: isinstance(error, passing))
        for other in others:
            structlog.get_logger().error("another task failed as well", error=repr(other), exc_info=other)
        raise first from None


async def run_until(stop: asyncio.Event, *coroutines: Coroutine[Any, Any, None]) -> None:
    """Runs the coroutines until `stop` is set, then cancels them.

    None of them may end by itself: if one does, its error (or a RuntimeError) is raised, so that no task dies unseen.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    waiter = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiter}:
            task.result()
            raise RuntimeError(f"{task.get_coro()} ended by itself")
    finally:
        for task in (waiter, *tasks):
            task.cancel()
        await asyncio.gather(waiter, *tasks, return_exceptions=True)
