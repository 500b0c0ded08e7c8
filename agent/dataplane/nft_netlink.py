"""Members into nftables sets, thousands in one netlink message (linux/netfilter/nf_tables.h).

A batch is one transaction: packets see the sets as they were before it or as they are after it. `nft -f` does the
same from text, but reads whole interval sets first: 28 seconds for one change of 500,000 networks.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from functools import partial
from itertools import compress
from typing import NamedTuple

from agent.dataplane.change import aside, in_thread
from agent.dataplane.errors import DataplaneError
from agent.dataplane.plan import Range
from agent.dataplane.wire import Records, attributes, big_endian, split


class Elements(NamedTuple):
    """Elements of one set, each with its first and its last address (the same one, in a hash set)."""

    firsts: Sequence[int]
    lasts: Sequence[int]
    timeouts: Sequence[int]
    """In milliseconds (0: permanent)."""


class Form(NamedTuple):
    """What a set holds."""

    octets: int
    """Length of an address: 4 or 16; or of another key: 1."""
    hosts: bool
    """True: a set of single addresses; False: an interval set of ranges."""


class Do(IntEnum):
    """What to do with elements (enum nf_tables_msg_types)."""

    ADD = 12
    DELETE = 14


class Step(NamedTuple):
    """One step of a transaction."""

    do: Do
    set_name: str
    form: Form
    elements: Elements | None
    """None with DELETE: all of them."""


_NETLINK_NETFILTER = 12
_SOL_NETLINK, _CAP_ACK = 270, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_ERROR_MESSAGE, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
_BATCH_BEGIN, _BATCH_END = 16, 17
_SUBSYSTEM = 10
_GET_ELEMENTS = 13
_INET = 1
_NESTED = 0x8000
# Attributes of a message, and of an element.
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_LIST_ELEMENT = 1
_KEY, _FLAGS, _TIMEOUT, _EXPIRATION = 1, 3, 4, 5
_DATA_VALUE = 1
_INTERVAL_END = 1

_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_FAMILY = struct.Struct(">BBH")  # nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")  # nlattr
_NUMBER32 = struct.Struct(">I")
_NUMBER64 = struct.Struct(">Q")
_CODE = struct.Struct("=i")
_KEY_AT = 3  # words: after the headers of element, key, and value


_LOUD = 250
"""From more elements than this on it costs too much to hear of our own: the kernel would tell of each."""

_AT_ONCE = 4_000
"""So many elements of those that need not come all at once go in one transaction. During a long one the kernel cannot
enlarge its hash table: 500,000 in one take 1.2 s of its time, in parts 0.4. And if anybody on the machine, in whatever
network namespace, listens to nftables' events, it keeps some 4 kB for each element until the end: then they take 12 s
and more in one, 0.8 in parts."""

Timeouts = Callable[[int, int], Sequence[int]]
"""The timeouts (milliseconds, 0: permanent) of the elements from one place up to another."""

WhileMany = Callable[[], AbstractContextManager[None]]


class _Layout:
    """The bytes of elements: addresses or ranges, permanent or not."""

    def __init__(self, octets: int, *, is_timed: bool, is_range: bool) -> None:
        key = _attribute(_KEY | _NESTED, _attribute(_DATA_VALUE, bytes(octets)))
        timeout = _attribute(_TIMEOUT, bytes(_NUMBER64.size)) if is_timed else b""
        start = _attribute(_LIST_ELEMENT | _NESTED, key + timeout)
        end = _attribute(_LIST_ELEMENT | _NESTED, key + _attribute(_FLAGS, _NUMBER32.pack(_INTERVAL_END)))
        self._octets = octets
        self._timeout_at = (len(start) - _NUMBER64.size) // 4 if is_timed else None
        self._end_at = len(start) // 4 + _KEY_AT if is_range else None
        self._records = Records(start + end if is_range else start)

    def lists(self, elements: Elements) -> Iterator[bytes]:
        """Lists of elements, each as long as an attribute can be."""
        step = self._records.capacity
        for at in range(0, len(elements.firsts), step):
            firsts, lasts, timeouts = (column[at : at + step] for column in elements)
            columns = {_KEY_AT: big_endian(firsts, self._octets)}
            if self._timeout_at is not None:
                columns[self._timeout_at] = big_endian(timeouts, _NUMBER64.size)
            if self._end_at is not None:
                columns[self._end_at] = big_endian([last + 1 for last in lasts], self._octets)
            yield self._records.pack(len(firsts), columns)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


_LAYOUTS = {
    (octets, is_timed, is_range): _Layout(octets, is_timed=is_timed, is_range=is_range)
    for octets in (1, 4, 16)
    for is_timed in (True, False)
    for is_range in (True, False)
}


def message(kind: int, flags: int, sequence: int, family: int, content: bytes, resource: int = 0) -> bytes:
    """One netlink message."""
    length = _HEADER.size + _FAMILY.size + len(content)
    return _HEADER.pack(length, kind, _REQUEST | flags, sequence, 0) + _FAMILY.pack(family, 0, resource) + content


def encode(table: str, step: Step) -> Iterator[tuple[int, bytes]]:
    """The messages of one step, as their type and content: as many as the length of an attribute (16 bits) asks for."""
    head = _attribute(_TABLE, table.encode() + b"\0") + _attribute(_SET, step.set_name.encode() + b"\0")
    kind = _SUBSYSTEM << 8 | step.do
    if step.elements is None:
        yield kind, head
        return
    count, beyond = len(step.elements.firsts), 1 << 8 * step.form.octets
    is_timed = list(map(bool, step.elements.timeouts)) if step.do is Do.ADD else [False] * count
    # A range up to the last address of all is open: nothing closes it.
    is_closed = [False] * count if step.form.hosts else [last + 1 < beyond for last in step.elements.lasts]
    shapes = sorted(set(zip(is_timed, is_closed, strict=True)), reverse=True)
    for timed, closed in shapes:
        elements = step.elements
        if len(shapes) > 1:
            chosen = [one is timed and other is closed for one, other in zip(is_timed, is_closed, strict=True)]
            elements = Elements(*(list(compress(column, chosen)) for column in step.elements))
        for part in _LAYOUTS[step.form.octets, timed, closed].lists(elements):
            yield kind, head + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(part), _ELEMENTS | _NESTED) + part


def batch(table: str, steps: Sequence[Step], sequence: int) -> tuple[bytes, list[Step]]:
    """One transaction, and the step of each of its messages. Its first message has `sequence`, the next one more."""
    contents = [(step, kind, content) for step in steps for kind, content in encode(table, step)]
    messages = [message(_BATCH_BEGIN, 0, sequence, 0, b"", _SUBSYSTEM)]
    for number, (step, kind, content) in enumerate(contents, 1):
        flags = _CREATE if step.do is Do.ADD else 0
        # The answer to the last one says that all went well; what goes wrong is answered in any case.
        flags |= _ACK if number == len(contents) else 0
        messages.append(message(kind, flags, sequence + number, _INET, content))
    messages.append(message(_BATCH_END, 0, sequence + len(contents) + 1, 0, b"", _SUBSYSTEM))
    return b"".join(messages), [step for step, _, _ in contents]


class ElementSocket:
    """A netlink socket that fills and reads sets of one table of the family inet, in its network namespace."""

    def __init__(self, table: str, timeout: float = 20.0) -> None:
        """`timeout` (seconds) bounds the wait for an answer. Raises DataplaneError without CAP_NET_ADMIN."""
        self._table = table
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        except OSError as error:
            raise DataplaneError(f"netlink socket for nftables: {error}; the agent needs CAP_NET_ADMIN") from error
        self._socket.settimeout(timeout)
        self._sequence = 0
        self._room = 0
        self.while_many: WhileMany = nullcontext
        """Entered while many elements are written."""
        self.port: int = self._socket.getsockname()[0]
        """By which the kernel tells what came from here."""

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    async def commit(self, steps: Sequence[Step]) -> None:
        """Does all these steps in one transaction, or none of them. Raises DataplaneError naming what failed."""
        steps = [step for step in steps if step.elements is None or step.elements.firsts]
        count = sum(len(step.elements.firsts) for step in steps if step.elements is not None)
        with self.while_many() if count > _LOUD else nullcontext():
            if steps:
                await aside(count, partial(self._commit, steps))

    async def add(self, set_name: str, form: Form, addresses: Sequence[int], timeouts: Timeouts) -> None:
        """Adds addresses that a hash set does not have, some thousands in each transaction. Raises DataplaneError.

        `timeouts` is asked for those of each transaction just before it is sent.
        """
        with self.while_many() if len(addresses) > _LOUD else nullcontext():
            await aside(len(addresses), partial(self._add, set_name, form, addresses, timeouts))

    def _add(self, set_name: str, form: Form, addresses: Sequence[int], timeouts: Timeouts) -> None:
        for start in range(0, len(addresses), _AT_ONCE):
            some = addresses[start : start + _AT_ONCE]
            elements = Elements(some, some, timeouts(start, start + len(some)))
            self._commit([Step(Do.ADD, set_name, form, elements)])

    def _commit(self, steps: Sequence[Step]) -> None:
        sequence = self._sequence = self._sequence % 0x7FFFFFFF + 1
        data, of = batch(self._table, steps, sequence)
        self._sequence = (sequence + len(of) + 1) % 0x7FFFFFFF
        self._exchange(data, sequence, of)

    async def dump(self, set_name: str, form: Form) -> dict[Range, float]:
        """What a set holds, with the seconds left of each (infinity: permanent). Raises DataplaneError."""
        return await in_thread(partial(self._dump, set_name, form))

    def _exchange(self, data: bytes, sequence: int, of: Sequence[Step]) -> None:
        try:
            self._make_room(len(data))
            self._socket.send(data)
            failures: dict[str, None] = {}
            while True:
                for kind, answered, content in split(self._socket.recv(1 << 16)):
                    number = answered - sequence
                    if kind != _ERROR_MESSAGE or not 0 <= number <= len(of):
                        continue
                    code = -_CODE.unpack_from(content)[0]
                    if code:
                        step = of[max(number, 1) - 1]
                        failures[f"nftables {step.do.name.lower()} {step.set_name}: {_reason(code)}"] = None
                    # An error of the batch as a whole comes as the answer to its first message, and alone.
                    if number in (0, len(of)):
                        if failures:
                            raise DataplaneError("; ".join(failures))
                        return
        except OSError as error:
            raise DataplaneError(f"nftables, {len(of)} messages: netlink: {error}") from error

    def _dump(self, set_name: str, form: Form) -> dict[Range, float]:
        self._sequence = sequence = self._sequence % 0x7FFFFFFF + 1
        content = _attribute(_TABLE, self._table.encode() + b"\0") + _attribute(_SET, set_name.encode() + b"\0")
        found: list[tuple[int, bool, float]] = []
        try:
            self._socket.send(message(_SUBSYSTEM << 8 | _GET_ELEMENTS, _DUMP, sequence, _INET, content))
            while True:
                for kind, answered, answer in split(self._socket.recv(1 << 17)):
                    if answered != sequence:
                        continue
                    if kind in (_ERROR_MESSAGE, _DONE):
                        code = -_CODE.unpack_from(answer)[0] if len(answer) >= _CODE.size else 0
                        if code:
                            raise DataplaneError(f"nftables list {set_name}: {_reason(code)}")
                        return _ranges(found, form)
                    for name, value in attributes(answer[_FAMILY.size :]):
                        if name == _ELEMENTS:
                            found += (_read_element(element) for _, element in attributes(value))
        except OSError as error:
            raise DataplaneError(f"nftables list {set_name}: netlink: {error}") from error

    def _make_room(self, length: int) -> None:
        """A transaction is one send: the socket's buffer must hold it."""
        if length * 2 > self._room:
            self._room = max(1 << 21, 2 * length)
            for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
                self._socket.setsockopt(socket.SOL_SOCKET, option, min(self._room, 0x3FFFFFFF))


def _read_element(data: bytes) -> tuple[int, bool, float]:
    """An element of a set: its address, whether it closes a range, seconds left."""
    address, closes, left = 0, False, float("inf")
    for name, value in attributes(data):
        if name == _KEY:
            address = int.from_bytes(next(each for kind, each in attributes(value) if kind == _DATA_VALUE))
        elif name == _FLAGS:
            closes = bool(_NUMBER32.unpack(value)[0] & _INTERVAL_END)
        elif name == _EXPIRATION:
            left = _NUMBER64.unpack(value)[0] / 1000
    return address, closes, left


def _ranges(elements: Collection[tuple[int, bool, float]], form: Form) -> dict[Range, float]:
    if form.hosts:
        return {(address, address): left for address, _, left in elements}
    found: dict[Range, float] = {}
    start: tuple[int, float] | None = None
    # Where one range follows another, the end of the first comes before the start of the next.
    for address, closes, left in sorted(elements, key=lambda each: (each[0], not each[1])):
        if closes and start is not None:
            found[start[0], address - 1] = start[1]
        start = None if closes else (address, left)
    if start is not None:
        found[start[0], (1 << 8 * form.octets) - 1] = start[1]
    return found


def _reason(code: int) -> str:
    return f"{errno.errorcode.get(code, str(code))}: {os.strerror(code)}"
