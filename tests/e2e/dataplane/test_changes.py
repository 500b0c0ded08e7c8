"""Packets while the dataplane changes: permitted ones all arrive, refused ones never do."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.desired import ALLOW, DENY, Desired
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix, parse_prefix
from tests.e2e.dataplane.backends import BACKENDS
from tests.e2e.dataplane.host import ALICE, BOB, PORT, SERVER, SERVICE, Host
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

RATE = 1000
_END = time.time() + 86_400


class Traffic:
    """Alice and Bob each send RATE datagrams a second to the service, which returns what it gets."""

    def __init__(self, host: Host) -> None:
        self._stop = threading.Event()
        self.sent = {ALICE: 0, BOB: 0}
        self.arrived = {ALICE: 0, BOB: 0}
        self.returned = 0
        self.refused_replies = 0
        self._service = host.server.socket(type=socket.SOCK_DGRAM)
        self._service.bind((SERVER, PORT))
        self._service.settimeout(0.05)
        self._clients = {}
        for address in self.sent:
            client = self._clients[address] = host.client.socket(type=socket.SOCK_DGRAM)
            client.bind((address, 0))
            client.settimeout(0.05)
        self._threads = [threading.Thread(target=each) for each in (self._send, self._serve, self._hear)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends it, and waits for what is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for sock in (self._service, *self._clients.values()):
            sock.close()

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            for address, client in self._clients.items():
                client.sendto(b"x", (SERVER, PORT))
                self.sent[address] += 1
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))

    def _serve(self) -> None:
        while True:
            try:
                _, (address, port) = self._service.recvfrom(100)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            self.arrived[address] += 1
            try:
                self._service.sendto(b"x", (address, port))
            except PermissionError:
                self.refused_replies += 1

    def _hear(self) -> None:
        while True:
            try:
                self._clients[ALICE].recv(100)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            self.returned += 1


@contextmanager
def _lossless(host: Host) -> Iterator[None]:
    """While this goes on, all of Alice's datagrams arrive and are answered, and none of Bob's does."""
    traffic = Traffic(host)
    try:
        wait_until(lambda: traffic.returned > 10, "traffic")
        yield
        enough = traffic.returned + RATE // 10
        wait_until(lambda: traffic.returned > enough, "traffic afterwards")
    finally:
        traffic.close()
    assert traffic.arrived == {ALICE: traffic.sent[ALICE], BOB: 0}
    assert (traffic.returned, traffic.refused_replies) == (traffic.sent[ALICE], 0)


def _policy(number: int, count: int = 3_000) -> Desired:
    """Alice, and so many others that are different for each number."""
    members = {Prefix(4, 0x0A000000 + number * count + each, 32): _END for each in range(count)}
    members |= {parse_prefix(ALICE): NEVER, parse_prefix(f"198.18.{number}.0/24"): _END}
    return Desired((SERVICE,), {SERVICE.name: members, ALLOW: {}, DENY: {}})


def test_filling_sets_anew_loses_nothing_and_lets_nothing_in(host: Host) -> None:
    host.apply(_policy(0))
    with _lossless(host):
        for number in range(1, 11):
            assert host.apply(_policy(number)).rebuilt == [SERVICE.name]
    assert host.differences() == []


def test_writing_the_rules_anew_loses_nothing_and_lets_nothing_in(host: Host) -> None:
    host.apply(_policy(0))
    with _lossless(host):
        for _, prefix in itertools.product(range(4), ("10.0.0.0/8", "192.168.0.0/16")):
            assert host.enforce({ALICE: NEVER}, failsafe=(prefix,)).rules


def test_a_restarted_agent_loses_nothing_and_lets_nothing_in(host: Host) -> None:
    host.apply(_policy(0))
    with _lossless(host):
        for number in range(3):
            host.restart_agent()
            host.apply(_policy(number))
    assert host.differences() == []


@pytest.mark.parametrize(
    ("host", "other"),
    [(one, other) for one, other in itertools.permutations(BACKENDS, 2)],
    indirect=["host"],
)
def test_another_backend_stands_before_the_old_one_goes(host: Host, other: str) -> None:
    host.apply(_policy(0))
    with _lossless(host):
        host.switch(other)
        assert host.is_in_place()  # by the rules of the backend before: they are newer than any state on disk
        host.apply(_policy(1))
    assert host.differences() == []
    assert host.traces() == [other]


def test_uninstall_removes_what_any_backend_has_left(host: Host) -> None:
    host.apply(_policy(0))
    host.stop_agent()
    host.uninstall_all()
    assert host.traces() == []
