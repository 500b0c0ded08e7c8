"""Many followers in one process, each with a connection and a view of its own: `python -m bench.followers URL COUNT`.

Prints `complete` when all have read what they cover; a line for each key when all have heard of it; each second how
many polls were answered in all; and for each follower that had lost Consul when it was back and when it was complete.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

from radius_bridge.policy.members import GroupRef, user_group
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.positions import News
from radius_bridge.registry.settings import ConsulSettings
from radius_bridge.registry.view import Changed

GROUPS = (user_group("alice"), GroupRef("staff"))
"""What each follower covers: little, since reading it at the start is not what is measured."""


class _Host(Follower):
    """A follower that tells of its return."""

    def __init__(self, name: str, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._name = name
        self.polls = 0
        self._failed_before = 0
        self._returning: asyncio.Task[None] | None = None

    def take(self, news: News) -> None:
        """What one look at the feed brought; the first after an outage is the return."""
        self.polls += 1
        super().take(news)
        if self.counters["failures"] != self._failed_before:
            self._failed_before = self.counters["failures"]
            self._returning = asyncio.create_task(self._tell_of_return(time.time()))

    async def _tell_of_return(self, back: float) -> None:
        await self.wait_complete()
        _say(host=self._name, back=back, complete=time.time())


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def main(url: str, count: int) -> None:
    """Follows for ever."""
    keys = Keys()
    heard: Counter[str] = Counter()

    def changed(changes: list[Changed]) -> None:
        for change in changes:
            heard[change.key] += 1
            if heard[change.key] == count:
                _say(key=change.key, heard=count, last=time.time())

    async with AsyncExitStack() as stack:
        followers = []
        for number in range(count):
            consul = await stack.enter_async_context(Consul(ConsulSettings(url=url)))
            follower = _Host(f"{os.getpid()}-{number}", consul, keys, keys.access_changes, changed=changed)
            follower.cover(map(keys.group, GROUPS))
            followers.append(follower)
        async with asyncio.TaskGroup() as tasks:
            for follower in followers:
                tasks.create_task(follower.run())
            for follower in followers:
                await follower.wait_complete()
            print("complete", flush=True)
            while True:
                _say(polls=sum(follower.polls for follower in followers))
                await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
