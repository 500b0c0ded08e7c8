"""Members into ipset sets, thousands in one netlink message (linux/netfilter/ipset/ip_set.h, protocol 6).

pyroute2 sends one entry per message, about 5,000 a second; nested in one IPSET_ATTR_ADT, several 100,000.
Neither adding what is there nor deleting what is not is an error, so every message can be repeated.
"""

import errno
import os
import socket
import struct
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from math import inf
from typing import NamedTuple

from agent.dataplane.change import aside, in_thread
from agent.dataplane.errors import DataplaneError
from agent.dataplane.kinds import Kind, is_ours
from agent.dataplane.plan import NUMBER_OF, Range
from agent.dataplane.wire import Records, attributes, big_endian, split
from radius_bridge.policy.members import Prefix


class Entries(NamedTuple):
    """Addresses or networks, all of one kind."""

    prefixes: Sequence[Prefix]
    timeouts: Sequence[int]
    """Of each, in seconds (0: permanent; without meaning when deleting)."""


Timeouts = Callable[[int, int], Sequence[int]]
"""The timeouts (seconds, 0: permanent) of the entries from one place up to another."""


class Operation(IntEnum):
    """What to do with entries (enum ipset_cmd)."""

    ADD = 9
    DELETE = 10


class Refusal(NamedTuple):
    """An entry that the kernel does not take."""

    prefix: Prefix
    reason: str


class Answer(NamedTuple):
    """The kernel's answer to a message."""

    code: int
    """0, an errno, or an ipset error (4096 and more)."""
    line: int
    """The entry that failed, counted from 1; 0 if the message as a whole did."""


_NETLINK_NETFILTER = 12
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_DUMP, _LIST = 0x300, 7
_REQUEST_ACK = 1 | 4  # without NLM_F_EXCL: repeating is silent
_SUBSYSTEM_IPSET = 6 << 8
_NESTED = 0x8000
_NET_ORDER = 0x4000
# Attributes of a command, and of an entry.
_PROTOCOL, _SETNAME, _FLAGS, _DATA, _ADT = 1, 2, 6, 7, 8
_IP, _CIDR, _TIMEOUT, _LINENO = 1, 3, 6, 9
_ELEMENTS = 24
_HEADERS_ONLY = (1 << 2).to_bytes(4)  # IPSET_FLAG_LIST_HEADER

_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_FAMILY = struct.Struct("=BBH")  # nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")  # nlattr
_ERROR = struct.Struct("=i")
_NUMBER = struct.Struct("=I")
_ADDRESS_AT = 3  # words: after the headers of entry, address, and its kind
_BUFFER = 1 << 17  # an error echoes the whole message

_REASONS = {
    4097: "protocol error",
    4104: "prefix length refused",
    4107: "the set was created without timeouts",
    4109: "not an IPv4 address",
    4110: "not an IPv6 address",
    4352: "the set is full (maxelem)",
    4353: "a hash set cannot hold this address",
}
_ENTRY_FAULTS = frozenset({4104, 4109, 4110, 4353})


def reason(code: int) -> str:
    """What an error code of ipset means."""
    return _REASONS.get(code) or f"{errno.errorcode.get(code, str(code))}: {os.strerror(code)}"


class _Layout:
    """The bytes of entries in a set of `kind`: address, prefix length, timeout and line."""

    def __init__(self, kind: Kind) -> None:
        self._octets = 4 if kind.version == 4 else 16
        address = _ATTRIBUTE.pack(4 + self._octets, (1 if kind.version == 4 else 2) | _NET_ORDER) + bytes(self._octets)
        entry = _ATTRIBUTE.pack(4 + len(address), _IP | _NESTED) + address
        self._length_at = None if kind.hosts else len(entry) // 4 + 2
        if not kind.hosts:
            entry += _ATTRIBUTE.pack(5, _CIDR) + bytes(4)
        self._timeout_at = len(entry) // 4 + 2
        entry += _ATTRIBUTE.pack(8, _TIMEOUT | _NET_ORDER) + bytes(4)
        self._line_at = len(entry) // 4 + 2
        entry += _ATTRIBUTE.pack(8, _LINENO) + bytes(4)
        self._records = Records(_ATTRIBUTE.pack(4 + len(entry), _DATA | _NESTED) + entry)
        self.capacity = self._records.capacity
        self._lines = array("I", range(1, self.capacity + 1))

    def pack(self, entries: Entries) -> bytes:
        count = len(entries.prefixes)
        columns = {
            _ADDRESS_AT: big_endian(map(NUMBER_OF, entries.prefixes), self._octets),
            self._timeout_at: big_endian(entries.timeouts, 4),
            self._line_at: self._lines[:count],
        }
        if self._length_at is not None:
            lengths = struct.pack(f"<{count}I", *(length for _, _, length in entries.prefixes))
            columns[self._length_at] = array("I", lengths)
        return self._records.pack(count, columns)


_LAYOUTS = {(version, hosts): _Layout(Kind(version, hosts)) for version in (4, 6) for hosts in (True, False)}


def capacity(kind: Kind) -> int:
    """How many entries of `kind` fit in one message: the length of an attribute has 16 bits."""
    return _LAYOUTS[kind].capacity


def _command(set_name: str, *, with_line: bool = True) -> bytes:
    """The attributes of a command before its entries; the last is the line, which an error sets."""
    name = set_name.encode() + b"\0"
    return b"".join(
        (
            _ATTRIBUTE.pack(5, _PROTOCOL) + b"\6\0\0\0",
            _ATTRIBUTE.pack(4 + len(name), _SETNAME) + name + b"\0" * (-len(name) % 4),
            _ATTRIBUTE.pack(8, _LINENO) + _NUMBER.pack(0) if with_line else b"",
        )
    )


def encode(operation: Operation, set_name: str, kind: Kind, entries: Entries, sequence: int) -> bytes:
    """One message for at most `capacity(kind)` entries, all of them of `kind`."""
    packed = _LAYOUTS[kind].pack(entries)
    command = _command(set_name) + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _ADT | _NESTED)
    length = _HEADER.size + _FAMILY.size + len(command) + len(packed)
    family = socket.AF_INET if kind.version == 4 else socket.AF_INET6
    return b"".join(
        (
            _HEADER.pack(length, _SUBSYSTEM_IPSET | operation, _REQUEST_ACK, sequence, 0),
            _FAMILY.pack(family, 0, 0),
            command,
            packed,
        )
    )


def decode(answer: bytes, set_name: str, sequence: int) -> Answer | None:
    """Reads the answer to the message with `sequence`; None if it answers another one.

    Raises DataplaneError for what is no answer at all.
    """
    if len(answer) < _HEADER.size + _ERROR.size:
        raise DataplaneError(f"ipset {set_name}: the kernel's answer has only {len(answer)} octets")
    _, kind, _, answered, _ = _HEADER.unpack_from(answer)
    if answered != sequence or kind != _NLMSG_ERROR:
        return None
    (negative,) = _ERROR.unpack_from(answer, _HEADER.size)
    # The error echoes the message; the kernel has set the line in its copy.
    line_at = 2 * _HEADER.size + _ERROR.size + _FAMILY.size + len(_command(set_name)) - _NUMBER.size
    line = 0
    if negative and len(answer) >= line_at + _NUMBER.size:
        (line,) = _NUMBER.unpack_from(answer, line_at)
    return Answer(-negative, line)


def _read_entry(data: bytes, kind: Kind) -> tuple[Range, float]:
    """An entry of a set: its first and last address, seconds left."""
    bits = 32 if kind.version == 4 else 128
    address, length, left = 0, bits, inf
    for name, value in attributes(data):
        if name == _IP:
            address = int.from_bytes(next(each for _, each in attributes(value)))
        elif name == _CIDR:
            length = value[0]
        elif name == _TIMEOUT:
            seconds = int.from_bytes(value)
            left = seconds if seconds else inf
    return (address, address + (1 << bits - length) - 1), left


class MemberSocket:
    """A netlink socket that fills sets. It belongs to the network namespace in which it was made."""

    def __init__(self, timeout: float = 5.0) -> None:
        """`timeout` (seconds) bounds the wait for an answer. Raises DataplaneError without CAP_NET_ADMIN."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._socket.bind((0, 0))
        except OSError as error:
            raise DataplaneError(f"netlink socket for ipset: {error}; the agent needs CAP_NET_ADMIN") from error
        self._socket.settimeout(timeout)
        self._sequence = 0

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    async def write(
        self, operation: Operation, set_name: str, kind: Kind, prefixes: Sequence[Prefix], timeouts: Timeouts
    ) -> list[Refusal]:
        """Adds or deletes entries, all of `kind`; gives those the kernel cannot hold, the others are done.

        `timeouts` is asked for those of each message just before it is sent: of many, the last are sent much later than
        the first on a busy host, and nobody's time may end late.

        Raises DataplaneError if the set itself refuses: it is missing, full or of another type.
        """
        # The kernel works while it is being sent to, so this does not wait for it.
        return await aside(len(prefixes), partial(self._write, operation, set_name, kind, prefixes, timeouts))

    def _write(
        self, operation: Operation, set_name: str, kind: Kind, prefixes: Sequence[Prefix], timeouts: Timeouts
    ) -> list[Refusal]:
        refused: list[Refusal] = []
        step = capacity(kind)
        start = 0
        while start < len(prefixes):
            end = min(start + step, len(prefixes))
            part = Entries(prefixes[start:end], timeouts(start, end))
            code, line = self._exchange(operation, set_name, kind, part)
            if code == 0:
                start += len(part.prefixes)
            elif line and code in _ENTRY_FAULTS:
                refused.append(Refusal(part.prefixes[line - 1], reason(code)))
                start += line
            else:
                entry = f", entry {part.prefixes[line - 1]}" if line else ""
                raise DataplaneError(f"ipset {operation.name.lower()} {set_name}{entry}: {reason(code)}")
        return refused

    async def dump(self, set_name: str, kind: Kind) -> dict[Range, float]:
        """What a set holds: first and last address → seconds left, infinity if permanent. Raises DataplaneError."""
        return await in_thread(partial(self._dump, set_name, kind))

    def _dump(self, set_name: str, kind: Kind) -> dict[Range, float]:
        return dict(_read_entry(each, kind) for part in self.read(set_name) for _, each in attributes(part))

    def read(self, set_name: str) -> list[bytes]:
        """What a set holds, as the kernel lists it: the attributes IPSET_ATTR_ADT. Raises DataplaneError."""
        return [value for part in self._list(set_name, _command(set_name, with_line=False)) for value in part[_ADT]]

    def counts(self) -> dict[str, int]:
        """Our sets with the number of their entries in the kernel. Raises DataplaneError."""
        command = _ATTRIBUTE.pack(5, _PROTOCOL) + b"\6\0\0\0" + _ATTRIBUTE.pack(8, _FLAGS | _NET_ORDER) + _HEADERS_ONLY
        found = {}
        for part in self._list("", command):
            name = part[_SETNAME][0][:-1].decode(errors="replace")  # others name their sets as they like
            if is_ours(name):
                found[name] = int.from_bytes(dict(attributes(part[_DATA][0]))[_ELEMENTS])
        return found

    def _list(self, set_name: str, command: bytes) -> list[defaultdict[int, list[bytes]]]:
        """The messages of a listing: their attributes by type."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        length = _HEADER.size + _FAMILY.size + len(command)
        header = _HEADER.pack(length, _SUBSYSTEM_IPSET | _LIST, _REQUEST_ACK | _DUMP, self._sequence, 0)
        found: list[defaultdict[int, list[bytes]]] = []
        try:
            self._socket.send(header + _FAMILY.pack(socket.AF_UNSPEC, 0, 0) + command)
            while True:
                for answered_kind, answered, content in split(self._socket.recv(_BUFFER)):
                    if answered != self._sequence:
                        continue
                    if answered_kind in (_NLMSG_ERROR, _NLMSG_DONE):
                        code = -_ERROR.unpack_from(content)[0] if len(content) >= _ERROR.size else 0
                        if code:
                            raise DataplaneError(f"ipset list {set_name}: {reason(code)}")
                        return found
                    part: defaultdict[int, list[bytes]] = defaultdict(list)
                    for name, value in attributes(content[_FAMILY.size :]):
                        part[name].append(value)
                    found.append(part)
        except OSError as error:
            raise DataplaneError(f"ipset list {set_name}: netlink: {error}") from error

    def _exchange(self, operation: Operation, set_name: str, kind: Kind, entries: Entries) -> Answer:
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        try:
            self._socket.send(encode(operation, set_name, kind, entries, self._sequence))
            while True:
                answer = decode(self._socket.recv(_BUFFER), set_name, self._sequence)
                if answer is not None:
                    return answer
        except OSError as error:
            raise DataplaneError(f"ipset {operation.name.lower()} {set_name}: netlink: {error}") from error
