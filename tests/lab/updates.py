"""Grants that come at a steady rate, committed and announced as an engineer's program does it: a load for one host.

`python -m tests.lab.updates CONSUL SERVICE COUNT PER_SECOND END` prints how it went, as JSON.
"""

import asyncio
import json
import sys
import time

from radius_bridge.policy.members import parse_prefix
from radius_bridge.registry.announcer import Announcer
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.feed import Change, Class
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.kv import MAX_OPS, Op
from radius_bridge.registry.settings import ConsulSettings

_EVERY = 0.05
"""Seconds between two lots; each is at most one transaction."""


async def flood(url: str, service: str, count: int, per_s: float, end: int) -> dict[str, float]:
    """Grants the service to so many addresses of 10.200.0.0/16, until `end` (epoch seconds)."""
    keys, lot, value = Keys(), min(MAX_OPS, round(per_s * _EVERY)), b"%d" % end
    async with Consul(ConsulSettings(url=url)) as consul:
        announcer = Announcer(consul, keys, Class.ENGINEER)
        announcing = asyncio.create_task(announcer.run())
        began = time.monotonic()
        waiting = []
        for first in range(0, count, lot):
            numbers = range(first, min(first + lot, count))
            puts = [keys.grant(Scope(), service, parse_prefix(f"10.200.{n >> 8}.{n & 255}")) for n in numbers]
            committed = await consul.transact([Op.set(key, value) for key in puts])
            waiting.append(announcer.announce([Change(key, value, committed.index) for key in puts]))
            await asyncio.sleep(max(0.0, began + (first + lot) / per_s - time.monotonic()))
        await asyncio.gather(*waiting)
        seconds = time.monotonic() - began
        announcer.close()
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
    return {"seconds": seconds, "per_s": count / seconds}


if __name__ == "__main__":
    print(
        json.dumps(asyncio.run(flood(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))))
    )
