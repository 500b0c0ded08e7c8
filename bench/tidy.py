"""A benchmark leaves nothing behind: not when it is ended, and not for long when it is killed."""

import os
import re
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.lab.netns import Namespace
from tests.lab.processes import run, wait_until

PREFIX = "rb-bench"
"""Network namespaces of benchmarks are called `rb-bench-<pid>-<part>`."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def namespace(part: str) -> Namespace:
    """A namespace of this process; use it with `with`."""
    return Namespace(f"{PREFIX}-{os.getpid()}-{part}")


def end_by_unwinding() -> None:
    """Has SIGTERM and SIGINT end this process as an exception does, so that every `with` is left.

    Only the first one counts: a second would end the cleaning up.
    """

    def end(number: int, _: object) -> None:
        for each in _SIGNALS:
            signal.signal(each, lambda *_: None)
        raise SystemExit(128 + number)

    for each in _SIGNALS:
        signal.signal(each, end)


def sweep() -> None:
    """Ends and removes what killed benchmarks left: namespaces whose process is gone, and all that runs in them.

    Nothing but its own parts runs in a benchmark's namespaces.
    """
    for left in Path("/run/netns").glob(f"{PREFIX}-*"):
        owner = re.fullmatch(rf"{PREFIX}-(\d+)-.+", left.name)
        if owner and not Path("/proc", owner[1]).exists():
            for pid in _pids(left.name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(partial(_is_empty, left.name), f"the end of all in {left.name}")
            Namespace(left.name).delete()


def _is_empty(name: str) -> bool:
    return not _pids(name)


def _pids(name: str) -> list[int]:
    return [int(pid) for pid in run(["ip", "netns", "pids", name]).stdout.split()]
