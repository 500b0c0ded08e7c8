"""RADIUS over UDP (RFC 2866 §3): datagrams in batches."""

import asyncio
import os
from functools import lru_cache

from radius_bridge import metrics
from radius_bridge.radius import sockets
from radius_bridge.radius.batches import Datagram, Receiver, Sender
from radius_bridge.radius.clients import Clients
from radius_bridge.radius.seldom import SeldomLog
from radius_bridge.radius.service import Drop, Service, moment

Where = tuple[bytes, bytes]
"""The sockaddr to answer to, and the control message that chooses the address to answer from."""


class Udp:
    """One UDP socket. Needs a running event loop; open from the start, closed by `shut`."""

    def __init__(
        self,
        host: str,
        port: int,
        clients: Clients,
        service: Service,
        *,
        receive_buffer: int = sockets.RECEIVE_BUFFER,
    ) -> None:
        """Opens a numeric address and a port (0: any). Raises OSError that names it."""
        self._socket = sockets.open_udp(host, port, receive_buffer=receive_buffer)
        self.take_from(clients)
        self._service = service
        self._receiver = Receiver()
        self._sender = Sender()
        self._out: list[Datagram] = []
        self._kernel_drops = 0
        self._log = SeldomLog()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that are open."""
        return sockets.local_address(self._socket)

    def take_from(self, clients: Clients) -> None:
        """Takes the packets of these, from the next one on."""
        # They are few, and their sockets too; a stranger's that differ each time push them out, which costs a look-up.
        self._client_at = lru_cache(maxsize=4096)(lambda name: clients.at(*sockets.address_of(name)))

    def close(self) -> None:
        """Stops reading; what is in flight can still be answered."""
        self._loop.remove_reader(self._socket)

    def shut(self) -> None:
        """Sends what is left to send and closes the socket. Call `close` first."""
        self._flush()
        self._socket.close()

    def send(self, response: bytes, where: Where) -> None:
        """Puts a response with the others that are due now; they leave together, before the loop waits."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((response, *where))

    def name(self, where: Where) -> str:
        """Address and port of the other side."""
        return sockets.endpoint_of(where[0])

    def _readable(self) -> None:
        try:
            received = self._receiver.receive(self._socket.fileno())
        except OSError as error:
            # Such as an ICMP error about an earlier response: about one packet, not about the socket.
            if self._log.is_due("receive"):
                self._log.warning("receive failed", error=str(error))
            return
        now, arrival = moment()
        service, client_at = self._service, self._client_at
        for data, name, control in received:
            reply, dropped = sockets.read_control(control)
            if dropped is not None and dropped != self._kernel_drops:
                self._count_kernel_drops(dropped)
            where = (name, reply)
            client = client_at(name)
            if client is None:
                service.drop(Drop.UNKNOWN_CLIENT, self, where)
            else:
                service.receive(data, client, self, where, name, now, arrival)

    def _count_kernel_drops(self, total: int) -> None:
        metrics.SOCKET_DROPS.inc((total - self._kernel_drops) & 0xFFFFFFFF)
        self._kernel_drops = total
        if self._log.is_due("kernel"):
            self._log.warning("the kernel drops packets: they come faster than they are read", total=total)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not out or self._socket.fileno() < 0:
            return
        for (_, name, _), error in self._sender.send(self._socket.fileno(), out):
            # Full buffer, no route, an address that is gone: the NAS repeats, and the cache has the response.
            metrics.SEND_ERRORS.inc()
            if self._log.is_due("send"):
                self._log.warning("response not sent", peer=sockets.endpoint_of(name), error=os.strerror(error))
