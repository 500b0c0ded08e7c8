"""Real parts as child processes: each with its log, none outlives its test."""

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PROJECT = Path(__file__).resolve().parents[2]
"""The root of the source tree."""

BIN = Path(sys.executable).parent
"""Where the console scripts of this environment are."""


class LabError(Exception):
    """A part did not start, died, or did not do what was waited for; `str()` holds the tail of its log."""


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = 10.0, every: float = 0.005) -> float:
    """Waits until `condition()` holds; gives the seconds it took. After `timeout`, LabError names `what`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout:
            raise LabError(f"waited {timeout:g} s for {what}")
        time.sleep(every)
    return time.monotonic() - began


def pause(pid: int) -> None:
    """Stops a process (SIGSTOP), and returns when every thread of it stands still: the signal alone is only a wish."""
    os.kill(pid, signal.SIGSTOP)

    def stands() -> bool:
        tasks = Path("/proc", str(pid), "task")
        return all(stat.read_text().rpartition(")")[2].split()[0] in "TtZ" for stat in tasks.glob("*/stat"))

    wait_until(stands, f"process {pid} to stand still")


class Part(ABC):
    """Something of the lab that `with` begins and closes; it leaves nothing behind, also if it cannot begin."""

    @abstractmethod
    def begin(self) -> None:
        """Makes and starts it."""

    @abstractmethod
    def close(self) -> None:
        """Ends and deletes what there is of it."""

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Process:
    """One part of the lab: `argv` run in a network namespace ("" for ours), its output in `log`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        namespace: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.argv = [str(argument) for argument in argv]
        self.log = log
        self.namespace = namespace
        # A small environment: nothing of the developer's Consul or systemd reaches the parts.
        self.env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> Self:
        """Starts the process; its log goes on where an earlier run of it ended."""
        if self.is_running:
            raise LabError(f"{self.name} runs already")
        prefix = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        self._log_start = len(self.read_log())
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [*prefix, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                env=self.env,
                # Ctrl-C goes to who started the lab; it ends the parts in its own order.
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """The process's id. Raises LabError if it was never started."""
        if self._child is None:
            raise LabError(f"{self.name} was never started")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """True until the process has ended."""
        return self._child is not None and self._child.poll() is None

    def wait_ready(self, condition: Callable[[], bool], *, timeout: float = 15.0) -> Self:
        """Waits until `condition()` holds. Raises LabError if the process ends or after `timeout` seconds."""

        def ready_or_dead() -> bool:
            return not self.is_running or condition()

        try:
            wait_until(ready_or_dead, f"{self.name} to be ready", timeout=timeout, every=0.02)
        except LabError as error:
            raise LabError(f"{error}\n{self.tail()}") from None
        if not self.is_running:
            code = self._child.returncode if self._child else None
            raise LabError(f"{self.name} ended at its start (exit code {code})\n{self.tail()}")
        return self

    def wait_log(self, text: str, *, timeout: float = 15.0) -> Self:
        """Waits until `text` stands in what has been logged since the last start."""
        return self.wait_ready(lambda: text in self.read_log()[self._log_start :], timeout=timeout)

    def read_log(self) -> str:
        """Everything logged so far, by all runs of this part."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 15) -> str:
        """The last lines of the log, with a heading."""
        last = self.read_log().splitlines()[-lines:]
        return "\n".join([f"--- {self.name}: {self.log}", *(last or ["(empty)"])])

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait(timeout=10)

    def terminate(self, *, timeout: float = 10.0) -> int:
        """SIGTERM, and waits `timeout` seconds for the end; gives the exit code.

        Raises LabError, after a SIGKILL, if it does not end.
        """
        self._signal(signal.SIGTERM)
        if self._child is None:
            return 0
        try:
            return self._child.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"{self.name} did not end within {timeout:g} s of SIGTERM\n{self.tail()}") from None

    def reload(self) -> None:
        """SIGHUP: the process reads its configuration anew."""
        self._signal(signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def run(
    argv: Sequence[str | Path],
    *,
    namespace: str = "",
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = 20.0,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, output captured; what it returns is the caller's to judge."""
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    return subprocess.run(
        [*prefix, *(str(argument) for argument in argv)],
        input=stdin,
        text=True,
        capture_output=True,
        cwd=PROJECT,
        env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **(env or {})},
        timeout=timeout,
        check=False,
    )
