"""Many followers of the feed beside one Consul, in network namespaces of their own.

Consul takes 200 connections from one address, and each follower uses some at its start: so many share an address.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.lab.netns import Namespace, link
from tests.lab.processes import BIN, LabError, Process

PER_NAMESPACE = 45


class Fleet:
    """Followers that have read everything; they end with `stack`."""

    def __init__(self, hub: Namespace, url: str, size: int, directory: Path, stack: ExitStack, name: str = "h") -> None:
        """`hub` is where Consul runs; no two fleets at one hub have the same size and `name`."""
        self.size = size
        self._parts: list[tuple[Process, Namespace]] = []
        for number, start in enumerate(range(0, size, PER_NAMESPACE)):
            part = f"{name}{size}p{number}"
            count = min(PER_NAMESPACE, size - start)
            namespace = stack.enter_context(Namespace(f"{hub.name}-{part}"))
            network = f"100.64.{number}"
            link(namespace, "consul", (f"{network}.2/24",), hub, part, (f"{network}.1/24",))
            namespace.run("ip", "route", "add", "default", "via", f"{network}.1")
            process = Process(
                f"fleet {part}",
                [BIN / "python", "-m", "bench.followers", url, str(count)],
                log=directory / f"{part}.log",
                namespace=namespace.name,
            )
            stack.callback(process.kill)
            process.start().wait_log("complete", timeout=60)
            self._parts.append((process, namespace))

    def heard_by_all(self, key: str, timeout: float = 30.0) -> float:
        """When the last of the followers heard of a key that ends so (epoch seconds). LabError if one did not."""
        deadline = time.monotonic() + timeout
        return max(_heard(process, key, deadline) for process, _ in self._parts)

    def told(self) -> Iterator[dict[str, Any]]:
        """Everything that the followers have told, part by part."""
        for process, _ in self._parts:
            yield from _told(process)

    def octets(self) -> int:
        """What their links have carried, both ways, headers included."""
        counters = [f"/sys/class/net/consul/statistics/{way}_bytes" for way in ("rx", "tx")]
        return sum(sum(map(int, each.run("cat", *counters).stdout.split())) for _, each in self._parts)

    def polls(self) -> float:
        """Answered polls of all followers together, as they told last; they tell each second."""
        return float(sum(max(each.get("polls", 0) for each in _told(process)) for process, _ in self._parts))


def _told(process: Process) -> list[dict[str, Any]]:
    lines = process.read_log().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]


def _heard(process: Process, key: str, deadline: float) -> float:
    while time.monotonic() < deadline:
        for line in process.read_log().splitlines(keepends=True):
            if f'{key}"' in line and line.endswith("}\n"):  # most lines are about something else: not all are read
                return float(json.loads(line)["last"])
        time.sleep(0.01)
    raise LabError(f"not all followers heard of {key}\n{process.tail(3)}")
