"""What RadSec and DTLS have in common: who may come, how many for how long, and what is said about the others."""

import ipaddress
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from radius_bridge import metrics
from radius_bridge.radius import sockets, tls
from radius_bridge.radius.clients import Client, Clients
from radius_bridge.radius.packet import unsupported
from radius_bridge.radius.seldom import SeldomLog
from radius_bridge.radius.service import Drop, Service

CLOSING = frozenset({Drop.MALFORMED, Drop.WRONG_SECRET})
"""RFC 6613 §2.6.4: after these nobody knows where the next packet begins, or who sends it."""


@dataclass(frozen=True)
class Limits:
    """What keeps peers from taking more than their part."""

    connections: int = 1024
    """At once, in handshake or after it; more are not begun."""
    from_one_place: int = 256
    """Handshakes at once with one address (of IPv6: one /64): a stranger alone cannot keep the others out."""
    handshake: float = 5.0
    """Seconds that a handshake may take."""
    idle: float = 900.0
    """Seconds without a packet after which a connection ends. Peers ask Status-Server more often than that."""


DEFAULT_LIMITS = Limits()


class Secured:
    """A listening socket whose peers are known by their certificates."""

    def __init__(self, kind: str, made: tls.Tls, clients: Clients, service: Service, limits: Limits) -> None:
        """`kind` begins what the log says."""
        self.kind = kind
        self.tls = made
        self.clients = clients
        self.service = service
        self.limits = limits
        self.open: set[SecuredPeer] = set()
        """The connections of known clients."""
        self.shaking: Counter[str] = Counter()
        """Handshakes that are not over, by the place that they come from."""
        self.log = SeldomLog()

    def reload(self, made: tls.Tls, clients: Clients) -> None:
        """New connections meet these. Who is no client any more goes; if the certificates or CRLs are others, all go.

        They come again and are checked anew; what they have no answer for, they send again.
        """
        anew = made.digest != self.tls.digest
        self.tls = made
        self.clients = clients
        for peer in list(self.open):
            if anew or not peer.recognise():
                peer.close("configuration changed")

    def find(self, certificate: tls.Certificate) -> Client | None:
        """The client with this certificate."""
        return self.clients.with_certificate(certificate.fingerprint, certificate.names)

    def admits(self, host: str, connections: int) -> bool:
        """True if somebody at `host` may begin while there are so many connections; else it is refused."""
        if connections >= self.limits.connections:
            self.refuse(host, "too many connections")
        elif self.shaking[place(host)] >= self.limits.from_one_place:
            self.refuse(host, "too many handshakes from one place")
        else:
            return True
        return False

    def refuse(self, source: str, reason: str, more: Mapping[str, object] | None = None) -> None:
        """Counts and logs somebody who did not become a client's connection; `reason` is one of a few."""
        metrics.CONNECTIONS["refused"] += 1
        if self.log.is_due(("refused", reason)):
            self.log.warning(f"{self.kind} peer refused", source=source, reason=reason, **(more or {}))


class SecuredPeer(ABC):
    """One connection, from its handshake to its end."""

    def __init__(self, server: Secured, host: str, port: int) -> None:
        self._secured = server
        self.source = sockets.endpoint(host, port)
        """Address and port, for the log."""
        self._met = server.tls.digest
        """Of the certificates and lists that it is checked against."""
        self._place = place(host)
        self._is_shaking = True
        server.shaking[self._place] += 1
        self.client: Client | None = None
        """Whose it is: from the end of the handshake to that of the connection."""
        self._certificate: tls.Certificate | None = None
        self._last = time.monotonic()

    def enter(self, certificate: tls.Certificate) -> bool:
        """After the handshake: True if the certificate is a client's."""
        self._settle()
        if self._met != self._secured.tls.digest:
            # Perhaps it is revoked by now.
            self._secured.refuse(self.source, "configuration changed during the handshake")
            return False
        self._certificate = certificate
        if not self.recognise():
            # What somebody needs who wants to let it in.
            more = {"certificate_names": certificate.names, "fingerprint": certificate.fingerprint.hex()}
            self._secured.refuse(self.source, "no client has this certificate", more)
            return False
        metrics.CONNECTIONS["accepted"] += 1
        self._secured.open.add(self)
        self._last = time.monotonic()
        return True

    def recognise(self) -> bool:
        """Looks up whose certificate it is; False if it is no client's."""
        self.client = None if self._certificate is None else self._secured.find(self._certificate)
        return self.client is not None

    def name(self, where: object) -> str:
        """Address and port of the peer."""
        return self.source

    def decline(self, data: bytes, where: Any) -> None:
        """Tells a peer that asks for a change of authorisation that nobody takes that here (RFC 6614 §2.5)."""
        answer = None if self.client is None else unsupported(data, self.client.secret)
        if answer is not None:
            self.send(answer, where)

    @abstractmethod
    def send(self, response: bytes, where: Any) -> None:
        """Sends a response, unless the peer is gone."""

    def leave(self) -> None:
        """It is nobody's any more; may be told more than once."""
        self._settle()
        self.client = None
        self._secured.open.discard(self)

    def close(self, reason: str) -> None:
        """Ends the connection after what was sent, and says why."""
        metrics.CONNECTIONS["closed"] += 1
        client = "" if self.client is None else self.client.name
        log = self._secured.log
        if log.is_due(("closed", reason, client)):
            kind = self._secured.kind
            log.warning(f"{kind} connection closed", source=self.source, client=client, reason=str(reason))
        self.leave()
        self._hang_up()

    def _settle(self) -> None:
        """The handshake is over, one way or another."""
        if self._is_shaking:
            self._is_shaking = False
            shaking = self._secured.shaking
            shaking[self._place] -= 1
            if not shaking[self._place]:
                del shaking[self._place]

    @abstractmethod
    def _hang_up(self) -> None:
        """Takes leave of the peer."""


def place(host: str) -> str:
    """What a numeric address shares with those that one person can have: of IPv6, the first 64 bits."""
    return str(ipaddress.IPv6Network((host.partition("%")[0], 64), strict=False)) if ":" in host else host
