"""Sets as a whole: made, swapped, listed, destroyed. A thin face of pyroute2 with our errors."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from agent.dataplane.errors import DataplaneError
from agent.dataplane.kinds import Kind, is_ours, kind_of_set
from agent.dataplane.plan import size
from radius_bridge import lean

with lean.submodules_only("pyroute2"):  # a database of all interfaces, among others
    from pyroute2.ipset import AsyncIPSet
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.nfnetlink.ipset import IPSET_ERR_BUSY, IPSET_FLAG_LIST_HEADER

_TIMEOUT = 5.0
_BUSY_PATIENCE = 3.0
_BUSY_STEP = 0.02


class Sets:
    """The sets of this network namespace that carry our prefix. Every method raises DataplaneError."""

    def __init__(self, control: Any) -> None:
        self._control = control

    async def entries(self) -> dict[str, int]:
        """Our sets with the number of their entries in the kernel."""
        return {
            name: answer.get_attr("IPSET_ATTR_DATA").get_attr("IPSET_ATTR_ELEMENTS")
            for name, answer in (await self._headers()).items()
        }

    async def of_another_type(self) -> list[str]:
        """Sets that have a name of ours and another type than it says: somebody else made them."""
        return [
            name
            for name, answer in (await self._headers()).items()
            if answer.get_attr("IPSET_ATTR_TYPENAME") != kind_of_set(name).type_name
        ]

    async def _headers(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(_TIMEOUT):
                async for answer in await self._control.list(flags=IPSET_FLAG_LIST_HEADER):
                    name = answer.get_attr("IPSET_ATTR_SETNAME")
                    if is_ours(name):
                        found[name] = answer
        except (OSError, NetlinkError) as error:
            raise DataplaneError(f"ipset list: {_reason(error)}") from error
        return found

    async def create(self, name: str, kind: Kind, need: int) -> int:
        """Makes an empty set for `need` entries; gives how many it can hold."""
        room = size(need)
        family = socket.AF_INET if kind.version == 4 else socket.AF_INET6
        await self._do(
            f"create {name}",
            self._control.create(
                name,
                stype=kind.type_name,
                family=family,
                maxelem=room.maxelem,
                hashsize=room.hashsize,
                timeout=0,
            ),
        )
        return room.maxelem

    async def swap(self, one: str, other: str) -> None:
        """Exchanges the content of two sets of the same kind at once; rules go on with the name."""
        await self._do(f"swap {one} {other}", self._control.swap(one, other))

    async def rename(self, old: str, new: str) -> None:
        """Gives a set that no rule mentions another name."""
        await self._do(f"rename {old} {new}", self._control.rename(old, new))

    async def destroy(self, name: str) -> None:
        """Destroys a set that no rule mentions.

        The kernel frees rules of iptables-nft a moment after their transaction: a busy set is tried again.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _BUSY_PATIENCE
        while True:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    await self._control.destroy(name)
            except NetlinkError as error:
                if error.code == errno.ENOENT:
                    return
                if error.code != IPSET_ERR_BUSY or loop.time() > deadline:
                    raise DataplaneError(f"ipset destroy {name}: {error}") from error
            except OSError as error:
                raise DataplaneError(f"ipset destroy {name}: {_reason(error)}") from error
            else:
                return
            await asyncio.sleep(_BUSY_STEP)

    async def _do(self, what: str, request: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await request
        except (OSError, NetlinkError) as error:
            raise DataplaneError(f"ipset {what}: {_reason(error)}") from error


@asynccontextmanager
async def open_sets() -> AsyncIterator[Sets]:
    """Opens the sets of the network namespace that this thread is in. Raises DataplaneError."""
    try:
        control = AsyncIPSet()
        await control.setup_endpoint()
    except (OSError, NetlinkError) as error:
        raise DataplaneError(f"ipset: {error}; the agent needs CAP_NET_ADMIN and the module ip_set") from error
    try:
        yield Sets(control)
    finally:
        control.close()


def _reason(error: Exception) -> str:
    return f"no answer within {_TIMEOUT:g} s" if isinstance(error, TimeoutError) else str(error)
