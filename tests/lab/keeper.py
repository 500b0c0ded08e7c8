"""A host's integrity at work without Consul: the agent's own parts, in a thread of a network namespace."""

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from agent.dataplane.errors import DataplaneError
from agent.dataplane.interface import Dataplane
from agent.desired import Desired
from agent.integrity import Integrity
from tests.lab.netns import Namespace
from tests.lab.processes import LabError

_TIMEOUT = 10.0
_AGAIN = 0.1


class Keeper:
    """Keeps the kernel as desired while the context is open."""

    def __init__(self, namespace: Namespace, dataplane: Dataplane, desired: Desired, every: float = 3.0) -> None:
        self.integrity = Integrity(dataplane, every)
        self._dataplane = dataplane
        self._desired = desired
        self.repaired = 0
        """How often something was put back."""
        self._repaired_at = 0.0
        self._keeps = threading.Event()
        self._stop: Callable[[], object] | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(namespace,), name="keeper")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._keeps.wait(_TIMEOUT) or self._error is not None:
            self._thread.join(_TIMEOUT)
            raise LabError(f"the keeper did not begin: {self._error}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stop is not None:
            self._stop()
        self._thread.join(_TIMEOUT)
        if error is None and self._error is not None:
            raise LabError(f"the keeper failed: {self._error}") from self._error

    def wait_repaired(self, more_than: int, timeout: float = _TIMEOUT) -> float:
        """Waits until something was put back more often than that; gives when (monotonic). Raises LabError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._error or self.repaired > more_than, timeout):
                raise LabError(f"nothing was put back within {timeout:g} s")
        if self._error is not None:
            raise LabError(f"the keeper failed: {self._error}")
        return self._repaired_at

    def _run(self, namespace: Namespace) -> None:
        try:
            namespace.call(lambda: asyncio.run(self._keep()))
        except Exception as error:  # told to whoever waits
            self._error = error
        finally:
            self._keeps.set()

    async def _keep(self) -> None:
        loop, stop, woken = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def end() -> None:
            stop.set()
            woken.set()

        self._stop = lambda: loop.call_soon_threadsafe(end)
        await self._dataplane.apply(self._desired, time.time())
        with self.integrity.listening(woken.set):
            await self.integrity.look(self._desired)
            self._keeps.set()
            failed = False
            while not stop.is_set():
                try:
                    async with asyncio.timeout(max(0.0, self.integrity.next_look() - time.time())):
                        await woken.wait()
                except TimeoutError:
                    pass
                woken.clear()
                try:
                    await self._dataplane.apply(self._desired, time.time(), None if failed else {})
                    if await self.integrity.look(self._desired) or failed:
                        self._repaired_at = time.monotonic()
                        self.repaired += 1
                    failed = False
                except DataplaneError:
                    failed = True  # tried again, as the agent does
                    await asyncio.sleep(_AGAIN)
                    woken.set()
                with self._changed:
                    self._changed.notify_all()
