"""The stories, in the order in which they are told."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.demo import dead, dot1x, login, vpn, wifi
from tests.lab.demo.stage import Stage


@dataclass(frozen=True)
class Story:
    """One of them; `play` raises NotAsExpected, LabError or OSError at the first step that goes wrong."""

    name: str
    heading: str
    play: Callable[[Stage], None]


STORIES = (
    Story("login", "A login opens a port for one user's address, a logout closes it", login.play),
    Story("dot1x", "In the office: 802.1X (wpa_supplicant, hostapd, FreeRADIUS), address from Kea", dot1x.play),
    Story("vpn", "From home: OpenVPN with its RADIUS plugin; the right comes from a RADIUS attribute", vpn.play),
    Story("wifi", "Wi-Fi: what two controllers send while somebody walks from one to the other", wifi.play),
    Story("dead", "Everything but the kernel is dead, and the login's time runs out", dead.play),
)
"""After the last one nothing works any more."""
