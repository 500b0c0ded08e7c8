"""RADIUS over TLS (RFC 6614, RFC 6613), over real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius import status, tls
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.packet import is_response
from radius_bridge.radius.radsec import Radsec
from radius_bridge.radius.service import Service
from tests.lab.pki import Authority, Identity
from tests.lab.radius_client import Status, accounting, request
from tests.radius.recorder import Recorder, until

RULES = Rules(default_lease=3600, shared=Networks([]))
EVERYWHERE = Networks([parse_prefix("10.0.0.0/8")])


def client(name: str, *, certificate_name: str | None = None, fingerprint: bytes | None = None) -> Client:
    return Client(name, None, tls.SECRET, EVERYWHERE, certificate_name=certificate_name, fingerprint=fingerprint)


CLIENTS = Clients([client("campus", certificate_name="proxy.example.org")])


def login(number: int = 1, secret: bytes = tls.SECRET) -> bytes:
    return request(number % 256, accounting(Status.START, "alice", f"s{number}", "10.1.2.3"), secret)


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Lab:
    """A CA, a RadSec listener, its recorder."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority(folder)
        self.ours = self.ca.issue("bridge", "bridge.example.org")
        self.proxy = self.ca.issue("proxy", "proxy.example.org")
        self.recorder = Recorder()
        self.service = Service(RULES, self.recorder.submit)
        self.servers: list[Radsec] = []
        self._writers: list[asyncio.StreamWriter] = []

    def load(self) -> tls.Tls:
        return tls.load(tls.Files(self.ours.certificate, self.ours.key, self.ca.certificate, self.ca.crl))

    def serve(self, clients: Clients = CLIENTS, **limits: float) -> Radsec:
        connections = int(limits.pop("connections", 16))
        self.servers.append(
            Radsec("127.0.0.1", 0, self.load(), clients, self.service, connections=connections, **limits)
        )
        return self.servers[-1]

    def context(self, identity: Identity | None, *, alpn: str | None = tls.ALPN) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca.certificate))
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        return context

    async def connect(
        self, server: Radsec, identity: Identity | None = None, *, context: ssl.SSLContext | None = None
    ) -> "Peer":
        host, port = server.address
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context or self.context(identity or self.proxy), server_hostname="bridge.example.org"
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


async def test_rfc_6613_2_6_4_an_unwanted_code_is_no_reason_to_close(lab: Lab) -> None:
    peer = await lab.connect(lab.serve())
    peer.send(b"\x01\x01\x00\x14" + bytes(16))
    peer.send(status.request(7, tls.SECRET))
    assert (await peer.hear())[:2] == b"\x05\x07"


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


REFUSALS = {
    "expired": "certificate: it is expired",
    "self-signed": "certificate: it is self-signed",
    "other": "certificate: it is of another CA",
    "revoked": "certificate: it is revoked",
    "none": "certificate: it shows none",
    "stranger": "no client has this certificate",
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", REFUSALS)
async def test_rfc_6614_2_3_who_is_refused_is_logged_in_one_line_that_says_why(
    lab: Lab, kind: str, version: ssl.TLSVersion, tmp_path: Path
) -> None:
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
    server = lab.serve()
    context = lab.context(identity)
    context.minimum_version = context.maximum_version = version
    with capture_logs() as log:
        try:
            peer = await lab.connect(server, context=context)
        except (ssl.SSLError, ConnectionError):
            pass  # TLS 1.2 tells during the handshake
        else:
            assert await peer.is_closed()
        await until(lambda: bool(log))
    assert [line["reason"] for line in log] == [REFUSALS[kind]]
    assert log[0]["source"].startswith("127.0.0.1:")


async def test_rfc_9765_the_protocol_is_radius_1_0(lab: Lab) -> None:
    server = lab.serve()
    peer = await lab.connect(server)
    assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "radius/1.0"
    # Those that know nothing of ALPN speak RADIUS/1.0 too.
    silent = await lab.connect(server, context=lab.context(lab.proxy, alpn=None))
    silent.send(status.request(7, tls.SECRET))
    assert (await silent.hear())[:2] == b"\x05\x07"


async def test_tls_older_than_1_2_is_refused(lab: Lab) -> None:
    context = lab.load().context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_no_session_is_resumed_and_so_there_is_no_0_rtt(lab: Lab) -> None:
    server = lab.serve()
    context = lab.context(lab.proxy)
    peer = await lab.connect(server, context=context)
    peer.send(status.request(7, tls.SECRET))
    await peer.hear()  # a ticket would have come before it
    session = peer.writer.get_extra_info("ssl_object").session
    assert session is None or not session.has_ticket


async def test_a_handshake_that_takes_too_long_ends(lab: Lab) -> None:
    server = lab.serve(handshake=0.1)
    with capture_logs() as log:
        reader, writer = await asyncio.open_connection(*server.address)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await until(lambda: bool(log))
    assert log[0]["reason"].startswith("TLS: ")


async def test_an_idle_connection_ends_and_one_that_asks_for_the_status_does_not(lab: Lab) -> None:
    server = lab.serve(idle=0.5)
    idle, alive = await lab.connect(server), await lab.connect(server)
    closed = asyncio.create_task(idle.is_closed())
    while not closed.done():
        alive.send(status.request(7, tls.SECRET))
        assert (await alive.hear())[:2] == b"\x05\x07"
        await asyncio.sleep(0.05)
    assert await closed


async def test_connections_beyond_the_limit_are_closed_as_they_come(lab: Lab) -> None:
    server = lab.serve(connections=2)
    kept = [await lab.connect(server) for _ in range(2)]
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await lab.connect(server)
    kept[0].writer.close()
    await until(lambda: len(server.open) < 2)
    (await lab.connect(server)).send(login())
    await lab.recorder.recorded(1)


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
