"""The accounting listener: all transports before one service."""

from collections.abc import Iterable

from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Clients
from radius_bridge.radius.dtls import Dtls
from radius_bridge.radius.radsec import Radsec
from radius_bridge.radius.service import IN_FLIGHT_LIMIT, CanRecord, Service, Submit
from radius_bridge.radius.tls import Tls
from radius_bridge.radius.udp import Udp


class Listener:
    """Receives by UDP and RadSec, and answers what is recorded. Needs a running event loop from `start` on."""

    def __init__(
        self,
        listen: Iterable[tuple[str, int]],
        clients: Clients,
        rules: Rules,
        submit: Submit,
        *,
        can_record: CanRecord = lambda: True,
        radsec: Iterable[tuple[str, int]] = (),
        dtls: Iterable[tuple[str, int]] = (),
        tls: Tls | None = None,
        in_flight_limit: int = IN_FLIGHT_LIMIT,
    ) -> None:
        """Nothing is opened yet. `listen` has numeric addresses and UDP ports (0: any).

        `radsec` has TCP ports and `dtls` UDP ports, for `tls`.
        """
        self._listen = list(listen)
        self._clients = clients
        self._service = Service(rules, submit, can_record=can_record, in_flight_limit=in_flight_limit)
        self._udp: list[Udp] = []
        self._radsec_listen = list(radsec)
        self._dtls_listen = list(dtls)
        self._tls = tls
        self._radsec: list[Radsec] = []
        self._dtls: list[Dtls] = []
        self._reading = False

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Addresses and UDP ports that are open."""
        return [each.address for each in self._udp]

    @property
    def radsec_addresses(self) -> list[tuple[str, int]]:
        """Addresses and TCP ports that are open."""
        return [each.address for each in self._radsec]

    @property
    def dtls_addresses(self) -> list[tuple[str, int]]:
        """Addresses and UDP ports that are open for DTLS."""
        return [each.address for each in self._dtls]

    def start(self) -> None:
        """Opens the sockets and begins to read. Raises OSError, naming the address that cannot be opened."""
        try:
            for host, port in self._listen:
                self._udp.append(Udp(host, port, self._clients, self._service))
            if self._tls is not None:
                for host, port in self._radsec_listen:
                    self._radsec.append(Radsec(host, port, self._tls, self._clients, self._service))
                for host, port in self._dtls_listen:
                    self._dtls.append(Dtls(host, port, self._tls, self._clients, self._service))
        except OSError:
            self._stop_reading()
            self._shut()
            raise
        self._reading = True

    def reload(self, clients: Clients, rules: Rules, tls: Tls | None = None) -> None:
        """From the next packet on, these hold; without `tls`, RadSec keeps the one it has.

        Raises ValueError if DTLS cannot use the certificates; then nothing has changed.
        """
        tls = tls or self._tls
        if tls is not None:
            contexts = [each.context(tls) for each in self._dtls]  # all, before anything changes
            for dtls, context in zip(self._dtls, contexts, strict=True):
                dtls.reload(tls, clients, context)
            for radsec in self._radsec:
                radsec.reload(tls, clients)
        self._tls = tls
        self._clients = clients
        self._service.rules = rules
        for udp in self._udp:
            udp.take_from(clients)

    def renew(self, tls: Tls) -> None:
        """Meets new connections with these certificates. Raises ValueError like `reload`."""
        self.reload(self._clients, self._service.rules, tls)

    @property
    def tls(self) -> Tls | None:
        """What new connections meet."""
        return self._tls

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

    @property
    def _transports(self) -> list[Udp | Radsec | Dtls]:
        return [*self._udp, *self._radsec, *self._dtls]

    def _stop_reading(self) -> None:
        for each in self._transports:
            each.close()

    def _shut(self) -> None:
        for each in self._transports:
            each.shut()
        self._udp.clear()
        self._radsec.clear()
        self._dtls.clear()
