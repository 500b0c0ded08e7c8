"""py-consul's client, over a connection pool of ours."""

import ssl
from typing import Final
from urllib.parse import urlsplit

from radius_bridge import lean
from radius_bridge.registry.settings import ConsulSettings

with lean.without_certificates():  # those of aiohttp's own context; ours are made with the client
    import aiohttp
with lean.without("consul.std"):  # the client for threads, and requests with it
    from consul import aio, base
    from consul.exceptions import ACLPermissionDenied, ConsulException, NotFound

__all__ = ["TIMEOUT", "TRY_TIMEOUT", "ACLPermissionDenied", "Client", "ConsulException", "NotFound", "aiohttp", "base"]

TIMEOUT: Final = 5.0
"""Seconds for a request that does not wait for anything."""

TRY_TIMEOUT: Final = 2.0
"""Seconds for a request that a login waits for, and that is made again if it fails.

A server that hangs answers nobody: not who has asked it, nor who asks again, until Consul has found out. Others have
elected a leader within about two seconds, and only who asks anew meets it. A Consul that is merely slow loses nothing:
who asks again reads first, and finds what was committed meanwhile.
"""

_CONNECTIONS: Final = 64
"""Lanes and long polls stay far below it, and it below Consul's 200 connections per client address."""


class Transport(aio.HTTPClient):  # type: ignore[misc]  # py-consul publishes no types
    """py-consul's transport over a pool of ours: its own is made in ways that aiohttp has deprecated."""

    def __init__(self, host: str, port: int, scheme: str, context: ssl.SSLContext | None) -> None:
        base.HTTPClient.__init__(self, host, port, scheme)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=True if context is None else context),
            # Consul is next door: compressing a large answer costs more than sending it.
            headers={"Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        )


class Client(aio.Consul):  # type: ignore[misc]  # py-consul publishes no types
    def __init__(self, settings: ConsulSettings) -> None:
        url = urlsplit(settings.url)
        self._context, token = settings.tls(), settings.read_token()  # before there is something to close
        port = url.port or (443 if url.scheme == "https" else 80)
        super().__init__(url.hostname, port, scheme=url.scheme, verify=True, dc=settings.datacenter)
        self.token = token  # py-consul would prefer CONSUL_HTTP_TOKEN to what the file says

    def http_connect(self, host: str, port: int, scheme: str, verify: bool, cert: None) -> Transport:
        return Transport(f"[{host}]" if ":" in host else host, port, scheme, self._context)
