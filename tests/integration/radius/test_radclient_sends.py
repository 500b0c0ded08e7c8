"""FreeRADIUS' radclient sends what is odd to a listener over UDP, and takes each answer as the one to its request."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from radius_bridge.identity.events import Event, Restart
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.server import Listener

pytestmark = pytest.mark.integration

SECRET = b"a shared secret!"
LOGIN = 'Acct-Status-Type = Start, User-Name = "alice", Acct-Session-Id = "5E2A", Framed-IP-Address = 10.1.2.3'
ODD = [
    "",
    "Message-Authenticator = 0x00",
    ", ".join(f"Proxy-State = 0x{hop:02x}" for hop in range(30)),
    'Cisco-AVPair = "a=b", Cisco-AVPair += "c=d", Cisco-NAS-Port = "eth"',
    'WiMAX-Release = "1.0", WiMAX-Accounting-Capabilities = 1, WiMAX-GMT-Timezone-offset = -3600',
    "WiMAX-DHCP-Msg-Server-IP = 192.0.2.1",
    f"Attr-26 = 0x{bytes(4).hex()}, Attr-241 = 0x01, Attr-255 = 0x3f, Attr-25 = 0x00",
    "Framed-IPv6-Address = 2001:db8::1, Framed-IPv6-Address += 2001:db8::1, Framed-IPv6-Prefix = 2001:db8:1::/64",
    f"Class = 0x{'cd' * 253}, " + ", ".join(f"Class += 0x{'cd' * 253}" for _ in range(13)),
    'Tunnel-Private-Group-Id:1 = "42", Tunnel-Type:1 = VLAN, Tunnel-Medium-Type:1 = IEEE-802',
    "Acct-Delay-Time = 4294967295, Session-Timeout = 4294967295, Acct-Session-Time = 4294967295",
]
OTHER_KINDS = ["Accounting-On", "Accounting-Off", "Tunnel-Start", "Tunnel-Link-Stop", "Failed", "Alive", "200"]


class Lab:
    """A listener whose recorder takes everything."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event | Restart] = []
        networks = Networks([parse_prefix("10.0.0.0/8"), parse_prefix("2001:db8::/32")])
        client = Client("campus", parse_prefix("127.0.0.1"), SECRET, networks)
        rules = Rules(3600, Networks([]))
        self.listener = Listener([("127.0.0.1", 0)], Clients([client]), rules, self._submit)
        self.listener.start()
        self._secret_file = folder / "secret"
        self._secret_file.write_bytes(SECRET)

    def _submit(self, event: Event | Restart) -> asyncio.Future[None]:
        self.events.append(event)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def radclient(self, *requests: str) -> str:
        """What radclient says about one packet for each text."""
        host, port = self.listener.addresses[0]
        argv = ["radclient", "-x", "-r", "1", "-t", "3", "-S", str(self._secret_file), f"{host}:{port}", "acct"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        async with asyncio.timeout(30):
            told, _ = await process.communicate("\n\n".join(requests).encode() + b"\n")
        return told.decode()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.listener.close()
    await made.listener.drain(0)


@pytest.mark.parametrize("odd", ODD, ids=[odd[:40] or "plain" for odd in ODD])
async def test_radclient_is_answered_and_what_is_odd_spoils_nothing_else(lab: Lab, odd: str) -> None:
    told = await lab.radclient(f"{LOGIN}, {odd}" if odd else LOGIN)
    assert "Received Accounting-Response" in told, told
    (event,) = lab.events
    assert isinstance(event, Event)
    assert event.user == "alice"
    assert parse_prefix("10.1.2.3") in event.addresses
    assert told.count("Proxy-State") == 2 * odd.count("Proxy-State")


async def test_radclient_is_answered_whatever_kind_it_tells(lab: Lab) -> None:
    told = await lab.radclient(*(LOGIN.replace("Start", kind) for kind in OTHER_KINDS))
    assert told.count("Received Accounting-Response") == len(OTHER_KINDS), told
    assert sum(isinstance(each, Restart) for each in lab.events) == 2  # On and Off
    sessions = [each for each in lab.events if isinstance(each, Event)]
    assert [each.kind for each in sessions] == ["interim"]  # Alive is FreeRADIUS' old name for it
