"""RADIUS over DTLS (RFC 7360), over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from OpenSSL import SSL
from structlog.testing import capture_logs

from radius_bridge.radius import dtls, openssl, status, tls
from radius_bridge.radius.dtls import Dtls
from radius_bridge.radius.packet import is_response, parse
from radius_bridge.radius.secured import Limits
from tests.lab.dtls import DtlsPeer
from tests.lab.pki import Identity
from tests.radius import secured
from tests.radius.secured import CLIENTS, NAMES, REFUSED, SecuredLab, below
from tests.waiting import until

LIMITS = Limits(connections=16)
ASKED = status.request(7, dtls.SECRET)


def login(number: int = 1, secret: bytes = dtls.SECRET) -> bytes:
    return secured.login(number, secret)


class Lab(SecuredLab):
    """A CA, a listener, its recorder, and peers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = self.serve()
        self._peers: list[DtlsPeer] = []

    def serve(self, limits: Limits = LIMITS) -> Dtls:
        self.server = Dtls("127.0.0.1", 0, self.load(), CLIENTS, self.service, limits)
        return self.server

    def peer(self, identity: Identity | None, *alpn: bytes) -> DtlsPeer:
        self._peers.append(DtlsPeer(self.server.address, self.ca.certificate, identity, alpn))
        return self._peers[-1]

    async def begin(self) -> DtlsPeer:
        """A peer that stops in the middle of its handshake."""
        peer, before = self.peer(self.proxy), len(self.server.sessions)
        await until(lambda: len(self.server.sessions) > before or peer.shake_hands())
        return peer

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


@pytest.mark.parametrize("case", REFUSED)
async def test_rfc_7360_who_is_refused_is_logged_in_one_line_that_says_why(lab: Lab, case: str) -> None:
    reason, make = REFUSED[case]
    identity = make(lab.ca)
    lab.server.reload(lab.load(), CLIENTS)
    peer = lab.peer(identity)
    with capture_logs() as log:

        def is_refused() -> bool:
            with suppress(SSL.Error):  # the alert
                peer.shake_hands()
            return bool(log)

        await until(is_refused)
    assert [line["reason"] for line in log] == [reason]
    assert not lab.server.sessions


async def test_rfc_9765_3_a_peer_that_offers_only_other_protocols_is_refused_by_an_alert(lab: Lab) -> None:
    peer = lab.peer(lab.proxy, b"radius/1.1", b"h2")
    with capture_logs() as log, pytest.raises(SSL.Error, match="no application protocol"):
        await until(peer.shake_hands)
    assert [(line["reason"], line["offered"]) for line in log] == [(tls.FOREIGN_PROTOCOL, "radius/1.1, h2")]
    assert not lab.server.sessions


async def test_rfc_7360_a_peer_may_bring_the_ca_between_its_own_and_ours(lab: Lab) -> None:
    identity = below(lab.ca).issue("branch", *NAMES)
    lab.server.reload(lab.load(), CLIENTS)
    await until(lab.peer(identity).shake_hands)


async def test_rfc_9765_3_the_protocol_is_radius_1_0(lab: Lab) -> None:
    peer = lab.peer(lab.proxy, b"radius/1.1", b"radius/1.0")
    await until(peer.shake_hands)
    peer.send(ASKED)
    assert is_response(await heard(peer), ASKED, dtls.SECRET)


@pytest.mark.parametrize("data", [login(1, b"another"), b"garbage"], ids=["wrong secret", "no RADIUS"])
async def test_a_bad_packet_ends_the_session(lab: Lab, data: bytes) -> None:
    peer = await lab.connect()
    peer.send(data)
    assert await closed(peer)
    assert not lab.recorder.events
    assert not lab.server.sessions


@pytest.mark.parametrize("code", [1, 40, 43], ids=["Access-Request", "Disconnect-Request", "CoA-Request"])
async def test_rfc_5176_3_an_unwanted_code_is_discarded_and_no_reason_to_close(lab: Lab, code: int) -> None:
    peer = await lab.connect()
    peer.send(bytes((code,)) + b"\x01\x00\x14" + bytes(16))
    peer.send(ASKED)
    assert is_response(await heard(peer), ASKED, dtls.SECRET)


@pytest.mark.parametrize("code", [40, 43], ids=["Disconnect-Request", "CoA-Request"])
async def test_rfc_6614_2_5_a_change_of_authorisation_is_answered_with_a_nak(lab: Lab, code: int) -> None:
    peer = await lab.connect()
    asked = secured.change(code, dtls.SECRET)
    peer.send(asked)
    assert secured.is_nak(await heard(peer), asked, dtls.SECRET)


async def test_octets_that_are_no_dtls_change_nothing(lab: Lab) -> None:
    peer = await lab.connect()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(lab.server.address)
        for octets in (b"", b"garbage", b"\x16\xfe\xfd\0\0" + bytes(30), login()):
            stranger.send(octets)
    for octets in (b"", b"\x16", b"garbage within a session"):
        peer.socket.send(octets)
    peer.send(ASKED)
    assert is_response(await heard(peer), ASKED, dtls.SECRET)


async def test_a_silent_peer_is_forgotten(lab: Lab) -> None:
    lab.close()
    lab.serve(replace(LIMITS, idle=0.3, handshake=0.3))
    await lab.connect()
    await until(lambda: not lab.server.sessions)


async def test_sessions_beyond_the_limit_are_not_begun(lab: Lab) -> None:
    lab.close()
    lab.serve(replace(LIMITS, connections=1))
    await lab.connect()
    late = lab.peer(lab.proxy)
    with capture_logs() as log:
        await until(lambda: late.shake_hands() or bool(log))
    assert [line["reason"] for line in log] == ["too many connections"]


async def test_one_address_has_only_so_many_handshakes_at_once(lab: Lab) -> None:
    lab.close()
    lab.serve(replace(LIMITS, from_one_place=2))
    await lab.begin()
    await lab.begin()
    late = lab.peer(lab.proxy)
    with capture_logs() as log:
        await until(lambda: late.shake_hands() or bool(log))
    assert [line["reason"] for line in log] == ["too many handshakes from one place"]


async def test_a_revoked_peer_goes_when_the_list_is_read_again(lab: Lab) -> None:
    peer = await lab.connect()
    lab.ca.revoke(lab.proxy)
    lab.server.reload(lab.load(), CLIENTS)
    assert await closed(peer)


async def test_rfc_7930_2_a_packet_of_4096_octets_comes_and_so_does_its_response(lab: Lab) -> None:
    peer = await lab.connect()
    longest = secured.longest(dtls.SECRET)
    for _ in range(3):
        peer.send(longest)
    await lab.recorder.recorded(1)
    lab.recorder.futures[0].set_result(None)
    response = await heard(peer)
    assert is_response(response, longest, dtls.SECRET)
    assert len(parse(response).attributes) == 16


async def test_a_flight_in_one_datagram_of_a_jumbo_network_is_whole(lab: Lab) -> None:
    many = [f"proxy{number}.example.org" for number in range(300)]
    peer = lab.peer(lab.ca.issue("wide", *many, "proxy.example.org"))
    await until(peer.shake_hands)
    peer.send(ASKED)
    assert is_response(await heard(peer), ASKED, dtls.SECRET)


def test_every_error_of_openssl_is_a_reason_of_a_few_words() -> None:
    connection = SSL.Connection(SSL.Context(SSL.DTLS_SERVER_METHOD), None)
    connection.set_app_data(openssl.Handshake(b""))
    for error, reason in (
        (SSL.SysCallError(-1, "Unexpected EOF"), "DTLS: the handshake failed"),
        (SSL.ZeroReturnError(), "DTLS: the handshake failed"),
        (SSL.Error([("SSL routines", "", "unknown protocol")]), "DTLS: unknown protocol"),
        (openssl.ForeignProtocol("h2"), tls.FOREIGN_PROTOCOL),
    ):
        assert openssl.why_failed(connection, error) == reason


async def test_a_peer_that_is_revoked_during_its_handshake_is_refused(lab: Lab) -> None:
    peer = await lab.begin()
    lab.ca.revoke(lab.proxy)
    lab.server.reload(lab.load(), CLIENTS)
    with capture_logs() as log:
        await until(lambda: peer.shake_hands() or bool(log))
        await until(lambda: bool(log))
    assert [line["reason"] for line in log] == ["configuration changed during the handshake"]
    assert not lab.server.sessions
