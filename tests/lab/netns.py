"""Network namespaces for tests, the demo and the benchmarks: hosts of their own on this machine."""

import ctypes
import itertools
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

_DIRECTORY = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_indices = itertools.count(100)
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace called `name`, with loopback up. `with` creates and deletes it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        self.create()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def exists(self) -> bool:
        """True if there is a namespace of this name."""
        return (_DIRECTORY / self.name).exists()

    def create(self) -> None:
        """Makes the namespace. Raises OSError if there is one of this name, or without root."""
        if os.geteuid() != 0:
            raise PermissionError("network namespaces need root: run this as root, or leave tests/e2e out")
        _ip("netns", "add", self.name)
        self.run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def delete(self) -> None:
        """Deletes the namespace, if it is there. Processes in it live on: end them first."""
        if self.exists():
            _ip("netns", "delete", self.name)

    def argv(self, *argv: str | Path) -> list[str]:
        """The same command, to be run in here."""
        return ["ip", "netns", "exec", self.name, *map(str, argv)]

    def run(
        self, *argv: str | Path, text: str | None = None, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in here to its end, `text` as its input; gives its output."""
        return subprocess.run(
            self.argv(*argv), input=text, capture_output=True, text=True, check=check, timeout=timeout
        )

    def popen(self, *argv: str | Path) -> subprocess.Popen[str]:
        """Starts a command in here; its output comes through a pipe."""
        return subprocess.Popen(
            self.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def call(self, function: Callable[[], T]) -> T:
        """Calls `function` in a thread of this namespace; children and sockets it makes belong in here.

        What it raises is raised.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                self._enter()
                results.append(function())
            except BaseException as error:  # raised again below, in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=inside, name=f"netns {self.name}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this namespace, for use from any thread."""
        return self.call(lambda: socket.socket(family, type))

    def _enter(self) -> None:
        """Moves the calling thread in here (setns(2); Python has it from 3.12)."""
        handle = os.open(_DIRECTORY / self.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(handle, _CLONE_NEWNET):
                code = ctypes.get_errno()
                raise OSError(code, f"setns {self.name}: {os.strerror(code)}")
        finally:
            os.close(handle)


def link(
    one: Namespace,
    one_interface: str,
    one_addresses: Sequence[str],
    other: Namespace,
    other_interface: str,
    other_addresses: Sequence[str],
) -> None:
    """A cable (veth) between two namespaces, up at once. Addresses come with their length: `192.0.2.1/24`."""
    ends = ((one, one_interface, one_addresses), (other, other_interface, other_addresses))
    # With the same index at both ends, which new namespaces hand out, the kernel takes a second to see the carrier.
    one_index, other_index = str(next(_indices)), str(next(_indices))
    peer = ("peer", "name", other_interface, "index", other_index, "netns", other.name)
    _ip("link", "add", one_interface, "index", one_index, "netns", one.name, "type", "veth", *peer)
    for namespace, interface, addresses in ends:
        for address in addresses:
            # nodad: an address that is still being looked for duplicates cannot be used for a second
            extra = ("nodad",) if ":" in address else ()
            _ip("-n", namespace.name, "address", "add", address, "dev", interface, *extra)
        _ip("-n", namespace.name, "link", "set", interface, "up")
    for namespace, interface, _ in ends:
        namespace.call(partial(_wait_up, interface))


def unique(prefix: str, part: str) -> Namespace:
    """A namespace of this process: `<prefix>-<pid>-<part>`. Deletes those that a killed run left behind."""
    for left in _DIRECTORY.glob(f"{prefix}-*") if _DIRECTORY.exists() else ():
        owner = re.fullmatch(rf"{re.escape(prefix)}-(\d+)-.+", left.name)
        if owner and not Path("/proc", owner[1]).exists():
            Namespace(left.name).delete()
    return Namespace(f"{prefix}-{os.getpid()}-{part}")


def _ip(*argv: str) -> None:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise OSError(f"ip {' '.join(argv)}: {done.stderr.strip() or done.returncode}")


def _wait_up(interface: str, timeout: float = 5.0) -> None:
    """Waits until IPv6 works on an interface of this thread's namespace: its link-local address comes last.

    Raises OSError.
    """
    addresses = Path("/proc/thread-self/net/if_inet6")
    deadline = time.monotonic() + timeout
    while not any(
        line.split()[5] == interface and line.startswith("fe80") for line in addresses.read_text().splitlines()
    ):
        if time.monotonic() > deadline:
            raise OSError(f"{interface} is not up after {timeout:g} s")
        time.sleep(0.002)
