"""Real DHCP servers and clients, on two hosts with a cable between them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.lab.netns import Namespace, link, unique
from tests.lab.processes import PROJECT, Process, run, wait_until

SERVER, SERVER6 = "192.0.2.1", "2001:db8:1::1"
NETWORKS = ("192.0.2.0/24", "2001:db8::/32")
_KEA_HOOKS = Path("/usr/lib/x86_64-linux-gnu/kea/hooks")

_DECLINE = """\
import socket, sys
mac, address, server = bytes.fromhex(sys.argv[1].replace(":", "")), *map(socket.inet_aton, sys.argv[2:4])
head = bytes([1, 1, 6, 0]) + b"once" + bytes(20) + mac.ljust(16, b"\\0") + bytes(192)
options = {53: b"\\x04", 61: b"\\x01" + mac, 50: address, 54: server}
said = b"".join(bytes([number, len(value)]) + value for number, value in options.items())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"cable")
    sender.bind((sys.argv[2], 68))
    sender.sendto(head + b"\\x63\\x82\\x53\\x63" + said + b"\\xff", ("255.255.255.255", 67))
"""
"""DHCPDECLINE (RFC 2131 §3.1, 4.4.4), which no client can be told to send."""

_CLIENT_SCRIPT = """\
#!/bin/sh
case $1 in bound) ip address replace "$ip/24" dev "$interface" && : >"${0%/*}/bound" ;; esac
"""


class Wire:
    """A server's host, a client's, that of the DHCP server (which may be the server's), and what runs on them.

    Files go to `folder`.
    """

    def __init__(self, server: Namespace, client: Namespace, dhcp: Namespace, folder: Path) -> None:
        self.server = server
        self._dhcp = dhcp
        self.client = client
        self.folder = folder
        self._parts: list[Process] = []
        self._script = folder / "client-script"
        self._script.write_text(_CLIENT_SCRIPT)
        self._script.chmod(0o755)

    @property
    def mac(self) -> str:
        """The client's."""
        shown = json.loads(self.client.run("ip", "-j", "link", "show", "cable").stdout)
        return str(shown[0]["address"])

    def become(self, mac: str) -> None:
        """Another station is plugged in."""
        self.client.run("ip", "link", "set", "cable", "address", mac)

    def run(self, name: str, argv: list[str | Path], ready: str) -> Process:
        """Starts a part on the server's host; it ends with the wire."""
        return self._run(self.server, name, argv, ready)

    def _run(
        self, host: Namespace, name: str, argv: list[str | Path], ready: str, env: Mapping[str, str] | None = None
    ) -> Process:
        part = Process(name, argv, log=self.folder / f"{name}.log", namespace=host.name, env=env)
        self._parts.append(part)
        return part.start().wait_log(ready)

    def kea(
        self,
        version: int = 4,
        *,
        database: Mapping[str, Any] | None = None,
        hooks: str = "",
        lifetime: int = 600,
        subnet: str = "192.0.2.0/24",
        addresses: str = "192.0.2.100/32",
    ) -> Process:
        """Kea: its leases of `lifetime` seconds in `kea-leases<version>.csv`, its control socket `kea<version>.sock`.

        `database` changes where leases are, `hooks` is a script for run_script; lease_cmds is loaded always. Of
        `addresses` there is one, if not told otherwise: the next station gets what the one before gave back.
        """
        libraries: list[dict[str, Any]] = [{"library": str(_KEA_HOOKS / "libdhcp_lease_cmds.so")}]
        if hooks:
            parameters = {"name": hooks, "sync": False}
            libraries.append({"library": str(_KEA_HOOKS / "libdhcp_run_script.so"), "parameters": parameters})
        file = self.folder / f"kea-leases{version}.csv"
        configuration: dict[str, Any] = {
            "interfaces-config": {"interfaces": ["cable"]},
            "control-socket": {"socket-type": "unix", "socket-name": str(self.folder / f"kea{version}.sock")},
            "lease-database": {"type": "memfile", "name": str(file), "lfc-interval": 0, **(database or {})},
            "valid-lifetime": lifetime,
            "hooks-libraries": libraries,
            "loggers": [{"name": "*", "severity": "INFO", "output_options": [{"output": "stdout"}]}],
        }
        if version == 4:
            configuration["subnet4"] = [{"subnet": subnet, "pools": [{"pool": addresses}]}]
        else:
            configuration["preferred-lifetime"] = lifetime // 2
            configuration["server-id"] = {"type": "LL", "persist": False}
            delegated = {"prefix": "2001:db8:100::", "prefix-len": 40, "delegated-len": 56}
            pool = {"pool": "2001:db8:1::100 - 2001:db8:1::120"}
            configuration["subnet6"] = [
                {"subnet": "2001:db8:1::/64", "interface": "cable", "pools": [pool], "pd-pools": [delegated]}
            ]
        path = self.folder / f"kea{version}.json"
        path.write_text(json.dumps({f"Dhcp{version}": configuration}))
        places = {name: str(self.folder) for name in ("KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR")}
        places["KEA_LOGGER_DESTINATION"] = "stdout"
        return self._run(
            self._dhcp, f"kea{version}", [f"kea-dhcp{version}", "-c", path], f"DHCP{version}_STARTED", places
        )

    def dnsmasq(self, *more: str) -> Process:
        """dnsmasq: its leases in `dnsmasq.leases`."""
        ranges = ("192.0.2.100,192.0.2.120,10m", "2001:db8:1::100,2001:db8:1::120,10m")
        argv: list[str | Path] = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"]
        argv += ["--interface=cable", "--bind-interfaces", "--no-ping", "--log-facility=-", "--pid-file="]
        argv += [f"--dhcp-leasefile={self.folder / 'dnsmasq.leases'}", *(f"--dhcp-range={each}" for each in ranges)]
        return self._run(self._dhcp, "dnsmasq", [*argv, *more], "DHCPv6, IP range")

    def dhcpd(self, include: Path) -> Process:
        """ISC dhcpd with a file that it includes."""
        leases, path = self.folder / "dhcpd.leases", self.folder / "dhcpd.conf"
        leases.touch()
        path.write_text(
            f'include "{include}";\ndefault-lease-time 600;\nping-check false;\n'
            "subnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.100 192.0.2.120; }\n"
        )
        argv: list[str | Path] = ["dhcpd", "-f", "-d", "-cf", path, "-lf", leases, "--no-pid", "cable"]
        return self._run(self._dhcp, "dhcpd", argv, "Server starting service")

    def ask(self) -> str:
        """A client asks for an IPv4 address, and uses it; gives the address."""
        self.client.run("ip", "-4", "address", "flush", "dev", "cable")
        self.client.run(*self._udhcpc("-n", "-q"))
        shown = json.loads(self.client.run("ip", "-j", "-4", "address", "show", "cable").stdout)
        return str(shown[0]["addr_info"][0]["local"])

    def release(self) -> None:
        """The client asks again, and gives the address back."""
        bound = self.folder / "bound"
        bound.unlink(missing_ok=True)
        with self.client.popen(*self._udhcpc("-R")) as client:
            wait_until(bound.exists, "the client to have its lease")
            client.terminate()
            client.communicate(timeout=10)

    def decline(self, address: str) -> None:
        """The client says that somebody else has the address that it was given."""
        self.client.run(sys.executable, "-c", _DECLINE, self.mac, address, SERVER)

    def _udhcpc(self, *options: str) -> list[str | Path]:
        """The client's command: five attempts, a second apart."""
        return ["udhcpc", "-f", *options, "-i", "cable", "-s", self._script, "-t", "5", "-T", "1", "-A", "1"]

    def ask6(self) -> None:
        """A client asks for an IPv6 address and a prefix, with a DUID made of its MAC."""
        self._dhclient("-1", "-N", "-P", "-D", "LL")

    def release6(self) -> None:
        """It gives both back."""
        self._dhclient("-r", "-N", "-P")

    def _dhclient(self, *argv: str) -> subprocess.CompletedProcess[str]:
        files: list[str | Path] = ["-lf", self.folder / "dhclient6.leases", "-pf", self.folder / "dhclient6.pid"]
        return self.client.run("dhclient", "-6", *argv, "-sf", "/bin/true", *files, "cable")

    def hooks(self, url: str, token: str) -> Path:
        """Copies config/hooks, for a bridge at `url`; gives the directory. Their spool is `spool` in it."""
        hooks = self.folder / "hooks"
        shutil.copytree(PROJECT / "config/hooks", hooks)
        (hooks / "spool").mkdir()
        token_file = hooks / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token + "\n")
        (hooks / "lease-hook.conf").write_text(f"url={url}\ntoken_file={token_file}\nspool={hooks / 'spool'}\n")
        included = hooks / "dhcpd.conf"
        included.write_text(included.read_text().replace("/etc/radius-bridge/hooks", str(hooks)))
        return hooks

    def close(self) -> None:
        """Ends every part, and what hooks left running."""
        for part in reversed(self._parts):
            part.kill()
        for namespace in (self.client, self._dhcp, self.server):
            for pid in run(["ip", "netns", "pids", namespace.name]).stdout.split():
                os.kill(int(pid), 9)


@contextmanager
def wire(folder: Path, *, apart: bool = False) -> Iterator[Wire]:
    """Two hosts; they and what runs on them end with the context.

    With `apart` the DHCP server has a host of its own on the same cable: hostapd wants the server's port 67.
    """
    with unique("rb-dhcp", "server") as server, unique("rb-dhcp", "client") as client, ExitStack() as stack:
        addresses = [f"{SERVER}/24", f"{SERVER6}/64"]
        link(server, "cable", [] if apart else addresses, client, "cable", [])
        dhcp = server
        if apart:
            dhcp = stack.enter_context(unique("rb-dhcp", "dhcp"))
            macvlan = ["type", "macvlan", "mode", "bridge"]
            server.run("ip", "link", "add", "link", "cable", "name", "tap", "netns", dhcp.name, *macvlan)
            dhcp.run("ip", "link", "set", "tap", "name", "cable")
            for address in addresses:
                dhcp.run("ip", "address", "add", address, "dev", "cable", *(["nodad"] if ":" in address else []))
            dhcp.run("ip", "link", "set", "cable", "up")
        made = Wire(server, client, dhcp, folder)
        try:
            yield made
        finally:
            made.close()
