"""The endpoint that DHCP servers push leases to."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from radius_bridge.leases import push
from radius_bridge.leases.kea import FOREVER
from radius_bridge.leases.push import Push
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.clients import Networks
from tests.leases.recorder import Recorder, running
from tests.waiting import until

TOKEN = "0123456789abcdef0123456789abcdef"
NOW = time.time()
LEASE = {"address": "192.0.2.5", "mac": "00-1B-2C-3D-4E-5F", "at": NOW, "lifetime": 600}


class Client:
    """A DHCP server's side."""

    def __init__(self, session: aiohttp.ClientSession, source: Push, recorder: Recorder) -> None:
        self._session = session
        self.source = source
        self.recorder = recorder

    async def post(self, body: Any, *, token: str = TOKEN, raw: bytes | None = None) -> tuple[int, dict[str, Any]]:
        """Gives the status and what the answer says."""
        url = f"http://127.0.0.1:{await self.source.port}/lease"
        headers = {"Authorization": f"Bearer {token}"}
        json = {"data": raw} if raw is not None else {"json": body}
        async with self._session.post(url, headers=headers, **json) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    recorder = Recorder()
    source = Push(
        "hooks",
        Networks([parse_prefix("192.0.2.0/24"), parse_prefix("2001:db8::/32")]),
        recorder.submit,
        listen=("127.0.0.1", 0),
        token=TOKEN.encode(),
        allowed=Networks([parse_prefix("127.0.0.0/29")]),
    )
    async with aiohttp.ClientSession() as session, running(source):
        yield Client(session, source, recorder)


async def test_a_lease_is_recorded(client: Client) -> None:
    assert await client.post(LEASE) == (200, {"recorded": 1})
    [lease] = client.recorder.leases
    assert (str(lease.address), lease.mac, lease.source) == ("192.0.2.5", "00:1b:2c:3d:4e:5f", "hooks")
    assert (lease.at, lease.expires) == (NOW, NOW + 600)
    assert client.source.counters["recorded"] == 1


async def test_a_list_of_leases_is_recorded(client: Client) -> None:
    duid = "00:03:00:01:36:47:4e:ac:9c:49"
    prefix = {"address": "2001:db8:100::/56", "duid": duid, "lifetime": 0xFFFFFFFF}
    assert await client.post([LEASE, prefix]) == (200, {"recorded": 2})
    last = client.recorder.last("2001:db8:100::/56")
    assert (last.mac, last.expires) == ("36:47:4e:ac:9c:49", FOREVER)


async def test_a_lifetime_of_0_ends_a_lease_now_unless_it_says_when(client: Client) -> None:
    await client.post({"address": "192.0.2.5", "lifetime": 0})
    lease = client.recorder.last("192.0.2.5")
    assert lease.expires <= lease.at
    assert abs(lease.at - time.time()) < 5


async def test_a_clock_that_is_ahead_gives_nothing_from_the_future(client: Client) -> None:
    await client.post(LEASE | {"at": NOW + 9000})
    lease = client.recorder.last("192.0.2.5")
    assert lease.at <= time.time()
    assert lease.expires - lease.at == pytest.approx(600)


async def test_the_answer_waits_until_the_lease_is_recorded(client: Client) -> None:
    client.recorder.gate.clear()
    post = asyncio.create_task(client.post(LEASE))
    await until(lambda: client.recorder.under_way, "the request")
    assert not post.done()
    client.recorder.gate.set()
    assert (await post)[0] == 200


async def test_what_is_not_recorded_is_not_acknowledged(client: Client) -> None:
    client.recorder.failures = 1
    status, answer = await client.post(LEASE)
    assert (status, answer) == (503, {"error": "not recorded: send again"})
    assert client.source.counters["not_recorded"] == 1


async def test_what_takes_too_long_to_record_is_not_acknowledged(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "PATIENCE", 0.05)
    client.recorder.gate.clear()
    assert (await client.post(LEASE))[0] == 503


async def test_no_more_leases_wait_than_there_is_room_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "OPEN", 1)
    assert (await client.post([LEASE, LEASE]))[0] == 503
    assert (await client.post(LEASE))[0] == 200


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "0", "ключ"])
async def test_another_token_is_refused(client: Client, token: str) -> None:
    status, answer = await client.post(LEASE, token=token)
    assert status == 401
    assert TOKEN not in str(answer)
    assert not client.recorder.leases


async def test_a_stranger_is_refused_whatever_he_knows() -> None:
    recorder = Recorder()
    everywhere, elsewhere = Networks([parse_prefix("0.0.0.0/0")]), Networks([parse_prefix("198.51.100.0/24")])
    listen = ("127.0.0.1", 0)
    source = Push("hooks", everywhere, recorder.submit, listen=listen, token=TOKEN.encode(), allowed=elsewhere)
    async with aiohttp.ClientSession() as session, running(source):
        assert (await Client(session, source, recorder).post(LEASE))[0] == 403
    assert source.counters["stranger"] == 1


async def test_an_address_outside_the_networks_refuses_the_whole_request(client: Client) -> None:
    status, answer = await client.post([LEASE, LEASE | {"address": "198.51.100.1"}])
    assert (status, answer) == (422, {"error": "not in this source's networks: 198.51.100.1"})
    assert not client.recorder.leases


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "missing required field `address`"),
        ([LEASE, 7], "Expected `object`, got `int` - at `$[1]`"),
        (LEASE | {"lifetime": -1}, "lifetime -1: write seconds"),
        (LEASE | {"lifetime": 2**32}, "lifetime 4294967296: write seconds"),
        (LEASE | {"mac": "nobody"}, "mac 'nobody' is no MAC address"),
        (LEASE | {"address": "here"}, "'here' does not appear to be an IPv4 or IPv6 address"),
        (LEASE | {"hostname": "x"}, "unknown field `hostname`"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_reason(client: Client, body: Any, why: str) -> None:
    status, answer = await client.post(body)
    assert status == 400
    assert why in answer["error"]
    assert not client.recorder.leases


async def test_what_is_no_json_is_refused(client: Client) -> None:
    assert (await client.post(None, raw=b"\xff{"))[0] == 400


async def test_too_large_a_request_is_refused(client: Client) -> None:
    assert (await client.post(None, raw=b"[" * (push.LARGEST + 1)))[0] == 413
    assert (await client.post([{"address": "192.0.2.5", "lifetime": 1}] * (push.MOST + 1)))[0] == 413
    assert client.source.counters["too_large"] == 2


async def test_a_request_that_does_not_come_to_an_end_is_given_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "PATIENCE", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", await client.source.port)
    head = f"POST /lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99\r\n\r\n{{"
    writer.write(head.encode())
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_whoever_knocks_all_the_time_does_not_fill_the_log(client: Client) -> None:
    with capture_logs() as log:
        for _ in range(30):
            assert (await client.post(LEASE, token="guess"))[0] == 401
    assert len(log) == 1
    assert client.source.counters["bad_token"] == 30


async def test_who_says_nothing_holds_no_connection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "LONGEST", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", await client.source.port)
    writer.write(b"POST /lease HTTP/1.1\r\nHost: ")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert client.source.counters["slow"] == 1


async def test_no_more_connections_are_open_than_there_is_room_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "CONNECTIONS", 2)
    held = [await asyncio.open_connection("127.0.0.1", await client.source.port) for _ in range(2)]
    await until(lambda: client.source.connections == 2, "two connections")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.post(LEASE)
    assert client.source.counters["crowded"] >= 1
    for _, writer in held:
        writer.close()
    await until(lambda: client.source.connections == 0, "their end")
    assert (await client.post(LEASE))[0] == 200


async def test_strangers_take_no_connection_from_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "STRANGERS", 1)
    port = await client.source.port
    first = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
    await until(lambda: client.source.connections == 1, "the connection")
    reader, second = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert (await client.post(LEASE))[0] == 200
    for writer in (first[1], second):
        writer.close()
