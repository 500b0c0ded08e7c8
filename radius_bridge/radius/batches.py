"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), which Python does not have.

One packet through `socket.recvmsg` and `sendmsg` costs several times what the kernel needs for it, mostly for
Python's tuples of addresses and control messages. Here both stay octets: a sockaddr, and cmsg(3) as it came.
"""

import ctypes
import errno
import mmap
import os
from typing import Final

from radius_bridge.radius.packet import MAX_LENGTH

SIZE: Final = 64
"""Datagrams in one batch."""

_NAME: Final = 28
"""Octets of the longest sockaddr (IPv6)."""
_CONTROL: Final = 80
"""Octets of control messages: where a datagram went to, and how many the kernel dropped."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    """struct msghdr of sys/socket.h."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("message", _Msghdr), ("length", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)

_STRIDE = ctypes.sizeof(_Header)
_INTS = _STRIDE // 4
_LENGTH = _Header.length.offset // 4
_NAMELEN = _Msghdr.namelen.offset // 4
_SIZES = _STRIDE // ctypes.sizeof(ctypes.c_size_t)
_CONTROLLEN = _Msghdr.controllen.offset // ctypes.sizeof(ctypes.c_size_t)
_IOV_SIZES = ctypes.sizeof(_Iovec) // ctypes.sizeof(ctypes.c_size_t)
_IOV_LEN = _Iovec.len.offset // ctypes.sizeof(ctypes.c_size_t)


Datagram = tuple[bytes, bytes, bytes]
"""Its data, the other side's sockaddr, and control messages one after the other."""


class _Batch:
    """Memory for `SIZE` datagrams and the headers that describe it to the kernel."""

    def __init__(self, room: int = MAX_LENGTH) -> None:
        """`room` is for how many octets of each datagram."""
        self._room = room
        # Slices of an mmap are bytes at once, and pages that no datagram needs take no memory.
        self._data = mmap.mmap(-1, SIZE * room)
        self._names = mmap.mmap(-1, SIZE * _NAME)
        self._controls = mmap.mmap(-1, SIZE * _CONTROL)
        self._iovecs = (_Iovec * SIZE)()
        self._headers = (_Header * SIZE)()
        data, names, controls = (_address(m) for m in (self._data, self._names, self._controls))
        for number in range(SIZE):
            self._iovecs[number] = _Iovec(data + number * room, room)
            self._headers[number].message = _Msghdr(
                name=names + number * _NAME,
                namelen=_NAME,
                iov=ctypes.addressof(self._iovecs) + number * ctypes.sizeof(_Iovec),
                iovlen=1,
                control=controls + number * _CONTROL,
                controllen=_CONTROL,
            )
        octets = memoryview(self._headers).cast("B")
        self._octets = octets
        self._ints = octets.cast("I")
        self._sizes = octets.cast("L")
        self._iov_sizes = memoryview(self._iovecs).cast("B").cast("L")
        self._at = ctypes.addressof(self._headers)


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Receiver(_Batch):
    """Receives up to `SIZE` datagrams at once."""

    def __init__(self, room: int = MAX_LENGTH) -> None:
        super().__init__(room)
        self._fresh = bytes(self._octets)

    def receive(self, fd: int) -> list[Datagram]:
        """What waits in a non-blocking socket; empty if nothing does. Raises OSError.

        A datagram that does not fit into the room is cut.
        """
        self._octets[:] = self._fresh  # the kernel has overwritten the lengths
        count = _recvmmsg(fd, self._at, SIZE, 0, None)
        if count < 0:
            error = ctypes.get_errno()
            if error in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(error, os.strerror(error))
        data, names, controls, ints, sizes = self._data, self._names, self._controls, self._ints, self._sizes
        room = self._room
        received = []
        for number in range(count):
            at_data, at_name, at_control = number * room, number * _NAME, number * _CONTROL
            ints_at = number * _INTS
            received.append(
                (
                    data[at_data : at_data + ints[ints_at + _LENGTH]],
                    names[at_name : at_name + ints[ints_at + _NAMELEN]],
                    controls[at_control : at_control + sizes[number * _SIZES + _CONTROLLEN]],
                )
            )
        return received


class Sender(_Batch):
    """Sends any number of datagrams, `SIZE` at once; each fits into the room."""

    def send(self, fd: int, datagrams: list[Datagram]) -> list[tuple[Datagram, int]]:
        """Sends by a non-blocking socket; gives those that the kernel did not take, with the errno of each."""
        refused = []
        for first in range(0, len(datagrams), SIZE):
            lot = datagrams[first : first + SIZE]
            self._fill(lot)
            sent = 0
            while sent < len(lot):
                count = _sendmmsg(fd, self._at + sent * _STRIDE, len(lot) - sent, 0)
                if count < 0:
                    error = ctypes.get_errno()
                    if error == errno.EINTR:
                        continue
                    refused.append((lot[sent], error))
                    count = 1
                sent += count
        return refused

    def _fill(self, lot: list[Datagram]) -> None:
        data, names, controls, ints, sizes = self._data, self._names, self._controls, self._ints, self._sizes
        iov_sizes, room = self._iov_sizes, self._room
        for number, (octets, name, control) in enumerate(lot):
            at_data, at_name, at_control = number * room, number * _NAME, number * _CONTROL
            data[at_data : at_data + len(octets)] = octets
            iov_sizes[number * _IOV_SIZES + _IOV_LEN] = len(octets)
            names[at_name : at_name + len(name)] = name
            ints[number * _INTS + _NAMELEN] = len(name)
            controls[at_control : at_control + len(control)] = control
            sizes[number * _SIZES + _CONTROLLEN] = len(control)
