"""UDP under more load than it can carry: what is lost is counted, and what is worthless is cheap."""

import asyncio
import socket
import time
from functools import partial

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.service import Drop, Service
from radius_bridge.radius.udp import Udp
from tests.lab.radius_client import Status, accounting, request
from tests.radius.recorder import Recorder
from tests.waiting import until

SECRET = b"a shared secret!"
RULES = Rules(default_lease=3600, shared=Networks([]))


def clients(address: str = "127.0.0.0/8") -> Clients:
    return Clients([Client("campus", parse_prefix(address), SECRET, Networks([parse_prefix("10.0.0.0/8")]))])


def login(number: int, secret: bytes = SECRET) -> bytes:
    address = f"10.1.{number >> 8 & 255}.{number & 255}"
    return request(number % 256, accounting(Status.START, f"user{number}", f"s{number}", address), secret)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"radius_bridge_{name}_total", labels) or 0.0


async def test_each_packet_is_read_or_counted_as_dropped_by_the_kernel() -> None:
    recorder = Recorder()
    udp = Udp("127.0.0.1", 0, clients(), Service(RULES, recorder.submit), receive_buffer=8192)
    before = value("socket_drops")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas, capture_logs() as log:
        nas.connect(udp.address)
        for number in range(200):
            nas.send(login(number))  # nobody reads meanwhile: the loop is busy with us
        await until(lambda: bool(recorder.events))
        nas.send(login(200))  # the kernel tells with the next packet that it takes
        await until(lambda: value("socket_drops") > before)
    assert len(recorder.events) + value("socket_drops") - before == 201
    assert [line["event"] for line in log] == ["the kernel drops packets: they come faster than they are read"]
    udp.close()
    udp.shut()


@pytest.mark.parametrize(
    ("flood", "known", "reason"),
    [
        (login(1), "192.0.2.0/24", Drop.UNKNOWN_CLIENT),
        (login(1, b"another secret!!"), "127.0.0.0/8", Drop.WRONG_SECRET),
        (b"\x04\x01\x00\x14" + bytes(16), "127.0.0.0/8", Drop.WRONG_SECRET),
        (b"garbage", "127.0.0.0/8", Drop.MALFORMED),
    ],
    ids=["unknown address", "wrong secret", "no attributes", "garbage"],
)
async def test_a_flood_costs_less_than_good_packets_and_does_not_fill_the_log(
    flood: bytes, known: str, reason: Drop
) -> None:
    number = 2000
    good = await cost([login(each) for each in range(number)], clients())
    before = value("dropped", reason=reason.value)
    with capture_logs() as log:
        bad = await cost([flood] * number, clients(known))
    assert value("dropped", reason=reason.value) == before + number
    assert bad < good
    assert len(log) == 1


async def cost(packets: list[bytes], known: Clients) -> float:
    """Seconds of processor time that these packets take, to the response that they do or do not get."""

    def submit(_: object) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    udp = Udp("127.0.0.1", 0, known, Service(RULES, submit))
    seconds = 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        nas.connect(udp.address)
        for first in range(0, len(packets), 128):  # no more than any socket buffer holds
            for packet in packets[first : first + 128]:
                nas.send(packet)
            began = time.process_time()
            total = _seen()
            expected = total + len(packets[first : first + 128])
            await until(partial(_has_seen, expected))
            seconds += time.process_time() - began
    udp.close()
    udp.shut()
    return seconds


def _has_seen(packets: float) -> bool:
    return _seen() >= packets


def _seen() -> float:
    return value("packets", outcome="answered") + value("packets", outcome="dropped")
