"""The lease file of dnsmasq (`dnsmasq.leases`), and how it is followed.

    1795322969 7a:e5:9c:d7:bf:06 192.0.2.102 name 01:7a:e5:9c:d7:bf:06      expiry (0: never), MAC, address, …
    duid 00:01:00:01:32:95:2e:7d:76:fe:83:2c:9e:4d                          the server's own; DHCPv6 leases follow
    1795323022 1319935049 2001:db8:1::108 * 00:03:00:01:36:47:4e:ac:9c:49   expiry, IAID, address, name, DUID

dnsmasq empties the file and writes it anew at every change, and a lease that has ended is not in it any more. So a file
may be seen half-written, and an end is believed at the second look only (`leases.table`).
"""

import asyncio
import os
import re
import time
from collections.abc import Container
from pathlib import Path
from typing import Final

from radius_bridge.identity.events import Lease
from radius_bridge.leases.kea import FOREVER
from radius_bridge.leases.outbox import Submit
from radius_bridge.leases.source import Trouble, Watcher
from radius_bridge.leases.stations import mac_of_duid, mac_of_hardware
from radius_bridge.leases.table import Table
from radius_bridge.policy.members import Prefix, parse_prefix

LARGEST: Final = 64 * 1024 * 1024
"""Octets of a file; dnsmasq keeps 1,000 leases unless it is told otherwise."""

SLICE: Final = 500
"""Lines that are parsed before other work has its turn."""

MOMENT: Final = 0.1
"""Seconds in which dnsmasq has written the file."""

_LINE = re.compile(r"(\d{1,12}) (\S+) (\S+) (\S+) (\S+)")


def lease_of(line: str, source: str, written: float) -> Lease | None:
    """What one line says; None for the server's DUID. `written` (epoch seconds) is when the file was.

    The file does not say when a lease was given, but that it was there when it was written. Raises ValueError.
    """
    if line.startswith("duid "):
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("it is no lease")
    address = parse_prefix(match[3])
    if not address.is_host:
        raise ValueError(f"{match[3]!r} is no address")
    mac = mac_of_hardware(match[2]) if address.version == 4 else mac_of_duid(match[5])
    return Lease(address, mac, written, float(match[1]) if int(match[1]) else FOREVER, source)


class DnsmasqFile(Watcher):
    """The leases of one dnsmasq, as its lease file has them."""

    def __init__(self, name: str, networks: Container[Prefix], submit: Submit, path: Path) -> None:
        super().__init__(name, networks, submit)
        self._path = path
        self._table = Table()
        self._seen: object = None

    async def look(self) -> None:
        """Reads the file if it has changed, and offers what did.

        What is wrong with it must be wrong a moment later too: dnsmasq may be writing.
        """
        if await self._compare():
            await asyncio.sleep(MOMENT)
            if problem := await self._compare():
                raise Trouble(f"{self._path}: {problem}")

    async def _compare(self) -> str:
        """Offers what has changed; gives what is wrong with the file."""
        data, status = await asyncio.to_thread(self._read)
        if data is None:
            return ""
        self._seen = None
        *lines, half = data.split(b"\n")
        leases, bad = await self._parse(lines, status.st_mtime)
        changes, doubt = self._table.compare(leases, time.time(), complete=not half and not bad)
        for lease in changes:
            await self.offer(lease)
        problem = bad or ("it ends in half a line" if half else doubt)
        if not problem:
            self._seen = _identity(status)
        return problem

    async def _parse(self, lines: list[bytes], written: float) -> tuple[dict[Prefix, Lease], str]:
        """The leases in the lines, and what is wrong with the first line that is no lease."""
        leases: dict[Prefix, Lease] = {}
        bad = ""
        for number, line in enumerate(lines, 1):
            try:
                lease = lease_of(line.decode(), self.name, written)
            except ValueError as error:
                bad = bad or f"line {number} was left out: {error}"
                continue
            if lease is not None:
                leases[lease.address] = lease
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return leases, bad

    def _read(self) -> tuple[bytes | None, os.stat_result]:
        """The file, unless it is as it was. Blocks; raises Trouble."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if _identity(status) == self._seen and not self._table.doubts:
                    return None, status
                data = file.read(LARGEST + 1)
        except OSError as error:
            raise Trouble(f"{self._path} cannot be read: {error.strerror}") from None
        if len(data) > LARGEST:
            raise Trouble(f"{self._path} has more than {LARGEST} octets: is it dnsmasq's lease file?")
        return data, status


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
