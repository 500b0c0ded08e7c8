"""Consul's HTTP API as the registry needs it. The only module that knows py-consul.

py-consul is used for its transport, sessions, locks and agent calls. Prefix reads and transactions are ours:
the library's `kv.get` hides how fresh an answer is, its `txn.put` sends neither token nor datacenter, and its
timeouts do not follow `wait`.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from consul import aio, base
from consul.exceptions import ACLPermissionDenied, ConsulException, NotFound

from radius_bridge.registry.errors import Conflict, Forbidden, RegistryError
from radius_bridge.registry.kv import MAX_BYTES, MAX_OPS, Committed, Entry, Op, Snapshot
from radius_bridge.registry.settings import ConsulSettings

_CONNECTIONS = 64
"""Lanes and long polls stay far below it, and it below Consul's 200 connections per client address."""

_TIMEOUT = 5.0
_READ_TIMEOUT = 30.0

_SLICE = 256 * 1024
"""Octets that are decoded at once: about 2 ms of work."""

_BETWEEN = b'},{"LockIndex"'
"""Where one entry ends and the next one begins. No key can look like it: quotes in a key are escaped."""

_T = TypeVar("_T")

Consistency = Literal["default", "consistent", "stale"]


class _TxnOp(msgspec.Struct):
    kv: Op = msgspec.field(name="KV")


class _TxnResult(msgspec.Struct):
    kv: Entry = msgspec.field(name="KV")


class _TxnError(msgspec.Struct, rename="pascal"):
    op_index: int
    what: str


class _TxnAnswer(msgspec.Struct, rename="pascal"):
    results: list[_TxnResult] | None = None
    errors: list[_TxnError] | None = None


class _SelfConfig(msgspec.Struct, rename="pascal"):
    node_name: str
    datacenter: str


class _Self(msgspec.Struct, rename="pascal"):
    config: _SelfConfig


class AgentService(msgspec.Struct, frozen=True, rename="pascal"):
    """A service registered with the local Consul agent."""

    id: str = msgspec.field(name="ID")
    service: str
    tags: tuple[str, ...] | None = None
    port: int = 0
    address: str = ""


_encoder = msgspec.json.Encoder()
_decode_entries = msgspec.json.Decoder(tuple[Entry, ...]).decode
_decode_txn = msgspec.json.Decoder(_TxnAnswer).decode


class _Transport(aio.HTTPClient):  # type: ignore[misc]  # py-consul publishes no types
    """py-consul's transport over a pool of ours: its own is made in ways that aiohttp has deprecated."""

    def __init__(self, host: str, port: int, scheme: str, context: ssl.SSLContext | None) -> None:
        base.HTTPClient.__init__(self, host, port, scheme)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=True if context is None else context),
            # Consul is next door: compressing a large answer costs more than sending it.
            headers={"Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT),
        )


class _Client(aio.Consul):  # type: ignore[misc]  # py-consul publishes no types
    def __init__(self, settings: ConsulSettings) -> None:
        self._context = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else None
        url = urlsplit(settings.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        super().__init__(url.hostname, port, scheme=url.scheme, verify=True, dc=settings.datacenter)
        self.token = settings.read_token()  # py-consul would prefer CONSUL_HTTP_TOKEN to what the file says

    def http_connect(self, host: str, port: int, scheme: str, verify: bool, cert: None) -> _Transport:
        return _Transport(f"[{host}]" if ":" in host else host, port, scheme, self._context)


class Consul:
    """A connection to Consul; made inside the running event loop, closed with `close` or by `async with`.

    Every method raises RegistryError if there is no usable answer in time, Forbidden if the token may not.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        """Raises ValueError if the token cannot be read, OSError if the certificates cannot."""
        self.settings = settings
        self._client: Any = _Client(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections; calls in flight fail."""
        await self._client.close()

    async def get(self, key: str, *, consistent: bool = False) -> Entry | None:
        """The entry of one key; None if it does not exist."""
        reply = await self._get(f"/v1/kv/{key}", [("consistent", "1")] if consistent else [], _TIMEOUT)
        return None if reply.code == 404 else _decoded(_decode_entries, reply.body, key)[0]

    async def get_many(self, keys: Iterable[str], *, consistent: bool = False) -> dict[str, Entry]:
        """The entries of those keys that exist; 64 at a time they are of one moment."""
        wanted = list(keys)
        entries: dict[str, Entry] = {}
        while wanted:
            lot, rest = wanted[:MAX_OPS], wanted[MAX_OPS:]
            try:
                answer = await self._transact([Op("get", key) for key in lot], consistent, _TIMEOUT)
            except Conflict as conflict:  # a key that does not exist fails the whole: ask for the others
                wanted = [key for place, key in enumerate(lot) if place not in conflict.failed] + rest
                continue
            found = {result.kv.key: result.kv for result in answer.results or ()}
            for key in lot:
                if key not in found:
                    raise Forbidden(f"{key}: the token may not read it (Consul left it out of its answer)")
            entries |= found
            wanted = rest
        return entries

    async def read(
        self, prefix: str, *, index: int = 0, wait: float = 30.0, consistency: Consistency = "default"
    ) -> Snapshot:
        """Everything below `prefix`. With an `index`, waits up to `wait` seconds for a change since."""
        params = [("recurse", "1")]
        timeout = _READ_TIMEOUT
        if index:
            params += [("index", str(index)), ("wait", f"{max(1, round(wait * 1000))}ms")]
            timeout = wait * 17 / 16 + 5.0  # Consul adds up to a sixteenth, so that not all wake at once
        if consistency != "default":
            params.append((consistency, "1"))
        reply = await self._get(f"/v1/kv/{prefix}", params, timeout)
        missing = reply.code == 404
        try:
            return Snapshot(
                index=max(1, int(reply.headers["X-Consul-Index"])),
                entries=() if missing else await _decoded_in_slices(reply.body, prefix),
                missing=missing,
                last_contact=int(reply.headers.get("X-Consul-LastContact", 0)) / 1000,
                known_leader=reply.headers.get("X-Consul-KnownLeader", "true") == "true",
            )
        except (KeyError, ValueError) as error:
            raise RegistryError(f"{prefix}: Consul's answer lacks its index ({error!r})") from None

    async def index_of(self, prefix: str) -> int:
        """The X-Consul-Index that `read` would give now, in an answer whose size does not depend on what is stored."""
        # A listing of keys, cut where the prefix ends, is one line long.
        params = [("keys", "1"), ("separator", prefix[-1])]
        reply = await self._get(f"/v1/kv/{prefix[:-1]}", params, _READ_TIMEOUT)
        try:
            return max(1, int(reply.headers["X-Consul-Index"]))
        except (KeyError, ValueError) as error:
            raise RegistryError(f"{prefix}: Consul's answer lacks its index ({error!r})") from None

    async def transact(self, ops: Sequence[Op], *, timeout: float = _TIMEOUT) -> Committed:
        """Carries out all operations or none.

        Raises Conflict if a check does not hold, Forbidden if the token may not do one; both say which, and
        that nothing was written. After any other RegistryError it is unknown whether it was.
        """
        # One that only checks is a read to Consul: it must not be answered by one who leads no more.
        answer = await self._transact(ops, not any(op.writes for op in ops), timeout)
        modified = {result.kv.key: result.kv.modify_index for result in answer.results or ()}
        written = [modified[op.key] for op in ops if op.verb in ("set", "cas") and op.key in modified]
        return Committed(max(written, default=0), modified)

    async def create_session(self, name: str, *, ttl: int, lock_delay: int) -> str:
        """A session of the local node that ends when it is not renewed for `ttl` (at least 10) seconds."""
        created = self._client.session.create(name=name, ttl=ttl, lock_delay=lock_delay)
        return str(await self._ask(created, "session create"))

    async def renew_session(self, session: str) -> bool:
        """Extends the session by its TTL; False if it has ended already."""
        try:
            await self._ask(self._client.session.renew(session), "session renew")
        except RegistryError as error:
            if isinstance(error.__cause__, NotFound):
                return False
            raise
        return True

    async def destroy_session(self, session: str) -> None:
        """Ends the session and releases its locks."""
        await self._ask(self._client.session.destroy(session), "session destroy")

    async def acquire(self, key: str, session: str, value: bytes) -> bool:
        """Locks `key` for the session; False if another one has it, or had it a moment ago (lock delay)."""
        put = self._client.kv.put(key, value, acquire=session)
        return bool(await self._ask(put, f"acquire {key}"))

    async def release(self, key: str, session: str) -> None:
        """Unlocks `key`, without the lock delay."""
        await self._ask(self._client.kv.put(key, b"", release=session), f"release {key}")

    async def agent_self(self) -> tuple[str, str]:
        """Name and datacenter of the node whose agent answers at `url`."""
        reply = await self._get("/v1/agent/self", [], _TIMEOUT)
        config = _decoded(msgspec.json.Decoder(_Self).decode, reply.body, "agent/self").config
        return config.node_name, config.datacenter

    async def agent_services(self) -> dict[str, AgentService]:
        """The services of that node, by their identifier."""
        reply = await self._get("/v1/agent/services", [], _TIMEOUT)
        return _decoded(msgspec.json.Decoder(dict[str, AgentService]).decode, reply.body, "agent/services")

    async def _get(self, path: str, params: list[tuple[str, str]], timeout: float) -> base.Response:
        if path.startswith("/v1/kv/") and self.settings.datacenter:
            params = [*params, ("dc", self.settings.datacenter)]
        reply = await self._ask(
            self._client.http.get(
                _as_it_is,
                path,
                params=params,
                headers=self._client.prepare_headers(),
                raw=True,
                connections_timeout=timeout,
            ),
            path,
        )
        if reply.code == 404 and path.startswith("/v1/kv/"):
            return reply
        return _accepted(reply, path)

    async def _transact(self, ops: Sequence[Op], consistent: bool, timeout: float) -> _TxnAnswer:
        body = _encoder.encode([_TxnOp(op) for op in ops])
        if not 0 < len(ops) <= MAX_OPS or len(body) > MAX_BYTES:
            raise ValueError(f"a transaction of {len(ops)} operations and {len(body)} octets is out of bounds")
        params = [("consistent", "1")] if consistent else []
        if self.settings.datacenter:
            params.append(("dc", self.settings.datacenter))
        reply = await self._ask(
            self._client.http.put(
                _as_it_is,
                "/v1/txn",
                params=params,
                data=body,
                headers=self._client.prepare_headers(),
                connections_timeout=timeout,
            ),
            "txn",
        )
        if reply.code != 409:
            return _decoded(_decode_txn, _accepted(reply, "txn").body, "txn")
        errors = _decoded(_decode_txn, reply.body, "txn").errors or []
        # Consul reports missing rights like failed checks, by this text only (acl.ErrPermissionDenied).
        denied = frozenset(error.op_index for error in errors if error.what == "Permission denied")
        if denied:
            key = ops[min(denied)].key
            raise Forbidden(f"{key}: the token may not {ops[min(denied)].verb} it", denied)
        failed = frozenset(error.op_index for error in errors)
        raise Conflict("; ".join(error.what for error in errors[:3]) or "refused without a reason", failed)

    async def _ask(self, call: Awaitable[Any], what: str) -> Any:
        try:
            return await call
        except ACLPermissionDenied as error:
            raise Forbidden(f"{what}: the token lacks a right ({_short(error)})") from error
        except ConsulException as error:
            raise RegistryError(f"{what}: Consul at {self.settings.url} refused ({_short(error)})") from error
        except TimeoutError as error:
            raise RegistryError(f"{what}: Consul at {self.settings.url} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RegistryError(f"{what}: Consul at {self.settings.url} cannot be reached ({error})") from error


def _as_it_is(reply: base.Response) -> base.Response:
    return reply


def _accepted(reply: base.Response, what: str) -> base.Response:
    if reply.code == 200:
        return reply
    text = reply.body.decode("utf-8", "replace") if isinstance(reply.body, bytes) else reply.body
    if reply.code == 403:
        raise Forbidden(f"{what}: the token lacks a right ({_short(text)})")
    raise RegistryError(f"{what}: Consul answered {reply.code} ({_short(text)})")


def _decoded(decode: Callable[[bytes], _T], body: bytes, what: str) -> _T:
    try:
        return decode(body)
    except msgspec.DecodeError as error:
        raise RegistryError(f"{what}: Consul's answer cannot be read ({error})") from error


async def _decoded_in_slices(body: bytes, what: str) -> tuple[Entry, ...]:
    """The entries in an answer; a large one is read in parts, so that other work goes on between them."""
    if len(body) <= _SLICE:
        return _decoded(_decode_entries, body, what)
    entries: list[Entry] = []
    start = body.find(b"[") + 1
    while start:
        cut = body.find(_BETWEEN, start + _SLICE)
        end = cut + 1 if cut >= 0 else body.rfind(b"]")
        entries += _decoded(_decode_entries, b"[%b]" % body[start:end], what)
        start = cut + 2 if cut >= 0 else 0
        await asyncio.sleep(0)
    return tuple(entries)


def _short(text: object) -> str:
    return " ".join(str(text).split())[:200]
