"""Many followers in one process, each with a connection and a view of its own: `python -m bench.followers URL COUNT`.

Prints `complete` when all have read what they cover, and a line for each key when all have heard of it.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

from radius_bridge.policy.members import user_group
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.settings import ConsulSettings
from radius_bridge.registry.view import Changed

COVERED = 2
"""Users whose groups each follower covers: few, since reading them at the start is not what is measured."""


async def main(url: str, count: int) -> None:
    """Follows for ever."""
    keys = Keys()
    heard: Counter[str] = Counter()

    def changed(changes: list[Changed]) -> None:
        for change in changes:
            heard[change.key] += 1
            if heard[change.key] == count:
                print(json.dumps({"key": change.key, "heard": count, "last": time.time()}), flush=True)

    async with AsyncExitStack() as stack:
        followers = []
        for _ in range(count):
            consul = await stack.enter_async_context(Consul(ConsulSettings(url=url)))
            follower = Follower(consul, keys, keys.access_changes, changed=changed)
            users = ["alice", *(f"colleague{number}" for number in range(COVERED - 1))]
            follower.cover(keys.group(user_group(user)) for user in users)
            followers.append(follower)
        async with asyncio.TaskGroup() as tasks:
            for follower in followers:
                tasks.create_task(follower.run())
            for follower in followers:
                await follower.wait_complete()
            print("complete", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
