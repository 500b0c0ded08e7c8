"""IEEE 802.1X on a cable: hostapd as the switch's port, FreeRADIUS behind it, wpa_supplicant as the user's machine.

hostapd tells who is there and accounts for him, but blocks nothing on a cable: who has not logged in could still talk.
"""

from pathlib import Path
from typing import Final, Literal

from tests.lab import freeradius
from tests.lab.netns import Namespace
from tests.lab.pki import Identity
from tests.lab.processes import Process, run, wait_until

SECRET: Final = "a secret of the port"

NAME: Final = "port-1"
"""The port's NAS-Identifier."""

Method = Literal["TTLS", "PEAP"]
_INSIDE: Final = {"TTLS": "auth=PAP", "PEAP": "auth=MSCHAPV2"}


class Port:
    """A switch's port (hostapd) and its authentication server (FreeRADIUS, config/freeradius/eap.conf).

    It authenticates `user` only, and sends accounting to port 1813 of `accounting` (address and secret).
    """

    def __init__(
        self,
        namespace: Namespace,
        interface: str,
        folder: Path,
        *,
        server: Identity,
        ca: Path,
        user: str,
        password: str,
        interim: int = 0,
        accounting: tuple[str, str] = ("127.0.0.1", SECRET),
    ) -> None:
        """`server` is the certificate of the authentication server; `interim` is in seconds, 0 for none."""
        self._namespace = namespace
        configuration = folder / "hostapd.conf"
        configuration.write_text(
            f"""\
interface={interface}
driver=wired
logger_stdout=-1
ctrl_interface={folder / "hostapd"}
ieee8021x=1
eap_reauth_period=0
own_ip_addr=127.0.0.1
nas_identifier={NAME}
auth_server_addr=127.0.0.1
auth_server_port=1812
auth_server_shared_secret={SECRET}
acct_server_addr={accounting[0]}
acct_server_port=1813
acct_server_shared_secret={accounting[1]}
radius_acct_interim_interval={interim}
"""
        )
        self.hostapd = Process(
            "hostapd", ["hostapd", configuration], log=folder / "hostapd.log", namespace=namespace.name
        )
        run_folder = folder / "eap"
        run_folder.mkdir()
        self.freeradius = freeradius.forwarder(
            namespace=namespace.name,
            directory=run_folder,
            bridge=("", 0),
            bridge_secret="",
            nas_networks=("127.0.0.0/8", "::1/128"),
            nas_secret=SECRET,
            configuration="eap",
            more={
                "EAP_CERTIFICATE": server.certificate,
                "EAP_KEY": server.key,
                "EAP_CA": ca,
                "EAP_USER": user,
                "EAP_PASSWORD": password,
            },
        )

    def start(self) -> None:
        """Starts both; gives back when somebody can plug in."""
        self.freeradius.start()
        self.hostapd.start().wait_log("AP-ENABLED")
        self.freeradius.wait_log(freeradius.READY)

    def close(self) -> None:
        """Ends both, without a word to anybody."""
        self.hostapd.kill()
        self.freeradius.kill()


class Supplicant:
    """The user's machine."""

    def __init__(self, namespace: Namespace, interface: str, folder: Path, ca: Path) -> None:
        self._namespace = namespace
        self._interface = interface
        self._folder = folder
        self._ca = ca
        self._configuration = folder / "wpa_supplicant.conf"
        argv: list[str | Path] = ["wpa_supplicant", "-D", "wired", "-i", interface, "-c", self._configuration]
        self.process = Process("wpa_supplicant", argv, log=folder / "supplicant.log", namespace=namespace.name)

    def log_on(self, user: str, password: str, method: Method = "TTLS") -> None:
        """Logs in; all that can be seen outside the tunnel is `anonymous`. Raises LabError if it does not work.

        It takes 2 s, which wpa_supplicant gives the port to speak first. After a log-off hostapd does not listen to
        the same MAC address for 5 s; who comes sooner is heard at his second attempt, 30 s later.
        """
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(
            f"""\
ctrl_interface={self._folder / "supplicant"}
ap_scan=0
network={{
    key_mgmt=IEEE8021X
    eap={method}
    identity="{user}"
    anonymous_identity="anonymous"
    password="{password}"
    phase2="{_INSIDE[method]}"
    ca_cert="{self._ca}"
    eapol_flags=0
}}
"""
        )
        self.process.start().wait_log("CTRL-EVENT-CONNECTED", timeout=45)

    def log_off(self) -> None:
        """Says good-bye (EAPOL-Logoff), and ends."""
        self._tell("logoff")
        self.process.terminate()

    def close(self) -> None:
        """Ends without a word."""
        self.process.kill()

    def _tell(self, command: str) -> None:
        argv: list[str | Path] = ["wpa_cli", "-p", self._folder / "supplicant", "-i", self._interface, command]
        wait_until(lambda: "OK" in run(argv, namespace=self._namespace.name).stdout, f"wpa_cli {command}")
