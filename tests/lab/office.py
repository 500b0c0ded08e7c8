"""An office before a site: a desk with a cable to a switch's port that asks for 802.1X, and a DHCP server (Kea).

    desk ──── cable ──── switch ──┬── 10.66.16.0/24 ──── dhcp
                                  ├── 10.66.16.0/24 ──── the site's server
                                  └── 203.0.113.64/26 ── the site's radius

The switch has an authentication server of its own and sends accounting to the site's FreeRADIUS, without an address;
the site's bridge reads Kea's leases, if `lease_source` is in its configuration.
"""

from pathlib import Path

from tests.lab.dhcp import Wire
from tests.lab.dot1x import NAME, Method, Port, Supplicant
from tests.lab.netns import Namespace, link
from tests.lab.pki import Authority
from tests.lab.processes import Part, wait_until
from tests.lab.site import NAS_SECRET, Site

NETWORK = "10.66.16.0/24"
"""Part of the addresses that the site's bridge may bind."""

SERVER = "10.66.16.1"
"""The protected host, as the office sees it."""

PORT = NAME
"""The NAS-Identifier of the switch's port."""

LEASE = 8
"""Seconds of a lease: nothing else notices an unplugged cable."""

_SWITCH, _RADIUS = "203.0.113.65", "203.0.113.66"
_LAPTOP = "02:00:00:00:00:10"


def lease_source(directory: Path) -> str:
    """What the bridge of a site in `directory` needs in its configuration."""
    return f"""
[[lease]]
name = "office"
type = "kea"
path = "{_folder(directory) / "kea-leases4.csv"}"
networks = ["{NETWORK}"]
"""


def _folder(directory: Path) -> Path:
    folder = directory / "office"
    folder.mkdir(exist_ok=True)
    return folder


class Office(Part):
    """One desk of a site that is built, for one `user`; as a context it starts the office, and ends everything."""

    def __init__(self, site: Site, *, user: str, password: str) -> None:
        self._site = site
        self._user, self._password = user, password
        self.address = ""
        """The laptop's, once it has asked for one."""
        self.desk, self._switch, self._dhcp = self.namespaces(site)
        folder = _folder(site.directory)
        ca = Authority(folder)
        self._wire = Wire(self._switch, self.desk, self._dhcp, folder)
        self._port = Port(
            self._switch,
            "cable",
            folder,
            server=ca.issue("radius", "radius.example.org"),
            ca=ca.certificate,
            user=user,
            password=password,
            accounting=(_RADIUS, NAS_SECRET.decode()),
        )
        self._supplicant = Supplicant(self.desk, "cable", folder, ca.certificate)

    @staticmethod
    def namespaces(site: Site) -> tuple[Namespace, Namespace, Namespace]:
        """The desk's, the switch's and the DHCP server's."""
        name = site.radius.name.removesuffix("-radius")
        return Namespace(f"{name}-desk"), Namespace(f"{name}-switch"), Namespace(f"{name}-dhcp")

    def begin(self) -> None:
        """Plugs everything in, and starts the DHCP server and the switch's port."""
        self._build()
        self._wire.kea(lifetime=LEASE, subnet=NETWORK, addresses="10.66.16.100 - 10.66.16.120")
        self._port.start()

    def _build(self) -> None:
        for namespace in (self.desk, self._switch, self._dhcp):
            namespace.create()
        link(self._switch, "cable", (), self.desk, "cable", ())
        link(self._switch, "radius", (f"{_SWITCH}/26",), self._site.radius, "office", (f"{_RADIUS}/26",))
        # hostapd wants the port's DHCP port for itself, so nothing else of the office is in its namespace.
        for namespace, interface, address in (
            (self._dhcp, "cable", "10.66.16.2"),
            (self._site.server, "office", SERVER),
        ):
            macvlan = ["type", "macvlan", "mode", "bridge"]
            self._switch.run("ip", "link", "add", "link", "cable", "name", "tap", "netns", namespace.name, *macvlan)
            namespace.run("ip", "link", "set", "tap", "name", interface)
            namespace.run("ip", "address", "add", f"{address}/24", "dev", interface)
            namespace.run("ip", "link", "set", interface, "up")

    def log_on(self, method: Method) -> None:
        """802.1X. Raises LabError if the switch does not let the user in."""
        self._supplicant.log_on(self._user, self._password, method)

    def log_off(self) -> None:
        """The laptop says good-bye."""
        self._supplicant.log_off()

    def ask(self) -> str:
        """The laptop asks for an address and uses it; gives the address."""
        self.address = self._wire.ask()
        return self.address

    def another_laptop(self) -> None:
        """A machine with another MAC address is at the desk now."""
        self._wire.become(_LAPTOP)

    def unplug(self) -> None:
        """The cable is pulled; nobody says anything."""
        self._supplicant.close()
        self.desk.run("ip", "link", "set", "cable", "down")

    def squat(self, address: str) -> None:
        """Somebody else plugs in and takes an address without asking; this switch's port does not stop him."""
        self.desk.run("ip", "link", "set", "cable", "up")
        self.desk.run("ip", "address", "replace", f"{address}/24", "dev", "cable")
        wait_until(lambda: "state UP" in self.desk.run("ip", "link", "show", "cable").stdout, "the cable")

    def close(self) -> None:
        """Ends everything; safe to call at any time, and twice."""
        self._supplicant.close()
        self._port.close()
        self._wire.close()
        for namespace in (self.desk, self._switch, self._dhcp):
            namespace.delete()
