"""A bridge without a listener: `python -m tests.lab.identity_bridge URL ROOT`. Facts come by standard input.

Each is a length (4 octets) and a pickle of its number and the fact; the answers are lines: `ready`, `done N`,
`failed N`.
"""

import asyncio
import pickle
import sys
from functools import partial

from radius_bridge.identity.events import Lease
from radius_bridge.process import configure_logging, run_until
from radius_bridge.registry import meta
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.leader import Leader
from radius_bridge.registry.neighbours import Neighbours
from radius_bridge.registry.settings import ConsulSettings
from radius_bridge.registry.sweeper import Sweeper
from tests.lab.identity import CLOCK, LOCK


async def main(url: str, root: str) -> None:
    """Runs until standard input ends."""
    keys = Keys(root)
    stop = asyncio.Event()
    async with (
        Consul(ConsulSettings(url=url, root=root)) as consul,
        Lanes(consul, keys, patience=4.0, clock=lambda: CLOCK) as lanes,
    ):
        neighbours = Neighbours(consul, keys, lanes)
        while True:
            try:
                await meta.ensure(consul, keys)
                await neighbours.load()
            except RegistryError:
                await asyncio.sleep(0.1)
            else:
                break
        print("ready", flush=True)
        leader = Leader(consul, keys.lock("sweeper"), ttl=LOCK)
        sweeper = Sweeper(consul, keys, clock=lambda: CLOCK)
        await run_until(stop, neighbours.run(), leader.run(sweeper.work), _take(lanes, stop))


async def _take(lanes: Lanes, stop: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while True:
        try:
            size = int.from_bytes(await reader.readexactly(4), "big")
            number, fact = pickle.loads(await reader.readexactly(size))  # noqa: S301 - from the test that started us
        except asyncio.IncompleteReadError:
            stop.set()
            await asyncio.Event().wait()
        done = lanes.submit_lease(fact) if isinstance(fact, Lease) else lanes.submit(fact)
        done.add_done_callback(partial(_tell, number))


def _tell(number: int, done: asyncio.Future[None]) -> None:
    print("failed" if done.exception() else "done", number, flush=True)


if __name__ == "__main__":
    configure_logging(verbose=False)
    asyncio.run(main(*sys.argv[1:]))
