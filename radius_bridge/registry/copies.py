"""Copies of users' groups in other datacenters, where hosts read only their own.

Consul copies no key between datacenters, and a request across them can hang. So what is acknowledged is what the home
datacenter committed, and the copies follow on their own: one task for each, fed with the keys that changed at home
(registry.backlog), writing what these are *now*. After a restart, an overflow, and now and then all is compared.

One bridge copies, the leader. It proves that to the other datacenter, which does not know the lock, by a fence: a key
(registry.fence) that every transaction changes if nobody else has. So a transaction that arrives late, after its sender
was deposed or has tried again, writes nothing. The fence also says whether something stands there that hosts were not
told of.
"""

import time
from collections.abc import Callable, Mapping

from radius_bridge.process import together
from radius_bridge.registry.backlog import is_expired
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.copying import Copy
from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.feed import Class
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.leader import Leadership, LeadershipLost
from radius_bridge.registry.view import Changed


class Copies:
    """All copies of one home datacenter; `work` is for `registry.leader.Leader.run`."""

    def __init__(
        self,
        consul: Consul,
        keys: Keys,
        datacenters: Datacenters,
        others: Mapping[str, Consul],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`others`: a connection to each of the copies, by datacenter."""
        self._consul = consul
        self._keys = keys
        self._clock = clock
        self.copies = {name: Copy(other, keys, datacenters, name, clock=clock) for name, other in others.items()}

    async def work(self, leadership: Leadership) -> None:
        """Copies until cancelled. Raises LeadershipLost."""
        follower = Follower(self._consul, self._keys, self._keys.access_changes, changed=self._note, clock=self._clock)
        follower.cover([self._keys.groups])
        async with together(LeadershipLost, RegistryError) as tasks:
            tasks.create_task(follower.run(), name="copies' follower")
            for name, each in self.copies.items():
                tasks.create_task(each.work(follower, leadership), name=f"copy to {name}")

    def _note(self, changed: list[Changed]) -> None:
        root, now = f"{self._keys.root}/", self._clock()
        keys = [
            key
            for key, old, new in changed
            # What leaves the view because it is over is swept in its own time, and silently.
            if Class.BRIDGE.may_name(key.removeprefix(root)) and not (new is None and is_expired(old or b"", now))
        ]
        for each in self.copies.values():
            each.mark(keys)
