"""A VPN before a site: OpenVPN with its RADIUS plugin on a gateway, and laptops that dial in.

    laptop ──── 198.18.1.0/24 ──── gateway ──── 198.18.2.0/24 ──── the site's server
                                   gateway ──── 203.0.113.128/25 ── the site's radius

Laptops get addresses of TUNNEL. The plugin asks the site's FreeRADIUS for the password and sends it accounting.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.netns import Namespace, link
from tests.lab.pki import Authority
from tests.lab.processes import LabError, Part, Process, run
from tests.lab.site import NAS_SECRET, Site, clear
from tests.lab.tcp import MakeSocket

PLUGIN = Path("/usr/lib/openvpn/radiusplugin.so")

TUNNEL = "10.66.8.0/24"
"""Part of the addresses that the site's bridge may bind."""

GATEWAY = "198.18.1.1"
SERVER = "198.18.2.1"
"""The protected host, as laptops see it through the tunnel."""

NAS = "203.0.113.129"
_RADIUS = "203.0.113.130"
_PORT = 1194


class Vpn(Part):
    """A gateway and one laptop of a site that is built; as a context it starts the gateway, and ends everything."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.directory = site.directory / "vpn"
        self.laptop, self.gateway = self.namespaces(site)
        self.server = Process(
            "openvpn",
            ["openvpn", "--config", self.directory / "server.conf"],
            log=site.directory / "openvpn.log",
            namespace=self.gateway.name,
        )
        self.client = Process(
            "openvpn-client",
            ["openvpn", "--config", self.directory / "client.conf"],
            log=site.directory / "openvpn-client.log",
            namespace=self.laptop.name,
        )

    @staticmethod
    def namespaces(site: Site) -> tuple[Namespace, Namespace]:
        """The laptop's and the gateway's."""
        name = site.radius.name.removesuffix("-radius")
        return Namespace(f"{name}-laptop"), Namespace(f"{name}-gateway")

    def begin(self) -> None:
        """Plugs everything in, and starts the VPN's server."""
        self._build()
        self.server.start().wait_log("Initialization Sequence Completed")

    def _build(self) -> None:
        if not PLUGIN.exists():
            raise LabError(f"{PLUGIN} is not there: run script/bootstrap")
        for namespace in (self.laptop, self.gateway):
            namespace.create()
        link(self.laptop, "internet", ("198.18.1.2/24",), self.gateway, "internet", (f"{GATEWAY}/24",))
        link(self.gateway, "inside", ("198.18.2.2/24",), self._site.server, "vpn", (f"{SERVER}/24",))
        link(self.gateway, "radius", (f"{NAS}/25",), self._site.radius, "vpn", (f"{_RADIUS}/25",))
        self.gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._site.server.run("ip", "route", "add", TUNNEL, "via", "198.18.2.2")
        self._write_configuration()

    def _write_configuration(self) -> None:
        self.directory.mkdir(exist_ok=True)
        (self.directory / "ccd").mkdir(exist_ok=True)
        ca = Authority(self.directory)
        gateway = ca.issue("gateway", "gateway.example.org", common="gateway.example.org")
        (self.directory / "server.conf").write_text(
            f"""\
dev tun
local {GATEWAY}
port {_PORT}
topology subnet
server {TUNNEL.removesuffix("/24")} 255.255.255.0
push "route {SERVER} 255.255.255.255"
ca {ca.certificate}
cert {gateway.certificate}
key {gateway.key}
dh none
disable-dco
verify-client-cert none
username-as-common-name
keepalive 2 10
explicit-exit-notify 1
status {self.directory / "status.log"} 1
status-version 1
client-config-dir {self.directory / "ccd"}
plugin {PLUGIN} {self.directory / "radius.conf"}
"""
        )
        radius = self.directory / "radius.conf"
        radius.touch(mode=0o600)
        radius.write_text(
            f"""\
NAS-Identifier=gateway
Service-Type=5
Framed-Protocol=1
NAS-Port-Type=5
NAS-IP-Address={NAS}
OpenVPNConfig={self.directory / "server.conf"}
subnet=255.255.255.0
overwriteccfiles=true
server
{{
	acctport=1813
	authport=1812
	name={_RADIUS}
	retry=2
	wait=2
	sharedsecret={NAS_SECRET.decode()}
}}
"""
        )
        (self.directory / "client.conf").write_text(
            f"""\
client
dev tun
remote {GATEWAY} {_PORT} udp4
nobind
ca {ca.certificate}
verify-x509-name gateway.example.org name
disable-dco
explicit-exit-notify 1
auth-user-pass {self.directory / "login"}
auth-retry none
"""
        )

    def dial(self, user: str, password: str) -> str:
        """Dials in; gives the laptop's address in the tunnel. Raises LabError if it is not let in."""
        login = self.directory / "login"
        login.touch(mode=0o600)
        login.write_text(f"{user}\n{password}\n")
        self.client.start().wait_log("Initialization Sequence Completed")
        address = self.address()
        if not address:
            raise LabError(f"no address in the tunnel\n{self.client.tail()}")
        return address

    def address(self) -> str:
        """The laptop's address in the tunnel; empty if it is not connected."""
        shown = run(["ip", "-4", "-brief", "address", "show", "dev", "tun0"], namespace=self.laptop.name).stdout
        return shown.split()[2].partition("/")[0] if len(shown.split()) > 2 else ""

    def hang_up(self) -> None:
        """The laptop says good-bye; the gateway acts upon it, and sends its Stop, 5 s later."""
        self.client.terminate()

    @property
    def from_laptop(self) -> MakeSocket:
        """Makes TCP sockets on the laptop."""
        return self.laptop.socket

    @contextmanager
    def passed_on(self, address: str) -> Iterator[MakeSocket]:
        """Somebody else has a tunnel's address that is free again: the gateway itself. Makes TCP sockets there."""
        argv = (f"{address}/32", "dev", "lo")
        self.gateway.run("ip", "address", "add", *argv)
        try:
            yield self.gateway.socket
        finally:
            self.gateway.run("ip", "address", "delete", *argv)

    def close(self) -> None:
        """Ends everything; safe to call at any time, and twice."""
        self.client.kill()
        self.server.kill()
        for namespace in (self.laptop, self.gateway):
            clear(namespace)  # OpenVPN's plugin has processes of its own
