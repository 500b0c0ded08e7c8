"""The accounting listener: datagrams in, events out, a response when an event is recorded (RFC 2866 §4.1)."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

import structlog

from radius_bridge import metrics
from radius_bridge.identity.events import Event, Kind
from radius_bridge.radius import packet as wire
from radius_bridge.radius import sockets
from radius_bridge.radius.accounting import NotBound, Outcome, Rules, interpret
from radius_bridge.radius.clients import Client, Clients
from radius_bridge.radius.duplicates import Duplicates, Key, Seen
from radius_bridge.registry.errors import NotRecorded

AT_ONCE = 64
"""Datagrams read in one go before the loop's other work gets its turn."""

IN_FLIGHT_LIMIT = 16384
"""Requests that may wait for their commit at once; beyond it they are dropped, and the NAS repeats them."""

LOG_INTERVAL = 10.0
"""Seconds between two lines of the log about the same kind of trouble; the counters have them all."""

Submit = Callable[[Event], asyncio.Future[None]]
"""Takes an event; the future is done when it is recorded, or raises NotRecorded."""


class Drop(StrEnum):
    """Why a packet got no response."""

    UNKNOWN_CLIENT = "unknown-client"
    MALFORMED = "malformed"
    NOT_ACCOUNTING = "not-accounting"
    WRONG_SECRET = "wrong-secret"  # noqa: S105 - a reason
    IN_PROGRESS = "in-progress"
    OVERLOAD = "overload"
    NOT_RECORDED = "not-recorded"
    SUPERSEDED = "superseded"
    FAILED = "failed"


class _Request(NamedTuple):
    """What is needed to answer a packet."""

    sock: socket.socket
    peer: sockets.Peer
    ancillary: sockets.Ancillary
    """Makes the response leave from the address that was asked."""
    packet: wire.Packet
    client: Client
    key: Key
    arrival: float
    """On the monotonic clock."""


class Listener:
    """Receives on UDP sockets and answers what is recorded. Needs a running event loop from `start` on."""

    def __init__(
        self,
        listen: Iterable[tuple[str, int]],
        clients: Clients,
        rules: Rules,
        submit: Submit,
        *,
        in_flight_limit: int = IN_FLIGHT_LIMIT,
    ) -> None:
        """Nothing is opened yet; `listen` has numeric addresses and ports (0: any)."""
        self._listen = list(listen)
        self._clients = clients
        self._rules = rules
        self._submit = submit
        self._limit = in_flight_limit
        self._duplicates = Duplicates()
        self._evicted = 0
        self._in_flight: set[asyncio.Future[None]] = set()
        self._sockets: list[socket.socket] = []
        self._reading = False
        self._kernel_drops: dict[socket.socket, int] = {}
        self._log = _SeldomLog()
        self._answered = metrics.PACKETS.labels("answered")
        self._repeated = metrics.PACKETS.labels("repeated")
        self._dropped_total = metrics.PACKETS.labels("dropped")
        self._dropped = {reason: metrics.DROPPED.labels(reason) for reason in Drop}
        self._not_bound = {reason: metrics.NOT_BOUND.labels(reason) for reason in NotBound}
        self._events = {kind: metrics.EVENTS.labels(kind) for kind in Kind}

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Addresses and ports that are open."""
        return [sock.getsockname()[:2] for sock in self._sockets]

    def start(self) -> None:
        """Opens the sockets and begins to read. Raises OSError, naming the address that cannot be opened."""
        try:
            for host, port in self._listen:
                self._sockets.append(sockets.open_udp(host, port))
        except OSError:
            self._shut()
            raise
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.add_reader(sock, self._readable, sock)
        self._reading = True

    def reload(self, clients: Clients, rules: Rules) -> None:
        """From the next packet on, these hold."""
        self._clients = clients
        self._rules = rules

    def close(self) -> None:
        """Stops reading; what is in flight can still be answered (`drain`)."""
        if self._reading:
            loop = asyncio.get_running_loop()
            for sock in self._sockets:
                loop.remove_reader(sock)
            self._reading = False

    async def drain(self, timeout: float) -> int:
        """Waits up to `timeout` seconds until what is in flight is answered, then shuts the sockets.

        Gives the number of requests that are left without a response. Call `close` first.
        """
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=timeout)  # its callbacks come after ours, which answer
        left = len(self._in_flight)
        self._shut()
        return left

    def _shut(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._kernel_drops.clear()

    def _readable(self, sock: socket.socket) -> None:
        now = time.monotonic()
        arrival = time.time()
        for _ in range(AT_ONCE):
            try:
                data, ancillary, _, peer = sock.recvmsg(wire.MAX_LENGTH, sockets.ANCILLARY_SPACE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # Such as an ICMP error about an earlier response: about one packet, not about the socket.
                self._log.warning("receive failed", error=str(error))
                return
            try:
                self._receive(sock, data, ancillary, peer, now, arrival)
            except Exception:
                # Whatever a packet provoked, the next one must be served; this one gets no response.
                self._drop(Drop.FAILED, peer[0])
                structlog.get_logger().exception("packet failed", source=peer[0])

    def _receive(
        self,
        sock: socket.socket,
        data: bytes,
        ancillary: sockets.Ancillary,
        peer: sockets.Peer,
        now: float,
        arrival: float,
    ) -> None:
        client = self._clients.find(sock.family, peer[0])
        if client is None:
            return self._drop(Drop.UNKNOWN_CLIENT, peer[0])
        try:
            packet = wire.parse(data)
        except wire.Malformed as error:
            return self._drop(Drop.MALFORMED, peer[0], error=str(error))
        if packet.code != wire.Code.ACCOUNTING_REQUEST:
            return self._drop(Drop.NOT_ACCOUNTING, peer[0], code=packet.code)
        if not wire.is_genuine(packet, client.secret):
            return self._drop(Drop.WRONG_SECRET, peer[0], client=client.name)

        key = (peer[0], peer[1], packet.identifier)
        reply_from, kernel_drops = sockets.read_ancillary(ancillary)
        if kernel_drops is not None:
            metrics.SOCKET_DROPS.inc((kernel_drops - self._kernel_drops.get(sock, 0)) & 0xFFFFFFFF)
            self._kernel_drops[sock] = kernel_drops
        request = _Request(sock, peer, reply_from, packet, client, key, now)
        seen = self._duplicates.begin(key, packet.authenticator, now)
        if seen is Seen.IN_PROGRESS:
            return self._drop(Drop.IN_PROGRESS, peer[0])
        if isinstance(seen, bytes):
            self._repeated.inc()
            return self._send(request, seen)
        try:
            self._process(request, interpret(packet.attributes, client, self._rules, arrival))
        except Exception:
            self._duplicates.forget(key, packet.authenticator)
            raise
        return None

    def _process(self, request: _Request, outcome: Outcome) -> None:
        if outcome.refused:
            metrics.REFUSED_ADDRESSES.inc(len(outcome.refused))
            addresses = [str(address) for address in outcome.refused]
            self._log.warning("addresses not allowed", client=request.client.name, addresses=addresses)
        if outcome.ignored:
            metrics.IGNORED_ATTRIBUTES.inc(outcome.ignored)
        if outcome.not_bound is not None:
            self._not_bound[outcome.not_bound].inc()
        event = outcome.event
        if event is None:
            return self._answer(request)
        if len(self._in_flight) >= self._limit:
            return self._give_up(request, Drop.OVERLOAD)
        self._events[event.kind].inc()
        recorded = self._submit(event)
        if recorded.done():
            return self._recorded(request, recorded)
        self._in_flight.add(recorded)
        metrics.IN_FLIGHT.set(len(self._in_flight))
        recorded.add_done_callback(lambda future: self._recorded(request, future))
        return None

    def _recorded(self, request: _Request, recorded: asyncio.Future[None]) -> None:
        if recorded in self._in_flight:
            self._in_flight.discard(recorded)
            metrics.IN_FLIGHT.set(len(self._in_flight))
        if recorded.cancelled():
            return self._give_up(request, Drop.NOT_RECORDED)
        error = recorded.exception()
        if error is None:
            metrics.RESPONSE_SECONDS.observe(time.monotonic() - request.arrival)
            return self._answer(request)
        if isinstance(error, NotRecorded):
            return self._give_up(request, Drop.NOT_RECORDED, error=str(error))
        structlog.get_logger().error("recording failed", client=request.client.name, exc_info=error)
        return self._give_up(request, Drop.FAILED)

    def _answer(self, request: _Request) -> None:
        response = wire.accounting_response(request.packet, request.client.secret)
        if self._duplicates.answer(request.key, request.packet.authenticator, response, time.monotonic()):
            self._answered.inc()
            if self._duplicates.evicted != self._evicted:
                metrics.EVICTED.inc(self._duplicates.evicted - self._evicted)
                self._evicted = self._duplicates.evicted
            self._send(request, response)
        else:
            self._drop(Drop.SUPERSEDED, request.peer[0])

    def _give_up(self, request: _Request, reason: Drop, **fields: object) -> None:
        """Leaves a request without a response, so that its repetition is processed anew."""
        self._duplicates.forget(request.key, request.packet.authenticator)
        self._drop(reason, request.peer[0], client=request.client.name, **fields)

    def _drop(self, reason: Drop, source: str, **fields: object) -> None:
        self._dropped_total.inc()
        self._dropped[reason].inc()
        if reason is not Drop.IN_PROGRESS:
            self._log.warning("packet dropped", reason=reason.value, source=source, **fields)

    def _send(self, request: _Request, response: bytes) -> None:
        try:
            request.sock.sendmsg((response,), request.ancillary, 0, request.peer)
        except OSError as error:
            # Full buffer, no route, an address that is gone: the NAS repeats, and the cache has the response.
            metrics.SEND_ERRORS.inc()
            self._log.warning("response not sent", peer=request.peer[0], error=str(error))


class _SeldomLog:
    """A log that says the same thing at most every `LOG_INTERVAL` seconds, and how often it was silent."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, object], tuple[float, int]] = {}

    def warning(self, event: str, **fields: object) -> None:
        """`event` and the field `reason` tell what is the same: both are from short lists of ours."""
        topic = (event, fields.get("reason"))
        now = time.monotonic()
        due, silent = self._next.get(topic, (0.0, 0))
        if now < due:
            self._next[topic] = (due, silent + 1)
            return
        self._next[topic] = (now + LOG_INTERVAL, 0)
        if silent:
            fields["not_logged_since"] = silent
        structlog.get_logger().warning(event, **fields)
