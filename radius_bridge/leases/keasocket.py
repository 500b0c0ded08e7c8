"""Kea's control socket: it says where the leases are, and shows those that are in no file.

Every Kea answers `config-get`, which names the lease file (memfile backend) to follow. Leases in a database are seen
through `lease4-get-page` and `lease6-get-page`, which the hook library lease_cmds brings: all, every few seconds.
"""

import asyncio
import time
from collections.abc import Container
from math import inf
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from radius_bridge.identity.events import Lease
from radius_bridge.leases import kea
from radius_bridge.leases.keafile import KeaFile
from radius_bridge.leases.outbox import Submit
from radius_bridge.leases.source import LOOK, Trouble
from radius_bridge.leases.stations import mac_of_duid, mac_of_hardware
from radius_bridge.leases.table import Table
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.registry.errors import UNREADABLE

PAGE: Final = 500
"""Leases in one answer: Kea does nothing else while it collects them, and neither do we while we read them."""

POLL: Final = 5.0
"""Seconds between two looks at a database's leases, and between two questions about where they are."""

PATIENCE: Final = 10.0
"""Seconds for an answer."""

LARGEST: Final = 64 * 1024 * 1024
"""Octets of an answer; the configuration of a server with thousands of reservations is large."""

_DEFAULT: Final = "/var/lib/kea/kea-leases{}.csv"
"""Where Kea keeps leases if its configuration does not say."""

_EMPTY: Final = 3
"""The result of a command that found nothing."""

_UNASKED: Final = Path()

_T = TypeVar("_T")


class KeaSocket(KeaFile):
    """The leases of one Kea server, wherever it keeps them."""

    def __init__(self, name: str, networks: Container[Prefix], submit: Submit, socket: Path) -> None:
        super().__init__(name, networks, submit, _UNASKED)
        self._socket = socket
        self._found = _UNASKED
        """The file that is being read."""
        self._pages: int | None = None
        """The IP version to ask leases for; None if they are in a file."""
        self._table = Table()
        self._asked = -inf
        """When we last asked where the leases are (monotonic)."""

    async def look(self) -> None:
        """Offers what is new; asks where the leases are, if that is not known (any more)."""
        if self._path == _UNASKED and self._pages is None:
            await self._find()
        try:
            if self._pages is None:
                await super().look()
            else:
                await self._compare(self._pages)
        except Trouble:
            if time.monotonic() - self._asked >= POLL:  # a file with a bad row is in trouble at every look
                self._path, self._pages = _UNASKED, None
            raise

    async def _find(self) -> None:
        self._asked, self.every = time.monotonic(), POLL
        configuration = await self._ask("config-get", dict)
        version = 4 if "Dhcp4" in configuration else 6
        try:
            database = configuration[f"Dhcp{version}"].get("lease-database", {})
            kind, persistent = database.get("type", "memfile"), database.get("persist", True)
            path = Path(database.get("name", "") or _DEFAULT.format(version))
        except (AttributeError, KeyError, TypeError):
            raise Trouble(f"{self._socket} does not speak for a DHCP server of Kea's") from None
        if kind == "memfile" and persistent:
            if path != self._found:
                self._found, self._reader = path, None
            self._path, self.every = path, LOOK
            return
        if f"lease{version}-get-page" not in await self._ask("list-commands", list):
            raise Trouble(
                f"{self._socket}: this Kea keeps its leases in {kind}{'' if persistent else ', in memory only'}, and "
                "shows them only with libdhcp_lease_cmds.so among its hooks-libraries"
            )
        self._pages = version

    async def _compare(self, version: int) -> None:
        leases: dict[Prefix, Lease] = {}
        start, now = "start", time.time()
        begun: set[str] = set()
        while True:
            begun.add(start)
            answer = await self._ask(f"lease{version}-get-page", dict, {"from": start, "limit": PAGE})
            page = answer.get("leases", [])
            if not isinstance(page, list):
                raise Trouble(f"{self._socket} shows leases that cannot be read: {page!r:.100}")
            for each in page:
                lease = self._lease(each, now)
                if lease.expires > now:
                    leases[lease.address] = lease
            if len(page) < PAGE:
                break
            start = page[-1]["ip-address"]
            if start in begun:
                raise Trouble(f"{self._socket} shows the leases behind {start} again and again: its list has no end")
        changes, doubt = self._table.compare(leases, now, complete=True)
        for lease in changes:
            await self.offer(lease)
        if doubt:
            raise Trouble(f"{self._socket}: {doubt}")

    def _lease(self, value: Any, now: float) -> Lease:
        try:
            address = value["ip-address"]
            if value.get("type") == "IA_PD":
                address = f"{address}/{value['prefix-len']}"
            mac = mac_of_hardware(value.get("hw-address", "")) or mac_of_duid(value.get("duid", ""))
            state, given, lifetime = int(value["state"]), float(value["cltt"]), int(value["valid-lft"])
            return kea.lease(
                parse_prefix(address), mac, state=state, given=given, lifetime=lifetime, source=self.name, written=now
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Trouble(f"{self._socket} shows a lease that cannot be read: {error!r}") from None

    async def _ask(self, command: str, form: type[_T], arguments: Any = None) -> _T:
        """Sends a command; gives the arguments of its answer, empty ones if it found nothing. Raises Trouble."""
        request = {"command": command} if arguments is None else {"command": command, "arguments": arguments}
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(msgspec.json.encode(request))
                    data = await _read_all(reader)
                finally:
                    writer.close()
            answer = msgspec.json.decode(data)
            result, text = answer["result"], answer.get("text", "")
        except TimeoutError:
            raise Trouble(f"{self._socket} did not answer {command} within {PATIENCE:g} s") from None
        except OSError as error:
            raise Trouble(f"{self._socket} cannot be asked: {error.strerror}") from None
        except (*UNREADABLE, AttributeError, KeyError, TypeError, EOFError) as error:
            raise Trouble(f"{self._socket} answered {command} with what cannot be read: {error!r}") from None
        if result not in (0, _EMPTY):
            raise Trouble(f"{self._socket} refused {command}: {text}")
        found = answer.get("arguments", form())
        if not isinstance(found, form):
            raise Trouble(f"{self._socket} answered {command} with what cannot be read: {found!r:.100}")
        return found


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while chunk := await reader.read(65536):
        data += chunk
        if len(data) > LARGEST:
            raise EOFError(f"more than {LARGEST} octets")
    return bytes(data)
