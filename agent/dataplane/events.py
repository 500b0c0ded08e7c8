"""What the kernel tells of changes in nftables, iptables-nft's too: who changed what (linux/netfilter/nf_tables.h)."""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from agent.dataplane.errors import DataplaneError
from agent.dataplane.wire import HEADER, attributes, split

RULES: Final = "rules"
"""Stands for all rules and chains, where sets go by their names."""


class Touched(NamedTuple):
    """An object that a transaction made, changed or deleted."""

    family: int
    """1 (inet), 2 (ip), 10 (ip6) …"""
    table: str
    chain: str = ""
    """The chain, or that of a rule."""
    set_name: str = ""


class Told(NamedTuple):
    """One transaction."""

    port: int
    """The netlink port of who made it: mostly the process' number, in its own pid namespace."""
    program: str
    """Its name (comm, 15 characters)."""
    pid: int
    touched: frozenset[Touched]


class _Chunk(NamedTuple):
    """One datagram of the kernel's: all of one transaction."""

    port: int
    touched: frozenset[Touched]
    ends: tuple[str, int] | None
    """If the transaction ends with it: who made it."""


_NETLINK_NETFILTER = 12
_GROUP = 7  # NFNLGRP_NFTABLES
_SOL_NETLINK, _JOIN, _LEAVE = 270, 1, 2
_SUBSYSTEM = 10
_GENERATION = 15
_PROC_PID, _PROC_NAME = 2, 3
_TABLE, _SECOND, _THIRD = 1, 2, 3
_CHAIN_MESSAGES, _RULE_MESSAGES, _SET_MESSAGES = (3, 5), (6, 8), (9, 11, 12, 14)
_FAMILY_SIZE = 4
_NUMBER = struct.Struct(">I")
_BUFFER = 1 << 17
_SO_RCVBUFFORCE = 33
_ROOM = 1 << 22
_MOST = 4096
"""Objects of unfinished transactions, and transactions, that are remembered; with more, everything is looked at."""


def read(data: bytes) -> _Chunk:
    """Reads a datagram. Raises DataplaneError if it is cut."""
    port = HEADER.unpack_from(data)[4] if len(data) >= HEADER.size else 0
    touched: set[Touched] = set()
    ends = None
    for kind, _, content in split(data):
        if kind >> 8 != _SUBSYSTEM or len(content) < _FAMILY_SIZE:
            continue
        found = dict(attributes(content[_FAMILY_SIZE:]))
        message = kind & 0xFF
        if message == _GENERATION:
            pid = found.get(_PROC_PID, b"")
            ends = (_text(found.get(_PROC_NAME, b"")), _NUMBER.unpack(pid)[0] if len(pid) == _NUMBER.size else 0)
            continue
        table = _text(found.get(_TABLE, b""))
        if message in _CHAIN_MESSAGES:
            touched.add(Touched(content[0], table, chain=_text(found.get(_THIRD, b""))))
        elif message in _RULE_MESSAGES:
            touched.add(Touched(content[0], table, chain=_text(found.get(_SECOND, b""))))
        elif message in _SET_MESSAGES:
            touched.add(Touched(content[0], table, set_name=_text(found.get(_SECOND, b""))))
        else:
            touched.add(Touched(content[0], table))
    return _Chunk(port, frozenset(touched), ends)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


class EventSocket:
    """Hears of every transaction in its network namespace."""

    def __init__(self, is_mine: Callable[[int], bool]) -> None:
        """What comes from a port that `is_mine` is not looked into. Raises DataplaneError without CAP_NET_ADMIN."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.bind((0, 1 << _GROUP - 1))
        except OSError as error:
            raise DataplaneError(f"netlink socket for events: {error}; the agent needs CAP_NET_ADMIN") from error
        self._is_mine = is_mine
        self._unfinished: dict[int, set[Touched]] = {}
        self._told: list[Told] = []
        self._lost = False

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """What to wait for until there is something to be read."""
        return self._socket.fileno()

    def hear(self) -> bool:
        """Takes in what has come; True if there is something to be taken."""
        while True:
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return bool(self._told) or self._lost
            except OSError as error:
                # ENOBUFS: more came than there was room for.
                self._lost = True
                if error.errno != errno.ENOBUFS:
                    return True
                continue
            if len(data) >= HEADER.size and self._is_mine(HEADER.unpack_from(data)[4]):
                continue
            try:
                self._take_in(read(data))
            except DataplaneError:
                self._lost = True

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Hears nothing while the context is open; what others did meanwhile counts as missed."""
        self._socket.setsockopt(_SOL_NETLINK, _LEAVE, _GROUP)
        try:
            yield
        finally:
            self._socket.setsockopt(_SOL_NETLINK, _JOIN, _GROUP)
            self._lost = True

    def take(self) -> tuple[list[Told], bool]:
        """The transactions since this was last called, and whether any may have been missed."""
        told, lost = self._told, self._lost
        self._told, self._lost = [], False
        return told, lost

    def _take_in(self, chunk: _Chunk) -> None:
        touched = self._unfinished.setdefault(chunk.port, set())
        touched |= chunk.touched
        if chunk.ends is not None:
            del self._unfinished[chunk.port]
            self._told.append(Told(chunk.port, *chunk.ends, frozenset(touched)))
        if len(self._told) > _MOST or sum(map(len, self._unfinished.values())) > _MOST:
            self._told, self._unfinished, self._lost = [], {}, True
