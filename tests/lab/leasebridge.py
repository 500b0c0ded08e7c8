"""A bridge that learns addresses from a DHCP server's leases."""

import json

from tests.lab.consul import ConsulServer
from tests.lab.dhcp import Wire
from tests.lab.freeradius import radclient
from tests.lab.processes import BIN, Process, run
from tests.lab.site import write_secret

SECRET = "a secret of the lab"


class Bridge:
    """A bridge with its Consul on the DHCP server's host, which reads Kea's lease file."""

    def __init__(self, net: Wire, consul: ConsulServer, secret: str = SECRET, port: int = 1813) -> None:
        """It takes accounting on `port` of 127.0.0.1."""
        self._net = net
        self._consul = consul
        self._secret_file = net.folder / "secret"
        write_secret(self._secret_file, secret.encode())
        path = net.folder / "bridge.toml"
        path.write_text(
            f"""\
[consul]
url = "{consul.url}"
[radius]
listen = ["127.0.0.1:{port}"]
[[client]]
name = "switch"
address = "127.0.0.1"
secret_file = "{self._secret_file}"
networks = ["192.0.2.0/24"]
[[lease]]
name = "kea"
type = "kea"
path = "{net.folder / "kea-leases4.csv"}"
networks = ["192.0.2.0/24"]
"""
        )
        self.process: Process = net.run("bridge", [BIN / "radius-bridge", "serve", "-c", path], "listening")

    def accounting(self, status: str, user: str = "alice") -> None:
        """The switch tells of the port that the client is plugged in; it knows no address."""
        mac = self._net.mac.replace(":", "-").upper()
        attributes = [f'User-Name = "{user}"', f"Acct-Status-Type = {status}", f'Acct-Session-Id = "{user}-{mac}"']
        attributes += [f'Calling-Station-Id = "{mac}"', "NAS-IP-Address = 127.0.0.1"]
        namespace = self._net.server.name
        answer = radclient(
            ", ".join(attributes), namespace=namespace, server="127.0.0.1", secret_file=self._secret_file
        )
        assert answer.acknowledged, answer.output

    def users(self) -> dict[str, str]:
        """Who is behind which address; sessions without one are left out."""
        shown = run(
            [BIN / "radius-bridge", "who", "--json"],
            namespace=self._net.server.name,
            env={"CONSUL_HTTP_ADDR": self._consul.url},
        )
        return {entry["address"]: entry["user"] for entry in json.loads(shown.stdout) if entry["address"]}
