"""What a packet gets, whichever way it came: checks, an event that is recorded, a response (RFC 2866 §4.1).

The transports (`udp`, `radsec`) find out who sends and carry octets; everything else is here.
"""

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

import structlog
from msgspec import Struct

from radius_bridge import metrics
from radius_bridge.identity.events import Event, Restart
from radius_bridge.radius import packet as wire
from radius_bridge.radius import status
from radius_bridge.radius.accounting import Outcome, Rules, interpret
from radius_bridge.radius.clients import Client
from radius_bridge.radius.duplicates import Duplicates, Key, Seen
from radius_bridge.radius.seldom import SeldomLog
from radius_bridge.registry.errors import NotRecorded

IN_FLIGHT_LIMIT = 16384
"""Requests that may wait for their commit at once; beyond it they are dropped, and the NAS repeats them."""

Submit = Callable[[Event | Restart], asyncio.Future[None]]
"""Takes an event; the future is done when it is recorded, or raises NotRecorded."""

CanRecord = Callable[[], bool]
"""True while what is submitted can be expected to be recorded: then Status-Server is answered."""


def moment() -> tuple[float, float]:
    """Now, for `Service.receive`: on the monotonic clock, and as epoch seconds.

    The epoch is in milliseconds: no clock is better, and records of sessions have many times.
    """
    return time.monotonic(), round(time.time(), 3)


class Drop(StrEnum):
    """Why a packet got no response."""

    UNKNOWN_CLIENT = "unknown-client"
    MALFORMED = "malformed"
    NOT_ACCOUNTING = "not-accounting"
    WRONG_SECRET = "wrong-secret"  # noqa: S105 - a reason
    IN_PROGRESS = "in-progress"
    OVERLOAD = "overload"
    NOT_RECORDED = "not-recorded"
    CANNOT_RECORD = "cannot-record"
    SUPERSEDED = "superseded"
    FAILED = "failed"


class Transport(Protocol):
    """What carries packets."""

    def send(self, response: bytes, where: Any) -> None:
        """Sends to `where`, as the transport gave it with the request; never blocks, never raises."""

    def name(self, where: Any) -> str:
        """Who is at `where`, for the log."""


class _Request(Struct, gc=False):
    """What is needed to answer a packet."""

    transport: Transport
    where: Any
    packet: wire.Packet
    client: Client
    key: Key
    now: float
    """When it arrived, on the monotonic clock."""


class Service:
    """Takes packets of known clients from all transports. Needs a running event loop."""

    def __init__(
        self,
        rules: Rules,
        submit: Submit,
        *,
        can_record: CanRecord = lambda: True,
        in_flight_limit: int = IN_FLIGHT_LIMIT,
    ) -> None:
        self.rules = rules
        """What holds for all clients, from the next packet on."""
        self._submit = submit
        self._can_record = can_record
        self._limit = in_flight_limit
        self._duplicates = Duplicates()
        self._evicted = 0
        self._in_flight: set[asyncio.Future[None]] = set()
        self._log = SeldomLog()
        metrics.IN_FLIGHT.set_function(self._in_flight.__len__)

    async def drain(self, timeout: float) -> int:
        """Waits up to `timeout` seconds until what is in flight is answered; gives the number that is left."""
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=timeout)  # its callbacks come after ours, which answer
        return len(self._in_flight)

    def receive(
        self,
        data: bytes,
        client: Client,
        transport: Transport,
        where: Any,
        source: bytes | int,
        now: float,
        arrival: float,
    ) -> Drop | None:
        """Takes one packet of `client`; the response goes to `where` by `transport`, now or later.

        `source` and the packet's Identifier tell requests apart (RFC 5080 §2.2.2). `now` is the monotonic
        clock, `arrival` the epoch. Gives the reason if the packet is dropped at once. Never raises.
        """
        try:
            return self._receive(data, client, transport, where, source, now, arrival)
        except Exception:
            # Whatever a packet provoked, the next one must be served; this one gets no response.
            structlog.get_logger().exception("packet failed", source=transport.name(where))
            return self.drop(Drop.FAILED, transport, where, client.name)

    def drop(self, reason: Drop, transport: Transport, where: Any, client: str = "", detail: object = None) -> Drop:
        """Counts a packet that gets no response, and logs it if that kind was not logged just now."""
        metrics.PACKETS["dropped"] += 1
        metrics.DROPPED[reason] += 1
        if reason is not Drop.IN_PROGRESS and self._log.is_due((reason, client)):
            more = {} if detail is None else {"detail": str(detail)}
            self._log.warning(
                "packet dropped", reason=reason.value, client=client, source=transport.name(where), **more
            )
        return reason

    def _receive(
        self,
        data: bytes,
        client: Client,
        transport: Transport,
        where: Any,
        source: bytes | int,
        now: float,
        arrival: float,
    ) -> Drop | None:
        try:
            packet = wire.parse(data)
        except wire.Malformed as error:
            return self.drop(Drop.MALFORMED, transport, where, client.name, error)
        key = (source, packet.identifier)
        request = _Request(transport, where, packet, client, key, now)
        if packet.code != wire.Code.ACCOUNTING_REQUEST:
            if packet.code == status.STATUS_SERVER:
                return self._tell_status(request)
            return self.drop(Drop.NOT_ACCOUNTING, transport, where, client.name, f"code {packet.code}")
        if not wire.is_genuine(packet, client.secret):
            return self.drop(Drop.WRONG_SECRET, transport, where, client.name)

        seen = self._duplicates.begin(key, packet.authenticator, now)
        if seen is Seen.IN_PROGRESS:
            return self.drop(Drop.IN_PROGRESS, transport, where, client.name)
        if seen is not Seen.NEW:
            metrics.PACKETS["repeated"] += 1
            transport.send(seen, where)
            return None
        try:
            return self._process(request, interpret(packet.attributes, client, self.rules, arrival))
        except Exception:
            self._duplicates.forget(key, packet.authenticator)
            raise

    def _tell_status(self, request: _Request) -> Drop | None:
        """RFC 5997: answered only while accounting would be. Not kept for repetitions: it asks about now."""
        transport, where, packet, client = request.transport, request.where, request.packet, request.client
        if not status.is_genuine(packet, client.secret):
            return self.drop(Drop.WRONG_SECRET, transport, where, client.name, "Status-Server")
        if not self._can_record() or len(self._in_flight) >= self._limit:
            return self.drop(Drop.CANNOT_RECORD, transport, where, client.name, "Status-Server")
        metrics.PACKETS["answered"] += 1
        transport.send(status.response(packet, client.secret), where)
        return None

    def _process(self, request: _Request, outcome: Outcome) -> Drop | None:
        if outcome.refused:
            metrics.REFUSED_ADDRESSES.inc(len(outcome.refused))
            if self._log.is_due(("refused", request.client.name)):
                addresses = [str(address) for address in outcome.refused]
                self._log.warning("addresses not allowed", client=request.client.name, addresses=addresses)
        if outcome.ignored:
            metrics.IGNORED_ATTRIBUTES.inc(outcome.ignored)
        if outcome.groups_left_out:
            metrics.GROUPS_LEFT_OUT.inc(outcome.groups_left_out)
        if outcome.addresses_left_out:
            metrics.ADDRESSES_LEFT_OUT.inc(outcome.addresses_left_out)
        if outcome.not_bound is not None:
            metrics.NOT_BOUND[outcome.not_bound] += 1
        event = outcome.event
        if event is None:
            return self._answer(request, request.now)
        if len(self._in_flight) >= self._limit:
            return self._give_up(request, Drop.OVERLOAD)
        metrics.EVENTS["restart" if isinstance(event, Restart) else event.kind] += 1
        recorded = self._submit(event)
        if recorded.done():
            return self._recorded(request, recorded)
        self._in_flight.add(recorded)
        recorded.add_done_callback(lambda future: self._after_a_while(request, future))
        return None

    def _after_a_while(self, request: _Request, recorded: asyncio.Future[None]) -> None:
        self._in_flight.discard(recorded)
        self._recorded(request, recorded)

    def _recorded(self, request: _Request, recorded: asyncio.Future[None]) -> Drop | None:
        if recorded.cancelled():
            return self._give_up(request, Drop.NOT_RECORDED)
        error = recorded.exception()
        if error is None:
            now = time.monotonic()
            metrics.RESPONSE_SECONDS.observe(now - request.now)
            return self._answer(request, now)
        if isinstance(error, NotRecorded):
            return self._give_up(request, Drop.NOT_RECORDED, error)
        structlog.get_logger().error("recording failed", client=request.client.name, exc_info=error)
        return self._give_up(request, Drop.FAILED)

    def _answer(self, request: _Request, now: float) -> Drop | None:
        response = wire.accounting_response(request.packet, request.client.secret)
        if not self._duplicates.answer(request.key, request.packet.authenticator, response, now):
            return self.drop(Drop.SUPERSEDED, request.transport, request.where, request.client.name)
        metrics.PACKETS["answered"] += 1
        if self._duplicates.evicted != self._evicted:
            metrics.EVICTED.inc(self._duplicates.evicted - self._evicted)
            self._evicted = self._duplicates.evicted
        request.transport.send(response, request.where)
        return None

    def _give_up(self, request: _Request, reason: Drop, detail: object = None) -> Drop:
        """Leaves a request without a response, so that its repetition is processed anew."""
        self._duplicates.forget(request.key, request.packet.authenticator)
        return self.drop(reason, request.transport, request.where, request.client.name, detail)
