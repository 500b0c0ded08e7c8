"""The listener, over real sockets: nothing is answered that is not recorded."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from radius_bridge.identity.events import Event
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius import status
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import Attribute, accounting_request, is_response, parse
from radius_bridge.radius.server import Listener
from radius_bridge.radius.service import IN_FLIGHT_LIMIT, Drop
from radius_bridge.registry.errors import NotRecorded
from tests.radius.recorder import Recorder
from tests.waiting import until

SECRET = b"a shared secret!"
RULES = Rules(default_lease=3600, shared=Networks([]))


def client(name: str = "campus", secret: bytes = SECRET, *, address: str = "127.0.0.0/8") -> Client:
    return Client(name, parse_prefix(address), secret, Networks([parse_prefix("10.0.0.0/8")]))


CLIENTS = Clients([client(), client(address="::1")])


def request(identifier: int = 1, secret: bytes = SECRET, /, **changes: str) -> bytes:
    values = {
        "Acct_Status_Type": "Start",
        "User_Name": "alice",
        "Acct_Session_Id": "5E2A",
        "Framed_IP_Address": "10.1.2.3",
    } | changes
    pairs: list[Attribute] = []
    for name, text in values.items():
        attribute = standard()[name.replace("_", "-")]
        pairs.append((attribute.number, attribute.encode(text)))
    return accounting_request(identifier, pairs, secret)


class Nas:
    """Sends packets and hears responses."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.server = (host, port)

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, self.server)

    async def hear(self) -> tuple[bytes, str]:
        """The next response and where it came from."""
        await until(self.has_heard)
        data, peer = self.socket.recvfrom(4096)
        return data, peer[0]

    def has_heard(self) -> bool:
        try:
            self.socket.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True


class Bench:
    """A listener with its recorder and NASes."""

    def __init__(self, *, in_flight_limit: int = IN_FLIGHT_LIMIT) -> None:
        self.recorder = Recorder()
        self.can_record = True
        self.listener = Listener(
            [("0.0.0.0", 0), ("::", 0)],
            CLIENTS,
            RULES,
            self.recorder.submit,
            can_record=lambda: self.can_record,
            in_flight_limit=in_flight_limit,
        )
        self.listener.start()
        self.nases: list[Nas] = []

    def nas(self, host: str = "127.0.0.1") -> Nas:
        port = self.listener.addresses[1 if ":" in host else 0][1]
        self.nases.append(Nas(host, port))
        return self.nases[-1]

    async def recorded(self, count: int) -> None:
        await self.recorder.recorded(count)

    async def shut(self) -> None:
        self.listener.close()
        await self.listener.drain(0)
        for nas in self.nases:
            nas.socket.close()


def dropped(reason: Drop) -> float:
    return REGISTRY.get_sample_value("radius_bridge_dropped_total", {"reason": reason.value}) or 0.0


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.shut()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
async def test_rfc_2866_4_1_the_response_leaves_after_the_commit_and_from_the_address_that_was_asked(
    bench: Bench, host: str
) -> None:
    nas = bench.nas(host)
    sent = request(Proxy_State="0x0102")
    nas.send(sent)
    await bench.recorded(1)
    (event,) = bench.recorder.events
    assert isinstance(event, Event)
    assert event.user == "alice"
    assert not nas.has_heard()

    bench.recorder.futures[0].set_result(None)
    response, source = await nas.hear()
    assert is_response(response, sent, SECRET)
    assert parse(response).attributes == [(33, b"\x01\x02")]
    assert source == host


async def test_rfc_5080_2_2_2_a_repetition_is_dropped_while_in_progress_and_answered_later(
    bench: Bench,
) -> None:
    nas = bench.nas()
    sent = request()
    before = dropped(Drop.IN_PROGRESS)
    nas.send(sent)
    await bench.recorded(1)
    nas.send(sent)
    await until(lambda: dropped(Drop.IN_PROGRESS) == before + 1)
    assert not nas.has_heard()

    bench.recorder.futures[0].set_result(None)
    first, _ = await nas.hear()
    nas.send(sent)
    second, _ = await nas.hear()
    assert first == second
    assert len(bench.recorder.events) == 1


async def test_rfc_2866_4_1_what_was_not_recorded_is_not_answered_and_its_repetition_is_processed(bench: Bench) -> None:
    nas = bench.nas()
    sent = request()
    before = dropped(Drop.NOT_RECORDED)
    nas.send(sent)
    await bench.recorded(1)
    bench.recorder.futures[0].set_exception(NotRecorded("Consul is down"))
    await until(lambda: dropped(Drop.NOT_RECORDED) == before + 1)
    assert not nas.has_heard()

    nas.send(sent)
    await bench.recorded(2)
    bench.recorder.futures[1].set_result(None)
    response, _ = await nas.hear()
    assert is_response(response, sent, SECRET)


async def test_an_error_nobody_foresaw_is_no_response_either(bench: Bench) -> None:
    nas = bench.nas()
    before = dropped(Drop.FAILED)
    nas.send(request())
    await bench.recorded(1)
    bench.recorder.futures[0].set_exception(ZeroDivisionError())
    await until(lambda: dropped(Drop.FAILED) == before + 1)
    assert not nas.has_heard()


async def test_rfc_5080_2_2_2_a_newer_request_under_the_same_identifier_is_answered(
    bench: Bench,
) -> None:
    nas = bench.nas()
    nas.send(request())
    newer = request(Acct_Delay_Time="5")
    nas.send(newer)
    await bench.recorded(2)
    bench.recorder.futures[0].set_result(None)
    bench.recorder.futures[1].set_result(None)
    response, _ = await nas.hear()
    assert is_response(response, newer, SECRET)
    assert not nas.has_heard()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (request(1, b"another secret!!"), Drop.WRONG_SECRET),
        (request()[:-1], Drop.MALFORMED),
        (b"", Drop.MALFORMED),
        (b"\x01\x01\x00\x14" + bytes(16), Drop.NOT_ACCOUNTING),
        (accounting_request(1, [(40, b"\0\0\0\1"), (80, bytes(16))], SECRET), Drop.WRONG_SECRET),
    ],
)
async def test_what_is_not_genuine_is_dropped_in_silence(bench: Bench, data: bytes, reason: Drop) -> None:
    """RFC 5080 §2.3.3 (Request Authenticator), RFC 2866 §3 (Length), RFC 3579 §3.3 (Message-Authenticator)."""
    nas = bench.nas()
    before = dropped(reason)
    nas.send(data)
    await until(lambda: dropped(reason) == before + 1)
    assert not nas.has_heard()
    assert not bench.recorder.events


async def test_rfc_5997_status_server_is_answered_while_accounting_would_be(bench: Bench) -> None:
    nas = bench.nas()
    asked = status.request(9, SECRET)
    nas.send(asked)
    response, _ = await nas.hear()
    assert is_response(response, asked, SECRET)
    assert [kind for kind, _ in parse(response).attributes] == [80]

    before = dropped(Drop.CANNOT_RECORD)
    bench.can_record = False
    nas.send(asked)
    await until(lambda: dropped(Drop.CANNOT_RECORD) == before + 1)
    assert not nas.has_heard()

    bench.can_record = True
    nas.send(asked)  # the very same octets: what was true before is not repeated from a cache
    assert is_response((await nas.hear())[0], asked, SECRET)


async def test_rfc_5997_status_server_is_answered_while_consul_is_slow(bench: Bench) -> None:
    nas = bench.nas()
    for identifier in range(200):
        nas.send(request(identifier))
    await bench.recorded(200)  # none of them is answered yet
    asked = status.request(250, SECRET)
    nas.send(asked)
    assert is_response((await nas.hear())[0], asked, SECRET)


@pytest.mark.parametrize(
    "asked",
    [status.request(1, b"another secret!!"), b"\x0c\x01\x00\x14" + bytes(16)],
    ids=["wrong", "missing"],
)
async def test_rfc_5997_3_status_server_without_a_good_message_authenticator_is_dropped(
    bench: Bench, asked: bytes
) -> None:
    nas = bench.nas()
    before = dropped(Drop.WRONG_SECRET)
    nas.send(asked)
    await until(lambda: dropped(Drop.WRONG_SECRET) == before + 1)
    assert not nas.has_heard()


async def test_rfc_5080_2_2_2_the_same_identifier_from_another_port_is_another_request(bench: Bench) -> None:
    one, other = bench.nas(), bench.nas()
    one.send(request())
    other.send(request())
    await bench.recorded(2)


async def test_rfc_2866_3_octets_behind_the_length_are_padding(bench: Bench) -> None:
    nas = bench.nas()
    nas.send(request() + b"padding")
    await bench.recorded(1)
    bench.recorder.futures[0].set_result(None)
    response, _ = await nas.hear()
    assert is_response(response, request(), SECRET)


async def test_rfc_2866_4_1_the_secret_is_chosen_by_the_source_address_and_never_by_an_attribute(bench: Bench) -> None:
    others = b"another secret!!"
    bench.listener.reload(Clients([client(), client("other", others, address="192.0.2.1")]), RULES)
    nas = bench.nas()
    before = dropped(Drop.WRONG_SECRET)
    nas.send(request(1, others, NAS_IP_Address="192.0.2.1"))
    await until(lambda: dropped(Drop.WRONG_SECRET) == before + 1)
    nas.send(request(1, SECRET, NAS_IP_Address="192.0.2.1"))
    await bench.recorded(1)
    assert bench.recorder.events[0].source == "campus"


async def test_strangers_are_dropped_until_a_reload_knows_them(bench: Bench) -> None:
    nas = bench.nas()
    before = dropped(Drop.UNKNOWN_CLIENT)
    bench.listener.reload(Clients([client(address="192.0.2.0/24")]), RULES)
    nas.send(request())
    await until(lambda: dropped(Drop.UNKNOWN_CLIENT) == before + 1)

    secret = b"another secret!!"
    bench.listener.reload(Clients([client("campus-2", secret)]), RULES)
    nas.send(request(1, secret))
    await bench.recorded(1)
    assert bench.recorder.events[0].source == "campus-2"


@pytest.mark.parametrize(
    "changes",
    [{"Acct_Status_Type": "Failed"}, {"Acct_Session_Id": ""}],
)
async def test_what_is_not_bound_is_acknowledged_at_once(bench: Bench, changes: dict[str, str]) -> None:
    nas = bench.nas()
    sent = request(**changes)
    nas.send(sent)
    response, _ = await nas.hear()
    assert is_response(response, sent, SECRET)
    assert not bench.recorder.events


async def test_requests_beyond_the_limit_are_dropped_and_may_come_again() -> None:
    bench = Bench(in_flight_limit=2)
    nas = bench.nas()
    before = dropped(Drop.OVERLOAD)
    for identifier in range(3):
        nas.send(request(identifier))
    await until(lambda: dropped(Drop.OVERLOAD) == before + 1)
    for future in bench.recorder.futures:
        future.set_result(None)
    await nas.hear()
    await nas.hear()
    nas.send(request(2))
    await bench.recorded(3)
    await bench.shut()


async def test_closing_reads_no_more_and_draining_answers_what_is_in_flight() -> None:
    bench = Bench()
    nas = bench.nas()
    sent = request()
    nas.send(sent)
    await bench.recorded(1)
    bench.listener.close()
    nas.send(request(2))
    draining = asyncio.create_task(bench.listener.drain(5))
    await asyncio.sleep(0)
    bench.recorder.futures[0].set_result(None)
    assert await draining == 0
    response, _ = await nas.hear()
    assert is_response(response, sent, SECRET)
    assert len(bench.recorder.events) == 1
    await bench.shut()


async def test_draining_ends_in_time_and_says_what_is_left() -> None:
    bench = Bench()
    bench.nas().send(request())
    await bench.recorded(1)
    bench.listener.close()
    assert await bench.listener.drain(0.05) == 1
    bench.recorder.futures[0].set_result(None)  # too late: the sockets are shut, and nothing breaks
    await bench.shut()


async def test_an_address_that_cannot_be_opened_is_named() -> None:
    listener = Listener([("192.0.2.1", 1813)], CLIENTS, RULES, Recorder().submit)
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:1813/udp"):
        listener.start()
