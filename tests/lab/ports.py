"""Ports for the lab's servers that nobody else takes before they listen, nor while they are killed and started again.

A port that the kernel chose (port 0) is anybody's as soon as it is let go: another test's, or the near end of whatever
connects next, if only to the server that is not there yet. These are outside the range that the kernel chooses from,
and each process that starts servers has a block of them for itself.
"""

import random
import socket
from functools import cache
from pathlib import Path
from typing import Final

from tests.lab.processes import LabError

BLOCK: Final = 512
"""Ports of one process."""

_CHOSEN: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def blocks(low: int, high: int) -> list[range]:
    """Where ports may be, if the kernel chooses from `low` to `high`. Pure."""
    every = [range(first, first + BLOCK) for first in range(10_000, 65_536 - BLOCK, BLOCK)]
    return [block for block in every if block[-1] < low or block[0] > high]


class Ports:
    """A block of ports. It is this object's as long as that lives, in the network namespace where it was made."""

    def __init__(self) -> None:
        """Raises LabError if there is none left."""
        low, high = map(int, _CHOSEN.read_text().split())
        free = blocks(low, high)
        # The name of a socket that is no file goes away with its process, and there is one in each network namespace.
        self._claim = socket.socket(socket.AF_UNIX)
        for block in random.sample(free, len(free)):
            try:
                self._claim.bind(f"\0radius-bridge-lab-ports-{block[0]}")
            except OSError:
                continue  # another process has it
            self._block = block
            self._next = block[0]
            return
        self._claim.close()
        raise LabError(
            f"no block of {BLOCK} ports is left for the lab: the kernel chooses from {low} to {high} ({_CHOSEN}), and "
            f"other processes have the other {len(free)} blocks; this leaves room: "
            "`sysctl -w net.ipv4.ip_local_port_range='32768 60999'`"
        )

    def take(self, count: int) -> range:
        """So many ports in a row at which nobody listens, by TCP or UDP; in turn, so that none comes again soon.

        Raises LabError if there are none.
        """
        for _ in self._block:
            if self._next + count > self._block.stop:
                self._next = self._block.start
            found = range(self._next, self._next + count)
            taken = next((port for port in reversed(found) if not _is_free(port)), None)
            self._next = found.stop if taken is None else taken + 1
            if taken is None:
                return found
        raise LabError(f"somebody listens at nearly all ports from {self._block[0]} to {self._block[-1]}")

    def close(self) -> None:
        """Others may have them."""
        self._claim.close()


def free_ports(count: int) -> range:
    """So many ports in a row of 127.0.0.1, free for TCP and UDP, that no other process of the lab gets.

    Raises LabError if there are none.
    """
    return _ours().take(count)


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


_ours = cache(Ports)


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
