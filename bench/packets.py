"""Packets through a kernel's filter at the rate that one core gives: sent and received in batches by one thread.

On a veth the kernel takes a packet through the other side's INPUT while it is being sent, on the same core. So sending
a batch and receiving it counts everything that a packet costs, waits for nobody, and drops nothing. sendmmsg(2) and
recvmmsg(2) keep Python out of the way: two calls for `BATCH` packets, from memory that is laid out once.
"""

import ctypes
import errno
import os
import socket
import time

BATCH = 64
OCTETS = 64

_PATIENCE = 1.0


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: a struct msghdr, and how many octets came."""

    _fields_ = (("header", _Msghdr), ("came", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)


class Batch:
    """Memory for `BATCH` packets."""

    def __init__(self) -> None:
        self._data = ctypes.create_string_buffer(BATCH * OCTETS)
        at = ctypes.addressof(self._data)
        self._iovecs = (_Iovec * BATCH)(*(_Iovec(at + number * OCTETS, OCTETS) for number in range(BATCH)))
        first, step = ctypes.addressof(self._iovecs), ctypes.sizeof(_Iovec)
        self._headers = (_Message * BATCH)(
            *(_Message(_Msghdr(None, 0, first + number * step, 1)) for number in range(BATCH))
        )

    def send(self, sock: socket.socket) -> int:
        """Sends up to a batch; how many the kernel took. Raises OSError."""
        return _checked(_libc.sendmmsg(sock.fileno(), self._headers, BATCH, 0))

    def receive(self, sock: socket.socket) -> int:
        """Receives up to a batch; how many were there. Raises OSError."""
        return _checked(_libc.recvmmsg(sock.fileno(), self._headers, BATCH, 0, None))


def _checked(count: int) -> int:
    if count >= 0:
        return count
    error = ctypes.get_errno()
    if error in (errno.EAGAIN, errno.EINTR):
        return 0
    raise OSError(error, os.strerror(error))


def rate(sender: socket.socket, receiver: socket.socket, seconds: float) -> float:
    """Packets a second from one socket to the other, both non-blocking and connected, for so many seconds.

    Raises TimeoutError if a packet does not arrive.
    """
    out, into = Batch(), Batch()
    passed = 0
    began = now = time.perf_counter()
    while now < began + seconds:
        waiting = sent = out.send(sender)
        while waiting:
            came = into.receive(receiver)
            waiting -= came
            if not came and time.perf_counter() - now > _PATIENCE:
                raise TimeoutError(f"{waiting} of {sent} packets did not arrive")
        passed += sent
        now = time.perf_counter()
    return passed / (now - began)


def round_trips(one: socket.socket, other: socket.socket, count: int) -> list[float]:
    """Seconds of each of `count` packets from one socket to the other and back. Raises TimeoutError."""
    packet = bytes(OCTETS)
    took = []
    for _ in range(count):
        began = time.perf_counter()
        one.send(packet)
        other.send(_wait(other))
        _wait(one)
        took.append(time.perf_counter() - began)
    return took


def _wait(sock: socket.socket) -> bytes:
    began = 0.0
    while True:
        try:
            return sock.recv(OCTETS)
        except BlockingIOError:
            began = began or time.perf_counter()
            if time.perf_counter() - began > _PATIENCE:
                raise TimeoutError("a packet did not arrive") from None
