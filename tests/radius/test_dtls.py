"""RADIUS over DTLS (RFC 7360), over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from OpenSSL import SSL
from structlog.testing import capture_logs

from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius import dtls, status, tls
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.dtls import Dtls
from radius_bridge.radius.packet import is_response
from radius_bridge.radius.service import Service
from tests.lab.dtls import DtlsPeer
from tests.lab.pki import Authority, Identity
from tests.lab.radius_client import Status, accounting, request
from tests.radius.recorder import Recorder, until

CLIENTS = Clients(
    [Client("campus", None, tls.SECRET, Networks([parse_prefix("10.0.0.0/8")]), certificate_name="proxy.example.org")]
)
ASKED = status.request(7, dtls.SECRET)


def login(number: int = 1, secret: bytes = dtls.SECRET) -> bytes:
    return request(number % 256, accounting(Status.START, "alice", f"s{number}", "10.1.2.3"), secret)


class Lab:
    """A CA, a listener, its recorder, and peers."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority(folder)
        self.ours = self.ca.issue("bridge", "bridge.example.org")
        self.proxy = self.ca.issue("proxy", "proxy.example.org")
        self.recorder = Recorder()
        self.server = self.serve()
        self._peers: list[DtlsPeer] = []

    def load(self) -> tls.Tls:
        return tls.load(tls.Files(self.ours.certificate, self.ours.key, self.ca.certificate, self.ca.crl))

    def serve(self, **limits: float) -> Dtls:
        service = Service(Rules(default_lease=3600, shared=Networks([])), self.recorder.submit)
        limit = int(limits.pop("limit", 16))
        self.server = Dtls("127.0.0.1", 0, self.load(), CLIENTS, service, limit=limit, **limits)
        return self.server

    def peer(self, identity: Identity | None) -> DtlsPeer:
        self._peers.append(DtlsPeer(self.server.address, self.ca.certificate, identity))
        return self._peers[-1]

    async def connect(self) -> DtlsPeer:
        peer = self.peer(self.proxy)
        await until(peer.shake_hands)
        return peer

    def close(self) -> None:
        self.server.close()
        self.server.shut()
        for peer in self._peers:
            peer.close()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()
    structlog.reset_defaults()


async def heard(peer: DtlsPeer) -> bytes:
    """The next packet."""
    packets: list[bytes] = []

    def hears() -> bool:
        packet = peer.hear()
        if packet is not None:
            packets.append(packet)
        return bool(packets)

    await until(hears)
    return packets[0]


async def closed(peer: DtlsPeer) -> bool:
    """True when the server takes its leave, without another packet."""
    with pytest.raises(SSL.ZeroReturnError):
        await heard(peer)
    return True


async def test_rfc_7360_2_1_a_response_comes_in_the_session_after_the_commit_with_the_secret_of_dtls(lab: Lab) -> None:
    one, other = await lab.connect(), await lab.connect()
    one.send(login())
    other.send(login(2))
    await lab.recorder.recorded(2)
    for future in lab.recorder.futures:
        future.set_result(None)
    assert is_response(await heard(one), login(), dtls.SECRET)
    assert is_response(await heard(other), login(2), dtls.SECRET)
    assert lab.recorder.events[0].source == "campus"
    one.send(ASKED)
    assert is_response(await heard(one), ASKED, dtls.SECRET)


async def test_rfc_6347_4_2_1_nothing_is_kept_for_a_peer_before_its_cookie(lab: Lab) -> None:
    peer = lab.peer(lab.proxy)
    assert not peer.shake_hands()  # ClientHello
    await asyncio.sleep(0)
    answers: list[bytes] = []

    def has_answer() -> bool:
        try:
            answers.append(peer.socket.recv(4096))
        except BlockingIOError:
            return False
        return True

    await until(has_answer)
    assert answers[0][13] == 3  # HelloVerifyRequest
    assert not lab.server.sessions


async def test_rfc_6347_4_2_8_a_peer_that_was_restarted_begins_anew_on_the_same_port(lab: Lab) -> None:
    peer = await lab.connect()
    peer.restart()
    await until(peer.shake_hands)
    peer.send(ASKED)
    assert is_response(await heard(peer), ASKED, dtls.SECRET)
    assert len(lab.server.sessions) == 1


REFUSALS = {
    "expired": "certificate: it is expired",
    "self-signed": "certificate: it is self-signed",
    "other": "certificate: it is of another CA",
    "revoked": "certificate: it is revoked",
    "none": "certificate: it shows none",
    "stranger": "no client has this certificate",
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_rfc_7360_who_is_refused_is_logged_in_one_line_that_says_why(lab: Lab, kind: str, tmp_path: Path) -> None:
    names = ("proxy.example.org",)
    match kind:
        case "expired":
            identity: Identity | None = lab.ca.issue(kind, *names, valid=timedelta(days=-1))
        case "self-signed":
            identity = lab.ca.issue(kind, *names, self_signed=True)
        case "other":
            identity = Authority(tmp_path, "other-ca").issue(kind, *names)
        case "stranger":
            identity = lab.ca.issue(kind, "stranger.example.org")
        case "none":
            identity = None
        case _:
            identity = lab.ca.issue(kind, *names)
            lab.ca.revoke(identity)
            lab.server.reload(lab.load(), CLIENTS)
    peer = lab.peer(identity)
    with capture_logs() as log:

        def is_refused() -> bool:
            with suppress(SSL.Error):  # the alert
                peer.shake_hands()
            return bool(log)

        await until(is_refused)
    assert [line["reason"] for line in log] == [REFUSALS[kind]]
    assert not lab.server.sessions


@pytest.mark.parametrize("data", [login(1, b"another"), b"garbage"], ids=["wrong secret", "no RADIUS"])
async def test_a_bad_packet_ends_the_session(lab: Lab, data: bytes) -> None:
    peer = await lab.connect()
    peer.send(data)
    assert await closed(peer)
    assert not lab.recorder.events
    assert not lab.server.sessions


async def test_octets_that_are_no_dtls_change_nothing(lab: Lab) -> None:
    peer = await lab.connect()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(lab.server.address)
        for octets in (b"", b"garbage", b"\x16\xfe\xfd\0\0" + bytes(30), login()):
            stranger.send(octets)
    peer.socket.send(b"garbage within a session")
    peer.send(ASKED)
    assert is_response(await heard(peer), ASKED, dtls.SECRET)


async def test_a_silent_peer_is_forgotten(lab: Lab) -> None:
    lab.close()
    lab.serve(idle=0.3, handshake=0.3)
    await lab.connect()
    await until(lambda: not lab.server.sessions)


async def test_sessions_beyond_the_limit_are_not_begun(lab: Lab) -> None:
    lab.close()
    lab.serve(limit=1)
    await lab.connect()
    late = lab.peer(lab.proxy)
    with capture_logs() as log:
        await until(lambda: late.shake_hands() or bool(log))
    assert [line["reason"] for line in log] == ["too many sessions"]


async def test_a_revoked_peer_goes_when_the_list_is_read_again(lab: Lab) -> None:
    peer = await lab.connect()
    lab.ca.revoke(lab.proxy)
    lab.server.reload(lab.load(), CLIENTS)
    assert await closed(peer)
