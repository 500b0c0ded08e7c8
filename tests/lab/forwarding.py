"""A bridge with a Consul of its own on a host of its own, and what stands before it: FreeRADIUS, radsecproxy, a NAS."""

import json
from pathlib import Path
from typing import Any

from tests.lab import freeradius
from tests.lab.consul import ConsulServer
from tests.lab.freeradius import Answer, radclient
from tests.lab.netns import Namespace
from tests.lab.pki import Authority, Identity
from tests.lab.processes import BIN, Process, run
from tests.lab.site import write_secret

SECRET = "a secret of the lab"
BRIDGE_PORT = 11813
RADSEC_PORT = 12083


class Host:
    """Consul and a bridge that listens on UDP and RadSec, and what a test puts before it; all on 127.0.0.1."""

    def __init__(self, namespace: Namespace, consul: ConsulServer, folder: Path) -> None:
        self.namespace = namespace
        self.consul = consul
        self.folder = folder
        self.secret_file = folder / "secret"
        write_secret(self.secret_file, SECRET.encode())
        self.ca = Authority(folder)
        self.bridges = self.ca.issue("bridge", "bridge.example.org")
        self.proxys = self.ca.issue("proxy", "proxy.example.org")
        self.bridge = Process(
            "bridge",
            [BIN / "radius-bridge", "serve", "-c", self._configuration()],
            log=folder / "bridge.log",
            namespace=namespace.name,
        )
        self._parts = [self.bridge]

    def _configuration(self) -> Path:
        path = self.folder / "bridge.toml"
        path.write_text(
            f"""\
[consul]
url = "{self.consul.url}"
[radius]
listen = ["127.0.0.1:{BRIDGE_PORT}"]
[radsec]
listen = ["127.0.0.1:{RADSEC_PORT}"]
dtls_listen = ["127.0.0.1:{RADSEC_PORT}"]
certificate_file = "{self.bridges.certificate}"
key_file = "{self.bridges.key}"
ca_file = "{self.ca.certificate}"
crl_file = "{self.ca.crl}"
[[client]]
name = "udp"
address = "127.0.0.1"
secret_file = "{self.secret_file}"
networks = ["10.0.0.0/8"]
[[client]]
name = "radsec"
certificate_name = "proxy.example.org"
networks = ["10.0.0.0/8"]
"""
        )
        return path

    def freeradius(self, configuration: str) -> Process:
        """FreeRADIUS with one of the files in config/freeradius, running."""
        part = freeradius.forwarder(
            namespace=self.namespace.name,
            directory=self.folder,
            bridge=("127.0.0.1", BRIDGE_PORT),
            bridge_secret=SECRET,
            nas_networks=("127.0.0.0/8", "::1/128"),
            nas_secret=SECRET,
            configuration=configuration,
            more={
                "RADIUS_BRIDGE_RADSEC_PORT": str(RADSEC_PORT),
                "RADIUS_BRIDGE_CERTIFICATE": self.proxys.certificate,
                "RADIUS_BRIDGE_KEY": self.proxys.key,
                "RADIUS_BRIDGE_CA": self.ca.certificate,
                "EAP_CERTIFICATE": self.bridges.certificate,
                "EAP_KEY": self.bridges.key,
                "EAP_CA": self.ca.certificate,
                "EAP_USER": "alice",
                "EAP_PASSWORD": "a password",
            },
        )
        return self.run(part, freeradius.READY)

    def run(self, part: Process, ready: str) -> Process:
        """Starts a part that ends with the test."""
        self._parts.append(part)
        return part.start().wait_log(ready)

    def radsecproxy(self, identity: Identity, kind: str = "tls") -> Process:
        """radsecproxy that takes accounting on port 1813 and passes it on by `tls` or `dtls` as `identity`."""
        path = self.folder / "radsecproxy.conf"
        path.write_text(
            f"""\
ListenUDP 127.0.0.1:1813
LogLevel 2
tls bridge {{
    CACertificateFile {self.ca.certificate}
    CertificateFile {identity.certificate}
    CertificateKeyFile {identity.key}
}}
client nas {{
    host 127.0.0.1
    type udp
    secret "{SECRET}"
}}
server bridge {{
    host 127.0.0.1
    port {RADSEC_PORT}
    type {kind}
    tls bridge
    secret {"radsec" if kind == "tls" else "radius/dtls"}
    certificateNameCheck off
    statusServer on
}}
realm * {{
    server bridge
    accountingServer bridge
}}
"""
        )
        argv: list[str | Path] = ["radsecproxy", "-f", "-c", path]
        part = Process("radsecproxy", argv, log=self.folder / "radsecproxy.log", namespace=self.namespace.name)
        return self.run(part, "listening for udp")

    def nas(self, status: str, user: str, address: str, *more: str, timeout: float = 3.0, retries: int = 1) -> Answer:
        """A NAS on this host sends accounting to port 1813."""
        attributes = [
            f'User-Name = "{user}"',
            f"Acct-Status-Type = {status}",
            f'Acct-Session-Id = "{user}-{address}"',
            f"Framed-IP-Address = {address}",
            *more,
        ]
        return radclient(
            ", ".join(attributes),
            namespace=self.namespace.name,
            server="127.0.0.1",
            secret_file=self.secret_file,
            timeout=timeout,
            retries=retries,
        )

    def users(self, timeout: float = 20.0) -> dict[str, dict[str, Any]]:
        """What the bridge has recorded, by address."""
        shown = run(
            [BIN / "radius-bridge", "who", "--json"],
            namespace=self.namespace.name,
            env={"CONSUL_HTTP_ADDR": self.consul.url},
            timeout=timeout,
        )
        return {entry["address"]: entry for entry in json.loads(shown.stdout)}

    def user(self, address: str) -> str:
        """Who is behind an address; empty if nobody is."""
        return str(self.users().get(address, {}).get("user", ""))

    def close(self) -> None:
        """Ends every part."""
        for part in reversed(self._parts):
            part.kill()
