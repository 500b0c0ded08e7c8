"""The servers of `script/bench ingest` that are written in Python: `python -m bench.ingest_servers ours|pyrad …`."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvloop
from pyrad.dictionary import Dictionary
from pyrad.packet import AccountingResponse
from pyrad.server import RemoteHost
from pyrad.server_async import ServerAsync

from radius_bridge.identity.events import Event, Restart
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.server import Listener


async def ours(port: int, secret: bytes) -> None:
    """The bridge's listener, before a registry that has recorded everything already."""
    loop = asyncio.get_running_loop()

    def submit(_: Event | Restart) -> asyncio.Future[None]:
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)
        return done

    client = Client("bench", parse_prefix("127.0.0.1"), secret, Networks([parse_prefix("10.0.0.0/8")]))
    listener = Listener([("127.0.0.1", port)], Clients([client]), Rules(3600, Networks([])), submit)
    listener.start()
    await asyncio.Event().wait()


READ = (
    *("Acct-Status-Type", "User-Name", "Acct-Session-Id", "NAS-IP-Address", "NAS-Identifier", "Framed-IP-Address"),
    *("Calling-Station-Id", "Event-Timestamp", "Acct-Delay-Time", "Acct-Session-Time"),
)
"""What ours reads of the generator's packets."""


class _Pyrad(ServerAsync):  # type: ignore[misc]  # pyrad publishes no types
    """pyrad's own asynchronous server, which reads what ours reads and acknowledges everything."""

    def handle_acct_packet(self, protocol: Any, packet: Any, address: Any) -> None:
        for name in READ:  # pyrad decodes a value when it is asked for it
            packet.get(name)
        reply = self.CreateReplyPacket(packet)
        reply.code = AccountingResponse
        protocol.send_response(reply, address)

    def handle_auth_packet(self, protocol: Any, packet: Any, address: Any) -> None:
        raise NotImplementedError

    handle_coa_packet = handle_disconnect_packet = handle_auth_packet


async def pyrad(port: int, secret: bytes) -> None:
    """pyrad's server, on uvloop like ours."""
    dictionary = Dictionary(str(Path("dictionaries/dictionary")))
    hosts = {"127.0.0.1": RemoteHost("127.0.0.1", secret, "bench")}
    server = _Pyrad(
        acct_port=port, dictionary=dictionary, hosts=hosts, loop=asyncio.get_running_loop(), enable_pkt_verify=True
    )
    await server.initialize_transports(enable_acct=True, addresses=["127.0.0.1"])
    await asyncio.Event().wait()


if __name__ == "__main__":
    which, port, secret = sys.argv[1:]
    uvloop.run({"ours": ours, "pyrad": pyrad}[which](int(port), secret.encode()))
