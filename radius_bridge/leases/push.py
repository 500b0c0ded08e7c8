"""An HTTP endpoint that DHCP servers tell of leases: `POST /lease` with one lease or a list of them, as JSON.

    {"address": "192.0.2.5", "mac": "00:1b:2c:3d:4e:5f", "at": 1795322369, "lifetime": 600}

`address` is an address or a delegated prefix. `lifetime` is in seconds from `at` (epoch seconds; if left out, now);
0: the lease has ended (released, declined, expired); 4294967295: for ever. Instead of `mac` (any spelling) there may be
a `duid`. The answer is 200 when all of them are recorded. 400, 413 and 422 say that a repetition would be refused too;
after any other answer, or none, what was sent must be sent again.
"""

import asyncio
import hmac
import socket
import time
from collections.abc import Callable, Container
from typing import Final, cast

import msgspec
from aiohttp import web

from radius_bridge.identity.events import Lease
from radius_bridge.identity.macs import mac_of
from radius_bridge.leases.kea import FOREVER, INFINITE
from radius_bridge.leases.outbox import Submit
from radius_bridge.leases.source import Order, Source
from radius_bridge.leases.stations import mac_of_duid
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.radius.seldom import SeldomLog
from radius_bridge.radius.sockets import endpoint
from radius_bridge.registry.errors import UNREADABLE, NotRecorded, RegistryError

LARGEST: Final = 256 * 1024
"""Octets of a request's body."""

MOST: Final = 1000
"""Leases in one request."""

OPEN: Final = 4096
"""Leases that may wait to be recorded, of all requests; more are refused with 503."""

PATIENCE: Final = 10.0
"""Seconds in which a request must have come, and again in which it must be recorded."""

LONGEST: Final = 3 * PATIENCE
"""Seconds that a connection may take; it is for one request."""

CONNECTIONS: Final = 256
"""Connections at the same time; more are closed at once."""

STRANGERS: Final = 16
"""The same, from addresses that are not allowed: so many are told so."""


class _Pushed(msgspec.Struct, forbid_unknown_fields=True):
    """One lease in a request."""

    address: str
    lifetime: int
    mac: str = ""
    duid: str = ""
    at: float | None = None

    def lease(self, source: str, now: float) -> Lease:
        """Raises ValueError."""
        if not 0 <= self.lifetime <= INFINITE:
            raise ValueError(f"lifetime {self.lifetime}: write seconds, 0 for a lease that ended")
        mac = mac_of(self.mac)
        if self.mac and not mac:
            raise ValueError(f"mac {self.mac!r} is no MAC address")
        at = now if self.at is None else self.at
        expires = FOREVER if self.lifetime == INFINITE else at + self.lifetime
        return Lease(parse_prefix(self.address), mac or mac_of_duid(self.duid), at, expires, source)


_decode = msgspec.json.Decoder(_Pushed | list[_Pushed]).decode


_LAST: Final = {"Connection": "close"}
"""Each connection is for one request: what was not read of it is never taken for another one."""


class _Door(asyncio.Protocol):
    """What a connection meets first; then it is the HTTP server's, or closed."""

    def __init__(self, admit: Callable[[asyncio.BaseTransport, web.RequestHandler], bool], server: web.Server) -> None:
        self._admit = admit
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        handler = self._server()
        if not self._admit(transport, handler):
            transport.close()
            return
        transport.set_protocol(handler)
        handler.connection_made(transport)


class _Refused(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Push(Source):
    """The endpoint, on an address and a port; a port of 0 is any that is free."""

    def __init__(
        self,
        name: str,
        networks: Container[Prefix],
        submit: Submit,
        *,
        listen: tuple[str, int],
        token: bytes,
        allowed: Container[Prefix],
    ) -> None:
        """Requests come from `allowed` networks and bear `token` (`Authorization: Bearer …`)."""
        super().__init__(name, networks, submit)
        self._listen = listen
        self._authorization = b"Bearer " + token
        self._allowed = allowed
        self._open = 0
        self._order = Order(slack=1.0)
        self._log = SeldomLog()
        self._connections: dict[web.RequestHandler, tuple[bool, float]] = {}
        """Those that are open: from a stranger or not, and since when (monotonic)."""
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Where it listens, once it does."""

    async def run(self) -> None:
        """Serves until cancelled. Raises OSError if it cannot listen."""
        application = web.Application(client_max_size=LARGEST)
        application.router.add_post("/lease", self._post)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        server = cast("web.Server", runner.server)
        loop = asyncio.get_running_loop()
        listener: asyncio.Server | None = None
        try:
            listener = await loop.create_server(lambda: _Door(self._admit, server), sock=self.bind())
            self.port.set_result(listener.sockets[0].getsockname()[1])
            while True:
                await asyncio.sleep(1.0)
                self._cut()
        finally:
            if listener is not None:
                listener.close()
            await runner.cleanup()

    def bind(self) -> socket.socket:
        """The socket to listen on. Raises OSError."""
        family = socket.AF_INET6 if ":" in self._listen[0] else socket.AF_INET
        try:
            return socket.create_server(self._listen, family=family)
        except OSError as error:
            raise OSError(f"lease source {self.name}: listen {endpoint(*self._listen)}: {error.strerror}") from None

    @property
    def connections(self) -> int:
        """How many are open."""
        return sum(each.transport is not None for each in self._connections)

    def _admit(self, transport: asyncio.BaseTransport, handler: web.RequestHandler) -> bool:
        """Takes note of a connection; False if there are too many already."""
        self._connections = {each: what for each, what in self._connections.items() if each.transport is not None}
        is_stranger = not self._is_allowed(transport.get_extra_info("peername")[0])
        others = sum(each is is_stranger for each, _ in self._connections.values())
        if others >= (STRANGERS if is_stranger else CONNECTIONS):
            self.counters["crowded"] += 1
            return False
        self._connections[handler] = (is_stranger, time.monotonic())
        return True

    def _cut(self) -> None:
        """Ends connections that take too long: whoever says nothing may not keep them."""
        for handler, (_, since) in self._connections.items():
            if handler.transport is not None and time.monotonic() - since > LONGEST:
                self.counters["slow"] += 1
                handler.transport.close()

    def _is_allowed(self, peer: str) -> bool:
        try:
            return parse_prefix(peer) in self._allowed
        except ValueError:
            return False

    async def _post(self, request: web.Request) -> web.Response:
        try:
            self._check_sender(request)
            leases = self._leases(await self._body(request))
            await self._record(leases)
        except _Refused as refused:
            self.counters[refused.reason] += 1
            if self._log.is_due(refused.reason):
                self._log.warning("leases refused", source=self.name, peer=request.remote, why=str(refused))
            return web.json_response({"error": str(refused)}, status=refused.status, headers=_LAST)
        self.counters["recorded"] += len(leases)
        return web.json_response({"recorded": len(leases)}, headers=_LAST)

    def _check_sender(self, request: web.Request) -> None:
        if not self._is_allowed(request.remote or ""):
            raise _Refused(403, "stranger", f"{request.remote} is not in `allowed`")
        sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(sent, self._authorization):
            raise _Refused(401, "bad_token", "the token is not ours: send `Authorization: Bearer TOKEN`")

    async def _body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return await request.read()
        except TimeoutError:
            raise _Refused(408, "slow", f"the request took longer than {PATIENCE:g} s") from None
        except web.HTTPRequestEntityTooLarge:
            raise _Refused(413, "too_large", f"the request has more than {LARGEST} octets: send fewer leases") from None

    def _leases(self, body: bytes) -> list[Lease]:
        """All of them or none. Raises _Refused."""
        now = time.time()
        try:
            pushed = _decode(body)
            every = pushed if isinstance(pushed, list) else [pushed]
            leases = [each.lease(self.name, now) for each in every]
        except (*UNREADABLE, ValueError) as error:
            raise _Refused(400, "malformed", str(error)) from None
        if len(leases) > MOST:
            raise _Refused(413, "too_large", f"{len(leases)} leases: send up to {MOST} at once")
        outside = [str(lease.address) for lease in leases if lease.address not in self.networks]
        if outside:
            raise _Refused(422, "outside_networks", f"not in this source's networks: {', '.join(outside[:10])}")
        return [self._order.put(lease, now) for lease in leases]

    async def _record(self, leases: list[Lease]) -> None:
        if self._open + len(leases) > OPEN:
            raise _Refused(503, "overflow", "too many leases wait to be recorded: send again")
        self._open += len(leases)
        try:
            async with asyncio.timeout(PATIENCE):
                results = await asyncio.gather(*map(self.submit, leases), return_exceptions=True)
        except TimeoutError:
            raise _Refused(503, "not_recorded", f"not recorded within {PATIENCE:g} s: send again") from None
        finally:
            self._open -= len(leases)
        for result in results:
            match result:
                case NotRecorded() | RegistryError():
                    raise _Refused(503, "not_recorded", "not recorded: send again")
                case BaseException():
                    raise result
