"""Follows one feed: a single long poll, and reads of prefixes only when they are needed."""

from collections import Counter
from collections.abc import Callable, Iterable

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.view import Changed, View


class Follower:
    """Keeps a view of the covered prefixes in step with Consul while `run` runs.

    `changed` is called (in the event loop, never concurrently, it must not block) with every batch of keys whose value
    has become another one; while it runs `view` is already the new state.

    `counters` are for monitoring: `polls`, `changes`, `reads`, `entries_read`, `gaps`, `rewinds`, `forged`, `skewed`,
    `failures`, `confirmed`.
    """

    def __init__(
        self,
        consul: Consul,
        keys: Keys,
        feed: str,
        *,
        changed: Callable[[list[Changed]], None] = lambda _: None,
    ) -> None:
        """`feed` is `keys.access_changes` or `keys.identity_changes`."""
        self.view = View()
        self.counters: Counter[str] = Counter()

    @property
    def last_contact(self) -> float:
        """Monotonic time at which Consul last told us how things are; 0 before the first time."""
        raise NotImplementedError

    @property
    def alarms(self) -> tuple[str, ...]:
        """What a person should look at, newest last (forged entries, clock skew, a lost registry); at most 20."""
        raise NotImplementedError

    @property
    def is_complete(self) -> bool:
        """True if every covered prefix was read, and the feed has been followed without a gap since."""
        raise NotImplementedError

    def cover(self, prefixes: Iterable[str]) -> None:
        """Covers more prefixes; `run` reads them at once (many of one folder by one read of the folder).

        What is covered already is left as it is. May be called out of `changed`.
        """
        raise NotImplementedError

    def uncover(self, prefixes: Iterable[str]) -> None:
        """Forgets prefixes; `changed` does not hear of it."""
        raise NotImplementedError

    async def wait_complete(self) -> None:
        """Returns when `is_complete`; put a timeout around it."""
        raise NotImplementedError

    async def run(self) -> None:
        """Follows until cancelled; errors of Consul are counted, logged and waited out."""
        raise NotImplementedError
