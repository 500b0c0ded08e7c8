"""RADIUS over TLS (RFC 6614, RFC 6613), over real sockets."""

import asyncio
import gc
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from radius_bridge.radius import status, tls
from radius_bridge.radius.clients import Clients
from radius_bridge.radius.packet import is_response, parse
from radius_bridge.radius.radsec import Radsec
from radius_bridge.radius.secured import Limits, place
from radius_bridge.settings import RadsecSettings
from tests.lab.pki import Authority, Identity
from tests.radius import secured
from tests.radius.secured import CLIENTS, NAMES, REFUSED, SecuredLab, below, client
from tests.waiting import until

LIMITS = Limits(connections=16)


def login(number: int = 1, secret: bytes = tls.SECRET) -> bytes:
    return secured.login(number, secret)


class Lab(SecuredLab):
    """A CA, a RadSec listener, its recorder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.servers: list[Radsec] = []
        self._writers: list[asyncio.StreamWriter] = []

    def serve(self, clients: Clients = CLIENTS, limits: Limits = LIMITS) -> Radsec:
        self.servers.append(Radsec("127.0.0.1", 0, self.load(), clients, self.service, limits))
        return self.servers[-1]

    def context(self, identity: Identity | None, *, alpn: tuple[str, ...] = (tls.ALPN,)) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca.certificate))
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    async def connect(
        self,
        server: Radsec,
        identity: Identity | None = None,
        *,
        context: ssl.SSLContext | None = None,
        local: str = "127.0.0.1",
    ) -> "Peer":
        host, port = server.address
        reader, writer = await asyncio.open_connection(
            host,
            port,
            local_addr=(local, 0),
            ssl=context or self.context(identity or self.proxy),
            server_hostname="bridge.example.org",
        )
        self._writers.append(writer)
        return Peer(reader, writer)

    async def close(self) -> None:
        for server in self.servers:
            server.close()
            server.shut()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


class Peer:
    """A proxy's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self) -> bytes:
        """The next packet."""
        async with asyncio.timeout(5):
            head = await self.reader.readexactly(4)
            return head + await self.reader.readexactly(int.from_bytes(head[2:4]) - 4)

    async def is_closed(self) -> bool:
        """True when the other side closes, without another octet."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read(1) == b""
            except (ConnectionError, ssl.SSLError):
                return True


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    await made.close()


async def test_rfc_6613_2_6_a_response_comes_on_the_same_connection_after_the_commit(lab: Lab) -> None:
    one, other = [await lab.connect(server) for server in [lab.serve()] for _ in range(2)]
    one.send(login())
    await lab.recorder.recorded(1)
    other.send(login(2))
    await lab.recorder.recorded(2)
    for future in lab.recorder.futures:
        future.set_result(None)
    assert is_response(await one.hear(), login(), tls.SECRET)
    assert is_response(await other.hear(), login(2), tls.SECRET)
    assert [event.source for event in lab.recorder.events] == ["campus", "campus"]


async def test_rfc_6613_2_6_5_a_connection_has_256_identifiers_of_its_own(lab: Lab) -> None:
    server = lab.serve()
    peers = [await lab.connect(server) for _ in range(3)]
    for number, peer in enumerate(peers):
        peer.send(b"".join(login(number * 1000 // 256 * 256 + each) for each in range(256)))
    await lab.recorder.recorded(3 * 256)
    for future in reversed(lab.recorder.futures):
        future.set_result(None)
    for peer in peers:
        assert {(await peer.hear())[1] for _ in range(256)} == set(range(256))


async def test_packets_may_come_in_pieces(lab: Lab) -> None:
    peer = await lab.connect(lab.serve())
    for octet in login():
        peer.send(bytes([octet]))
        await peer.writer.drain()
    await lab.recorder.recorded(1)


@pytest.mark.parametrize(
    "data",
    [
        b"\x04\x01\x00\x13" + bytes(16),
        b"\x04\x01\x10\x01" + bytes(16),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x04\x01\x00\x16" + bytes(16) + b"\x01\x01",
        login(1, b"another"),
        status.request(1, b"another"),
    ],
    ids=["shorter than a packet", "longer than a packet", "no RADIUS", "bad attribute", "wrong secret", "status"],
)
async def test_rfc_6613_2_6_4_a_bad_length_attribute_or_authenticator_ends_the_connection(
    lab: Lab, data: bytes
) -> None:
    server = lab.serve()
    peer, other = await lab.connect(server), await lab.connect(server)
    peer.send(data + login())
    assert await peer.is_closed()
    other.send(status.request(7, tls.SECRET))
    assert (await other.hear())[:2] == b"\x05\x07"
    assert not lab.recorder.events


@pytest.mark.parametrize("code", [1, 40, 43], ids=["Access-Request", "Disconnect-Request", "CoA-Request"])
async def test_rfc_6613_2_6_4_an_unwanted_code_of_nobody_is_discarded_and_no_reason_to_close(
    lab: Lab, code: int
) -> None:
    peer = await lab.connect(lab.serve())
    peer.send(bytes((code,)) + b"\x01\x00\x14" + bytes(16))
    peer.send(status.request(7, tls.SECRET))
    assert (await peer.hear())[:2] == b"\x05\x07"


@pytest.mark.parametrize("code", [40, 43], ids=["Disconnect-Request", "CoA-Request"])
async def test_rfc_6614_2_5_a_change_of_authorisation_is_answered_with_a_nak(lab: Lab, code: int) -> None:
    peer = await lab.connect(lab.serve())
    asked = secured.change(code, tls.SECRET)
    peer.send(asked)
    assert secured.is_nak(await peer.hear(), asked, tls.SECRET)
    peer.send(secured.change(code, b"another secret") + status.request(7, tls.SECRET))
    assert (await peer.hear())[:2] == b"\x05\x07"
    assert not lab.recorder.events


async def test_rfc_7930_2_a_packet_of_4096_octets_comes_and_so_does_its_response(lab: Lab) -> None:
    peer = await lab.connect(lab.serve())
    peer.send(secured.longest(tls.SECRET) + login(2))
    await lab.recorder.recorded(2)
    for future in lab.recorder.futures:
        future.set_result(None)
    response = await peer.hear()
    assert is_response(response, secured.longest(tls.SECRET), tls.SECRET)
    assert len(parse(response).attributes) == 16
    assert is_response(await peer.hear(), login(2), tls.SECRET)


async def test_many_connections_come_at_once(lab: Lab) -> None:
    server = lab.serve(limits=Limits())
    peers = await asyncio.gather(*(lab.connect(server) for _ in range(100)))
    await until(lambda: len(server.open) == 100)
    for number, peer in enumerate(peers):
        peer.send(login(number))
    await lab.recorder.recorded(100)
    for future in lab.recorder.futures:
        future.set_result(None)
    for number, peer in enumerate(peers):
        assert is_response(await peer.hear(), login(number), tls.SECRET)


async def test_rfc_6613_2_6_5_an_identifier_is_free_again_when_it_is_answered(lab: Lab) -> None:
    peer = await lab.connect(lab.serve())
    for first in range(0, 1024, 256):
        lot = [login(first + number) for number in range(256)]
        peer.send(b"".join(lot))
        await lab.recorder.recorded(first + 256)
        for future in lab.recorder.futures[first:]:
            future.set_result(None)
        for sent in lot:
            assert is_response(await peer.hear(), sent, tls.SECRET)


async def test_rfc_6614_2_3_peers_are_told_apart_by_name_common_name_or_fingerprint(lab: Lab) -> None:
    by_common = lab.ca.issue("branch", common="Branch.example.org")
    by_fingerprint = lab.ca.issue("pinned", "unknown.example.org")
    clients = Clients(
        [
            client("campus", certificate_name="proxy.example.org"),
            client("branch", certificate_name="branch.example.org"),
            client("pinned", fingerprint=by_fingerprint.fingerprint),
        ]
    )
    server = lab.serve(clients)
    for number, identity in enumerate((lab.proxy, by_common, by_fingerprint)):
        (await lab.connect(server, identity)).send(login())
        await lab.recorder.recorded(number + 1)
    assert [event.source for event in lab.recorder.events] == ["campus", "branch", "pinned"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("case", REFUSED)
async def test_rfc_6614_2_3_who_is_refused_is_logged_in_one_line_that_says_why(
    lab: Lab, case: str, version: ssl.TLSVersion
) -> None:
    reason, make = REFUSED[case]
    context = lab.context(make(lab.ca))
    context.minimum_version = context.maximum_version = version
    server = lab.serve()
    with capture_logs() as log:
        try:
            peer = await lab.connect(server, context=context)
        except (ssl.SSLError, ConnectionError):
            pass  # TLS 1.2 tells during the handshake
        else:
            assert await peer.is_closed()
        await until(lambda: bool(log))
    assert [line["reason"] for line in log] == [reason]
    assert log[0]["source"].startswith("127.0.0.1:")


async def test_rfc_6614_2_3_a_peer_may_bring_the_ca_between_its_own_and_ours(lab: Lab) -> None:
    identity = below(lab.ca).issue("branch", *NAMES)
    peer = await lab.connect(lab.serve(), identity)
    peer.send(login())
    await lab.recorder.recorded(1)


async def test_a_ca_file_that_ends_below_the_root_is_told(lab: Lab) -> None:
    between = below(lab.ca)
    files = replace(lab.files, ca=between.certificate, crl=None)
    server = Radsec("127.0.0.1", 0, tls.load(files), CLIENTS, lab.service)
    lab.servers.append(server)
    with capture_logs() as log:
        with suppress(ssl.SSLError, ConnectionError):
            peer = await lab.connect(server, between.issue("branch", *NAMES))
            assert await peer.is_closed()
        await until(lambda: bool(log))
    assert [line["reason"] for line in log] == ["certificate: the CA above its CA is not in ca_file"]


@pytest.mark.parametrize("alpn", [("radius/1.0",), ("radius/1.1", "radius/1.0")])
async def test_rfc_9765_3_the_protocol_is_radius_1_0(lab: Lab, alpn: tuple[str, ...]) -> None:
    peer = await lab.connect(lab.serve(), context=lab.context(lab.proxy, alpn=alpn))
    assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "radius/1.0"


async def test_rfc_6614_2_3_a_peer_that_knows_nothing_of_alpn_is_taken(lab: Lab) -> None:
    silent = await lab.connect(lab.serve(), context=lab.context(lab.proxy, alpn=()))
    silent.send(status.request(7, tls.SECRET))
    assert (await silent.hear())[:2] == b"\x05\x07"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_rfc_9765_3_a_peer_that_offers_only_other_protocols_is_refused_by_an_alert(
    lab: Lab, version: ssl.TLSVersion
) -> None:
    server = lab.serve()
    context = lab.context(lab.proxy, alpn=("radius/1.1", "h2"))
    context.minimum_version = context.maximum_version = version
    with capture_logs() as log:
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            await lab.connect(server, context=context)
        await until(lambda: bool(log))
    assert [(line["reason"], line["offered"]) for line in log] == [(tls.FOREIGN_PROTOCOL, "radius/1.1, h2")]
    (await lab.connect(server)).send(login())
    await lab.recorder.recorded(1)


async def test_a_client_hello_may_come_in_pieces(lab: Lab) -> None:
    server = lab.serve()
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = lab.context(lab.proxy).wrap_bio(here, there, server_hostname="bridge.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    hello = there.read()
    reader, writer = await asyncio.open_connection(*server.address)
    for piece in (hello[:1], hello[1:7], hello[7:-1], hello[-1:]):
        assert not reader.at_eof()
        writer.write(piece)
        await asyncio.sleep(0.01)  # so that it is a segment of its own; nothing depends on it
    async with asyncio.timeout(5):
        assert (await reader.readexactly(6))[0::5] == b"\x16\x02"  # ServerHello
    writer.close()


async def test_who_hangs_up_within_its_client_hello_is_refused(lab: Lab) -> None:
    server = lab.serve()
    with capture_logs() as log:
        for octets in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.0\r\n\r\n", b""):
            _, writer = await asyncio.open_connection(*server.address)
            writer.write(octets)
            writer.close()
        await until(lambda: not server.pending)
    assert log
    assert all(line["reason"].startswith("TLS: ") for line in log)


async def test_rfc_6614_2_3_tls_older_than_1_2_is_refused(lab: Lab) -> None:
    context = lab.load().context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_rfc_8446_8_no_session_is_resumed_and_so_there_is_no_0_rtt(lab: Lab) -> None:
    server = lab.serve()
    context = lab.context(lab.proxy)
    peer = await lab.connect(server, context=context)
    peer.send(status.request(7, tls.SECRET))
    await peer.hear()  # a ticket would have come before it
    session = peer.writer.get_extra_info("ssl_object").session
    assert session is None or not session.has_ticket


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01"], ids=["silent", "slow"])
async def test_a_handshake_that_takes_too_long_ends(lab: Lab, octets: bytes) -> None:
    server = lab.serve(limits=replace(LIMITS, handshake=0.1))
    with capture_logs() as log:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(octets)
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        await until(lambda: bool(log))
    assert [line["reason"] for line in log] == ["TLS: the handshake took too long"]


async def test_an_idle_connection_ends_and_one_that_asks_for_the_status_does_not(lab: Lab) -> None:
    server = lab.serve(limits=replace(LIMITS, idle=0.5))
    idle, alive = await lab.connect(server), await lab.connect(server)
    closed = asyncio.create_task(idle.is_closed())
    while not closed.done():
        alive.send(status.request(7, tls.SECRET))
        assert (await alive.hear())[:2] == b"\x05\x07"
        await asyncio.sleep(0.05)
    assert await closed


async def test_of_a_connection_that_ended_nothing_is_kept(lab: Lab) -> None:
    server = lab.serve()
    peer = await lab.connect(server)
    await until(lambda: bool(server.open))
    ended = weakref.ref(next(iter(server.open)))
    peer.writer.close()
    await until(lambda: not server.open)
    await lab.connect(server)

    def is_gone() -> bool:
        gc.collect()
        return ended() is None

    await until(is_gone)  # a peer that comes and goes all day would fill the memory


async def test_connections_beyond_the_limit_are_closed_as_they_come(lab: Lab) -> None:
    server = lab.serve(limits=replace(LIMITS, connections=2))
    kept = [await lab.connect(server) for _ in range(2)]
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await lab.connect(server)
    kept[0].writer.close()
    await until(lambda: len(server.open) < 2)
    (await lab.connect(server)).send(login())
    await lab.recorder.recorded(1)


async def test_who_was_refused_makes_room_for_others(lab: Lab) -> None:
    server = lab.serve(limits=Limits(connections=2, from_one_place=2))
    for _ in range(5):
        with pytest.raises(ssl.SSLError):
            await lab.connect(server, context=lab.context(lab.proxy, alpn=("h2",)))
    (await lab.connect(server)).send(login())
    await lab.recorder.recorded(1)


async def test_one_address_has_only_so_many_handshakes_at_once(lab: Lab) -> None:
    server = lab.serve(limits=replace(LIMITS, from_one_place=2))
    strangers = [await asyncio.open_connection(*server.address) for _ in range(2)]
    await until(lambda: server.pending == 2)
    with capture_logs() as log, pytest.raises((ConnectionError, ssl.SSLError)):
        await lab.connect(server)
    assert [line["reason"] for line in log] == ["too many handshakes from one place"]
    (await lab.connect(server, local="127.0.0.2")).send(login())
    await lab.recorder.recorded(1)
    for _, writer in strangers:
        writer.close()
    await until(lambda: not server.shaking)
    (await lab.connect(server)).send(login(2))
    await lab.recorder.recorded(2)


def test_of_ipv6_a_place_is_a_network_of_64_bits() -> None:
    assert place("2001:db8::1") == place("2001:db8::ffff:1") != place("2001:db8:0:1::1")
    assert place("fe80::1%eth0") == place("fe80::2")
    assert place("192.0.2.1") != place("192.0.2.2")


async def test_a_revoked_peer_goes_when_the_list_is_read_again_and_does_not_come_back(lab: Lab) -> None:
    server = lab.serve()
    peer = await lab.connect(server)
    server.reload(lab.load(), CLIENTS)
    peer.send(status.request(7, tls.SECRET))
    assert (await peer.hear())[:2] == b"\x05\x07"  # nothing has changed

    lab.ca.revoke(lab.proxy)
    server.reload(lab.load(), CLIENTS)
    assert await peer.is_closed()
    again = lab.context(lab.proxy)
    again.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await lab.connect(server, context=again)


async def test_a_peer_that_is_revoked_during_its_handshake_is_refused(lab: Lab) -> None:
    server = lab.serve()
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = lab.context(lab.proxy).wrap_bio(here, there, server_hostname="bridge.example.org")
    reader, writer = await asyncio.open_connection(*server.address)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    writer.write(there.read())
    while True:
        here.write(await reader.read(1 << 16))
        with suppress(ssl.SSLWantReadError):
            connection.do_handshake()
            break
    lab.ca.revoke(lab.proxy)
    server.reload(lab.load(), CLIENTS)
    with capture_logs() as log:
        writer.write(there.read())  # the certificate, and Finished
        await until(lambda: bool(log))
    assert [line["reason"] for line in log] == ["configuration changed during the handshake"]
    assert not server.open
    writer.close()


async def test_who_is_no_client_after_a_reload_goes(lab: Lab) -> None:
    server = lab.serve()
    peer = await lab.connect(server)
    server.reload(lab.load(), Clients([client("branch", certificate_name="branch.example.org")]))
    assert await peer.is_closed()


@pytest.mark.parametrize("broken", ["certificate", "key", "ca", "crl"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, broken: str) -> None:
    ca = Authority(tmp_path)
    ours = ca.issue("bridge")
    files = {"certificate": ours.certificate, "key": ours.key, "ca": ca.certificate, "crl": ca.crl}
    files[broken] = tmp_path / "broken"
    with pytest.raises(ValueError, match=f"{broken}_file .*/broken: cannot be read: No such file"):
        tls.load(tls.Files(**files))
    files[broken].write_text("this is no PEM")
    with pytest.raises(ValueError, match=f"{broken}_file .*/broken"):
        tls.load(tls.Files(**files))


def test_rfc_6614_2_1_the_port_is_2083() -> None:
    assert {port for _, port in RadsecSettings.model_fields["listen"].default} == {2083}
