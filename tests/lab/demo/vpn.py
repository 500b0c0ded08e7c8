"""From home: OpenVPN asks FreeRADIUS for the password, and accounts for the tunnel."""

from tests.lab.demo.stage import LOGIN, Seat, Stage
from tests.lab.openvpn import SERVER, Vpn
from tests.lab.processes import wait_until


def play(stage: Stage) -> None:
    """Plays it."""
    name = LOGIN.user.lower()
    with Vpn(stage.site) as vpn:
        stage.grant("group:radius.vpn")
        stage.timed(f"{name} dials in: OpenVPN → FreeRADIUS", "a tunnel", lambda: vpn.dial(LOGIN.user, LOGIN.password))
        laptop = Seat(vpn.from_laptop, vpn.address(), SERVER)
        stage.opens(f"{name} connects: her gateway puts her into radius.vpn", laptop, after="dialling in")
        stage.who(name, laptop.address, nas="gateway")
        stage.timed(f"{name} hangs up: the gateway waits for her a while", "gone", lambda: _gone(stage, vpn, name))
        with vpn.passed_on(laptop.address) as sockets:
            stage.refused("whoever has her tunnel's address next connects", Seat(sockets, laptop.address, SERVER))


def _gone(stage: Stage, vpn: Vpn, name: str) -> str:
    vpn.hang_up()
    wait_until(lambda: not stage.rows(name), "the gateway's Stop", timeout=20, every=0.2)
    return "gone"
