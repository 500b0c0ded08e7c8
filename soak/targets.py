"""What is fuzzed: each target takes any octets and raises only if something is wrong with our code."""

import asyncio
import contextlib
import hmac
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from radius_bridge.identity.events import Event, Restart
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius import genuine, status
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.attributes import assign, pack, unpack
from radius_bridge.radius.capture import Capture, CaptureError
from radius_bridge.radius.clients import Client, Networks
from radius_bridge.radius.dictionary import Dictionary, DictionaryError, directory, standard
from radius_bridge.radius.packet import HEADER, MAX_LENGTH, Malformed, accounting_request, parse
from radius_bridge.radius.service import Drop, Service

SECRET = b"a shared secret!"
NETWORKS = Networks([parse_prefix("10.0.0.0/8"), parse_prefix("2001:db8::/32")])
CLIENT = Client(name="lab", address=parse_prefix("198.51.100.1"), secret=SECRET, networks=NETWORKS)

Target = Callable[[bytes], None]


def _request(*texts: str) -> bytes:
    return accounting_request(1, [pair for text in texts for pair in assign(text, standard())], SECRET)


def seeds() -> list[bytes]:
    """Packets to start from: what NASes send, and every structure that the codec knows."""
    session = ("User-Name=alice", "Acct-Session-Id=5E2A", "NAS-Identifier=switch-1", "Event-Timestamp=1700000000")
    structures = [
        *((path, b"\0\0\0\x07") for path in ((241, 3), (241, 7, 6), (173, 1), (241, 26, 9, 1))),
        ((245, 1), b"x" * 300),
        ((245, 26, 9, 1), b"y" * 300),
        ((26, 25053, 149, 2), b"\0\0\0\x07"),
        ((79,), b"z" * 300),
    ]
    nested = [pair for path, octets in structures for pair in pack(path, octets, standard())]
    return [
        _request("Acct-Status-Type=Start", "Framed-IP-Address=10.1.2.3", *session),
        _request("Acct-Status-Type=Stop", "Framed-IPv6-Address=2001:db8::1", "Acct-Session-Time=60", *session),
        _request("Acct-Status-Type=Interim-Update", "Huawei-IPHost-Addr=10.1.2.3 02:00:00:00:00:01", *session),
        _request("Acct-Status-Type=Accounting-On", "NAS-Identifier=switch-1", "Proxy-State=0x0102"),
        _request("Acct-Status-Type=Start", "Cisco-AVPair=a=b", "Tunnel-Private-Group-Id:1=42", *session),
        accounting_request(1, nested, SECRET),
        _status(),
    ]


def _status() -> bytes:
    """A Status-Server (RFC 5997) that is the same every time."""
    head = bytes((status.STATUS_SERVER, 1, 0, HEADER + 18)) + bytes(range(16)) + bytes((80, 18))
    return head + hmac.digest(SECRET, head + bytes(16), "md5")


def signed(data: bytes) -> bytes | None:
    """The octets as a genuine request with a right Length, as a hostile client with the secret would send them."""
    data = data[:MAX_LENGTH]
    if len(data) < HEADER:
        return None
    body = data[HEADER:]
    head = bytes((4, data[1])) + (HEADER + len(body)).to_bytes(2)
    return head + genuine.request_authenticator(head, body, SECRET) + body


class Server:
    """The listener's service without sockets: what it is told to record, and that it never fails."""

    def __init__(self) -> None:
        """Needs a running event loop."""
        self.events = 0
        self.responses = 0
        self._loop = asyncio.get_running_loop()
        self._clock = 0.0
        self._service = Service(Rules(3600, Networks([])), self._submit)

    def receive(self, data: bytes) -> Drop | None:
        """Hands over a packet of CLIENT. Raises AssertionError if it made the service fail."""
        self._clock += 0.001
        dropped = self._service.receive(data, CLIENT, self, None, 1, self._clock, 1_700_000_000.0)
        assert dropped is not Drop.FAILED
        return dropped

    def send(self, response: bytes, where: Any) -> None:
        """A transport's part."""
        self.responses += 1

    def name(self, where: Any) -> str:
        """A transport's part."""
        return "fuzz"

    def _submit(self, event: Event | Restart) -> asyncio.Future[None]:
        self.events += 1
        assert isinstance(event, Restart) or all(address in NETWORKS for address in event.addresses)
        done: asyncio.Future[None] = self._loop.create_future()
        done.set_result(None)
        return done


def codec(data: bytes) -> None:
    """Reads a packet as `decode` does."""
    try:
        packet = parse(data)
    except Malformed as error:
        assert 0 <= error.offset <= len(data)
        return
    assert HEADER + sum(2 + len(octets) for _, octets in packet.attributes) == len(packet.raw)
    genuine.verdict(packet, SECRET, packet)
    for leaf in unpack(packet.attributes, standard()):
        try:
            text = leaf.show()
        except Malformed as error:
            assert HEADER <= error.offset < len(packet.raw)
            continue
        if leaf.definition is not None and not leaf.definition.has_tag_always and leaf.definition.type.name != "string":
            assert leaf.definition.decode(leaf.definition.encode(text)) == leaf.value()


def dictionary(data: bytes) -> None:
    """Reads a site's dictionary."""
    with tempfile.TemporaryDirectory(prefix="rb-fuzz-", dir="/dev/shm") as folder:
        file = Path(folder) / "dictionary.site"
        file.write_bytes(data)
        with contextlib.suppress(DictionaryError):
            Dictionary(directory() / "dictionary.rfc2865", directory() / "dictionary.rfc6929", file)


def capture(data: bytes) -> None:
    """Reads a capture file."""
    with contextlib.suppress(CaptureError):
        for datagram in Capture(data):
            codec(datagram.payload)


TARGETS: dict[str, Target] = {"codec": codec, "dictionary": dictionary, "capture": capture}
"""All that need no event loop, by name."""
