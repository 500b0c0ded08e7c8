"""Wi-Fi, in packets as controllers send them: no address at first, and a walk to another controller's building."""

from tests.lab.demo.stage import Stage
from tests.lab.site import Person

DAVE = Person("dave", "192.0.2.30", "2001:db8:2::30")

_LIVES_ON = 30
"""Bytes that the open connection must still carry after the first controller's Stop: 0.3 s of it."""


def _packet(status: str, controller: int, session: str, *more: str) -> str:
    return ", ".join(
        (
            f"Acct-Status-Type = {status}",
            'User-Name = "dave"',
            f"NAS-IP-Address = 198.18.9.{controller}",
            f'NAS-Identifier = "wlc-{controller}"',
            "NAS-Port-Type = Wireless-802.11",
            f'Acct-Session-Id = "{session}"',
            'Class = "staff"',
            'Calling-Station-Id = "40-e2-30-9a-11-02"',
            *more,
        )
    )


def play(stage: Stage) -> None:
    """Plays it."""
    stage.site.client.run("ip", "address", "add", f"{DAVE.address}/24", "dev", "users")
    dave = stage.seat(DAVE)
    address = f"Framed-IP-Address = {DAVE.address}"
    stage.grant("group:radius.staff")
    stage.accounting("dave's phone joins: the Start names no address", _packet("Start", 1, "w1"))
    stage.refused("dave connects", dave)
    stage.accounting("the controller's update names it", _packet("Interim-Update", 1, "w1", address))
    stage.opens("dave connects: Class says that he is staff", dave, after="update")
    with stage.connection(dave) as live:
        stage.accounting("he walks: another controller's Start, no address", _packet("Start", 2, "w2"))
        stage.accounting("the first controller's Stop", _packet("Stop", 1, "w1", address))
        stage.lives("his open connection", live, bytes_more=_LIVES_ON)
        stage.accounting(
            "a late update of the first one", _packet("Interim-Update", 1, "w1", address, "Acct-Delay-Time = 9")
        )
        stage.who("dave", DAVE.address, nas="wlc-2")
        stage.accounting("he leaves: the second controller's Stop", _packet("Stop", 2, "w2"))
        stage.cut("his open connection", live)
    stage.refused("dave connects", dave)
