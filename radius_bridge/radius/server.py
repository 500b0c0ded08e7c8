"""The accounting listener: all transports before one service."""

from collections.abc import Iterable

from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Clients
from radius_bridge.radius.service import IN_FLIGHT_LIMIT, CanRecord, Service, Submit
from radius_bridge.radius.udp import Udp


class Listener:
    """Receives on UDP sockets and answers what is recorded. Needs a running event loop from `start` on."""

    def __init__(
        self,
        listen: Iterable[tuple[str, int]],
        clients: Clients,
        rules: Rules,
        submit: Submit,
        *,
        can_record: CanRecord = lambda: True,
        in_flight_limit: int = IN_FLIGHT_LIMIT,
    ) -> None:
        """Nothing is opened yet; `listen` has numeric addresses and ports (0: any)."""
        self._listen = list(listen)
        self._clients = clients
        self._service = Service(rules, submit, can_record=can_record, in_flight_limit=in_flight_limit)
        self._udp: list[Udp] = []
        self._reading = False

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Addresses and UDP ports that are open."""
        return [each.address for each in self._udp]

    def start(self) -> None:
        """Opens the sockets and begins to read. Raises OSError, naming the address that cannot be opened."""
        try:
            for host, port in self._listen:
                self._udp.append(Udp(host, port, self._clients, self._service))
        except OSError:
            self._stop_reading()
            self._shut()
            raise
        self._reading = True

    def reload(self, clients: Clients, rules: Rules) -> None:
        """From the next packet on, these hold."""
        self._clients = clients
        self._service.rules = rules
        for each in self._udp:
            each.clients = clients

    def close(self) -> None:
        """Stops reading; what is in flight can still be answered (`drain`)."""
        if self._reading:
            self._stop_reading()
            self._reading = False

    async def drain(self, timeout: float) -> int:
        """Waits up to `timeout` seconds until what is in flight is answered, then shuts the sockets.

        Gives the number of requests that are left without a response. Call `close` first.
        """
        left = await self._service.drain(timeout)
        self._shut()
        return left

    def _stop_reading(self) -> None:
        for each in self._udp:
            each.close()

    def _shut(self) -> None:
        for each in self._udp:
            each.shut()
        self._udp.clear()
