"""Consul's HTTP API as the registry needs it. The only module that knows py-consul.

py-consul is used for its transport, sessions, locks and agent calls. Prefix reads and transactions are ours:
the library's `kv.get` hides how fresh an answer is, its `txn.put` sends neither token nor datacenter, and its
timeouts do not follow `wait`.
"""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, Literal, Self

from radius_bridge.registry import answers
from radius_bridge.registry.answers import (
    AgentService,
    TxnAnswer,
    TxnOp,
    decode_entries,
    decode_self,
    decode_services,
    decode_txn,
    decoded,
    encode,
)
from radius_bridge.registry.errors import Conflict, Forbidden, RegistryError
from radius_bridge.registry.kv import MAX_BYTES, MAX_OPS, Committed, Entry, Listing, Op, Snapshot
from radius_bridge.registry.settings import ConsulSettings
from radius_bridge.registry.transport import (
    TIMEOUT,
    ACLPermissionDenied,
    Client,
    ConsulException,
    NotFound,
    aiohttp,
    base,
)

READ_TIMEOUT: Final = 30.0
"""Seconds for a request whose answer may be large."""

Consistency = Literal["default", "consistent", "stale"]


class Consul:
    """A connection to Consul; made inside the running event loop, closed with `close` or by `async with`.

    Every method raises RegistryError if there is no usable answer in time, Forbidden if the token may not.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        """Raises ValueError if the token or the certificates cannot be read."""
        self.settings = settings
        self._client: Any = Client(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections; calls in flight fail."""
        await self._client.close()

    async def get(self, key: str, *, consistency: Consistency = "default", timeout: float = TIMEOUT) -> Entry | None:
        """The entry of one key; None if it does not exist."""
        reply = await self._get(f"/v1/kv/{key}", _asked(consistency), timeout)
        return None if reply.code == 404 else decoded(decode_entries, reply.body, key)[0]

    async def get_many(
        self, keys: Iterable[str], *, consistent: bool = False, timeout: float = TIMEOUT
    ) -> dict[str, Entry]:
        """The entries of those keys that exist; 64 at a time they are of one moment."""
        wanted = list(keys)
        entries: dict[str, Entry] = {}
        while wanted:
            lot, rest = wanted[:MAX_OPS], wanted[MAX_OPS:]
            try:
                answer = await self._transact([Op("get", key) for key in lot], consistent, timeout)
            except Conflict as conflict:  # a key that does not exist fails the whole: ask for the others
                if not conflict.failed:
                    raise
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
        params, timeout = _waiting([("recurse", "1")], index, wait)
        reply = await self._get(f"/v1/kv/{prefix}", [*params, *_asked(consistency)], timeout)
        missing = reply.code == 404
        return Snapshot(
            index=_index(reply, prefix),
            entries=() if missing else await answers.entries(reply.body, prefix),
            missing=missing,
            last_contact=_header(reply, "X-Consul-LastContact", prefix, "0") / 1000,
            known_leader=reply.headers.get("X-Consul-KnownLeader", "true") == "true",
        )

    async def read_keys(self, prefix: str, *, consistency: Consistency = "default") -> Listing:
        """All keys below `prefix`, in their order; a quarter of the work and of the octets that `read` takes."""
        params = [("keys", "1"), *_asked(consistency)]
        reply = await self._get(f"/v1/kv/{prefix}", params, READ_TIMEOUT)
        missing = reply.code == 404
        found = () if missing else await answers.keys(reply.body, prefix)
        return Listing(_index(reply, prefix), found, missing)

    async def index_of(self, prefix: str, *, index: int = 0, wait: float = 30.0) -> int:
        """The X-Consul-Index that `read` would give now, in an answer whose size does not depend on what is stored.

        With an `index`, waits up to `wait` seconds for another one.
        """
        return _index(await self._listed(prefix, index, wait), prefix)

    async def has_any(self, prefix: str) -> bool:
        """True if there is a key below `prefix` (which ends with a slash); as cheap as `index_of`."""
        reply = await self._listed(prefix, 0, 0.0)
        return reply.code != 404 and prefix in decoded(answers.decode_keys, reply.body, prefix)

    async def _listed(self, prefix: str, index: int, wait: float) -> base.Response:
        # A listing of keys, cut where the prefix ends, is one line long.
        params, timeout = _waiting([("keys", "1"), ("separator", prefix[-1])], index, wait)
        return await self._get(f"/v1/kv/{prefix[:-1]}", params, timeout)

    async def transact(self, ops: Sequence[Op], *, timeout: float = TIMEOUT) -> Committed:
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
        reply = await self._get("/v1/agent/self", [], TIMEOUT)
        config = decoded(decode_self, reply.body, "agent/self").config
        return config.node_name, config.datacenter

    async def agent_services(self) -> dict[str, AgentService]:
        """The services of that node, by their identifier."""
        reply = await self._get("/v1/agent/services", [], TIMEOUT)
        return decoded(decode_services, reply.body, "agent/services")

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
        return self._accepted(reply, path)

    async def _transact(self, ops: Sequence[Op], consistent: bool, timeout: float) -> TxnAnswer:
        body = encode([TxnOp(op) for op in ops])
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
            return decoded(decode_txn, self._accepted(reply, "txn").body, "txn")
        errors = decoded(decode_txn, reply.body, "txn").errors or []
        # Consul reports missing rights like failed checks, by this text only (acl.ErrPermissionDenied).
        denied = frozenset(error.op_index for error in errors if error.what == "Permission denied")
        if denied:
            key = ops[min(denied)].key
            raise self._forbidden(f"{key}: the token may not {ops[min(denied)].verb} it", denied)
        failed = frozenset(error.op_index for error in errors)
        raise Conflict("; ".join(error.what for error in errors[:3]) or "refused without a reason", failed)

    def _accepted(self, reply: base.Response, what: str) -> base.Response:
        if reply.code == 200:
            return reply
        text = reply.body.decode("utf-8", "replace") if isinstance(reply.body, bytes) else reply.body
        if reply.code == 403:
            raise self._forbidden(f"{what}: the token lacks a right ({_short(text)})")
        raise RegistryError(f"{what}: Consul answered {reply.code} ({_short(text)})")

    def _forbidden(self, message: str, failed: frozenset[int] = frozenset()) -> Forbidden:
        """The error for what Consul has refused. Perhaps somebody has changed the token: the next request has it."""
        try:
            self._client.token = self.settings.read_token()
        except ValueError as error:
            message = f"{message}; {error}"
        return Forbidden(message, failed)

    async def _ask(self, call: Awaitable[Any], what: str) -> Any:
        try:
            return await call
        except ACLPermissionDenied as error:
            raise self._forbidden(f"{what}: the token lacks a right ({_short(error)})") from error
        except ConsulException as error:
            raise RegistryError(f"{what}: Consul at {self.settings.url} refused ({_short(error)})") from error
        except TimeoutError as error:
            raise RegistryError(f"{what}: Consul at {self.settings.url} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RegistryError(f"{what}: Consul at {self.settings.url} cannot be reached ({error})") from error


def _asked(consistency: Consistency) -> list[tuple[str, str]]:
    return [] if consistency == "default" else [(consistency, "1")]


def _waiting(params: list[tuple[str, str]], index: int, wait: float) -> tuple[list[tuple[str, str]], float]:
    """Parameters for a request that waits for a change since `index` (unless that is 0), and its timeout."""
    if not index:
        return params, READ_TIMEOUT
    # Consul adds up to a sixteenth, so that not all wake at once.
    return [*params, ("index", str(index)), ("wait", f"{max(1, round(wait * 1000))}ms")], wait * 17 / 16 + TIMEOUT


def _index(reply: base.Response, what: str) -> int:
    return max(1, _header(reply, "X-Consul-Index", what))


def _header(reply: base.Response, name: str, what: str, default: str = "") -> int:
    """A number in an answer's headers; raises RegistryError if there is none."""
    try:
        return int(reply.headers.get(name, default))
    except ValueError as error:
        raise RegistryError(f"{what}: Consul's answer lacks {name} ({error})") from None


def _as_it_is(reply: base.Response) -> base.Response:
    return reply


def _short(text: object) -> str:
    return " ".join(str(text).split())[:200]
