"""One of several bridges at a time does what must be done once: the holder of a lock of a Consul session."""

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.kv import Op

LOCK_DELAY: Final = 1
"""Seconds before a lock whose session died can be taken (Consul's 15 protect those without a fence)."""

_log = structlog.get_logger(__name__)


class LeadershipLost(Exception):
    """Somebody else may lead by now: stop."""


class Leadership:
    """What the leader's work holds: it tells whether we still lead, on our own clock and on Consul's."""

    def __init__(self, key: str, session: str, until: float) -> None:
        self.until = until
        """Monotonic time at which the session could have ended, had nobody renewed it."""
        self.fence = Op.check_session(key, session)
        """Put into a transaction, it refuses the whole unless we lead when Consul carries it out."""

    def holds(self) -> bool:
        """False if our session may be over."""
        return time.monotonic() < self.until

    def check(self) -> None:
        """Raises LeadershipLost if our session may be over. Holds over SIGSTOP: the clock runs on."""
        if not self.holds():
            raise LeadershipLost("the session may be over")


class Leader:
    """Campaigns for a lock, works while it has it, campaigns again.

    After the death of a leader another one leads within 2 × `ttl` (Consul ends sessions that late) and a bit.
    """

    def __init__(self, consul: Consul, key: str, *, ttl: int = 15) -> None:
        """`key` is the lock; `ttl` (seconds, at least 10) is how long a session lives unrenewed."""
        self._consul = consul
        self._key = key
        self._ttl = ttl
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._failures = 0
        self.leads = False
        """True while our work runs."""

    async def run(self, work: Callable[[Leadership], Coroutine[Any, Any, None]]) -> None:
        """Runs `work` whenever we lead, until cancelled; `work` is cancelled when leadership ends.

        LeadershipLost and RegistryError out of `work` end this turn and not the campaign.
        """
        while True:
            try:
                await self._await_vacancy()
                await self._turn(work)
            except LeadershipLost as lost:
                _log.warning("no longer leading", lock=self._key, reason=str(lost))
            except RegistryError as error:
                if not self._failures:
                    _log.warning("cannot lead for now", lock=self._key, error=str(error))
                self._failures = min(self._failures + 1, 5)
            await asyncio.sleep(random.uniform(0.1, 0.5 * 2**self._failures))  # noqa: S311 - no secret

    async def _await_vacancy(self) -> None:
        """Returns when nobody holds the lock."""
        index = 0
        while True:
            lock = await self._consul.read(self._key, index=index, wait=self._ttl)
            if not any(entry.session for entry in lock.entries if entry.key == self._key):
                return
            index = lock.index if lock.index >= index else 0

    async def _turn(self, work: Callable[[Leadership], Coroutine[Any, Any, None]]) -> None:
        asked = time.monotonic()
        session = await self._consul.create_session(self._name, ttl=self._ttl, lock_delay=LOCK_DELAY)
        try:
            if not await self._consul.acquire(self._key, session, self._name.encode()):
                return
            leadership = Leadership(self._key, session, asked + self._ttl)
            _log.info("leading", lock=self._key)
            self.leads = True
            self._failures = 0
            tasks = [
                asyncio.create_task(work(leadership), name="leader's work"),
                asyncio.create_task(self._keep(session, leadership), name="leader's session"),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=lambda each: isinstance(each.exception(), LeadershipLost | RegistryError)):
                    task.result()  # a bug first: what we wait out must not hide it
            finally:
                self.leads = False
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._resign(session)

    async def _keep(self, session: str, leadership: Leadership) -> None:
        """Renews the session; raises LeadershipLost when it ended, or may have."""
        while True:
            await asyncio.sleep(min(self._ttl / 3, leadership.until - time.monotonic()))
            leadership.check()
            asked = time.monotonic()
            try:
                async with asyncio.timeout(leadership.until - asked):
                    if not await self._consul.renew_session(session):
                        raise LeadershipLost("the session has ended")
            except (RegistryError, TimeoutError) as error:
                _log.warning("session not renewed", lock=self._key, error=str(error))
                continue  # tried again while there is time: `check` ends it
            leadership.until = asked + self._ttl

    async def _resign(self, session: str) -> None:
        """Gives the lock back, so that another bridge need not wait for the session to end."""
        try:
            async with asyncio.timeout(2):
                await self._consul.release(self._key, session)
                await self._consul.destroy_session(session)
        except (RegistryError, TimeoutError) as error:
            _log.warning("lock not released, its session will end", lock=self._key, error=str(error))
