"""In the office: 802.1X on the cable says who is there, DHCP says where, and a silent leave costs one lease."""

import time
from typing import Any

from tests.lab.demo.show import NotAsExpected, Seen
from tests.lab.demo.stage import Seat, Stage
from tests.lab.dot1x import Method
from tests.lab.office import LEASE, PORT, SERVER, Office
from tests.lab.processes import wait_until

_SEES_LEASES = 2.0
"""Seconds within which a lease opens: the bridge looks at Kea's file twice a second."""


def play(stage: Stage) -> None:
    """Plays it."""
    with Office(stage.site, user="alice", password="a password") as office:
        stage.grant("alice")
        stage.timed("alice plugs in, 802.1X: EAP-TTLS, anonymous outside", "let in", lambda: _log_on(office, "TTLS"))
        stage.who("alice", "", nas=PORT)
        stage.timed("her laptop asks Kea for an address", "a lease", office.ask)
        desk = Seat(office.desk.socket, office.address, SERVER)
        stage.opens("alice connects", desk, after="the lease", within=_SEES_LEASES)
        with stage.connection(desk) as live:
            stage.timed("she logs off (EAPOL-Logoff), a connection is open", "logged off", lambda: _log_off(office))
            stage.cut("her open connection", live)
        stage.refused("alice connects", desk)
        office.another_laptop()
        stage.timed("her other laptop, 802.1X: PEAP, anonymous outside", "let in", lambda: _log_on(office, "PEAP"))
        stage.timed(f"it asks Kea for an address; leases last {LEASE} s", "a lease", office.ask)
        leased = stage.said
        desk = Seat(office.desk.socket, office.address, SERVER)
        stage.opens("alice connects", desk, after="the lease", within=_SEES_LEASES)
        stage.timed("the cable is pulled: nobody says good-bye", "silence", lambda: _unplug(office))
        stage.show.step(
            "nobody is behind her address once the lease is over", "nobody", lambda: _over(stage, desk.address, leased)
        )
        office.squat(desk.address)
        stage.refused("whoever takes her address now connects", desk)


def _log_on(office: Office, method: Method) -> str:
    office.log_on(method)
    return "let in"


def _log_off(office: Office) -> str:
    office.log_off()
    return "logged off"


def _unplug(office: Office) -> str:
    office.unplug()
    return "silence"


def _over(stage: Stage, address: str, leased: float) -> Seen:
    def rows() -> list[dict[str, Any]]:
        return [row for row in stage.rows("alice") if row["address"] == address]

    there = rows()
    if not there and time.monotonic() < leased + LEASE - 2:
        raise NotAsExpected("over as soon as the cable was pulled")
    ends = time.time() - time.monotonic() + leased + LEASE
    if any(row["expires"] > ends + 1 for row in there):
        raise NotAsExpected(f"until {there[0]['expires'] - ends:.1f} s after the lease")
    wait_until(lambda: not rows(), "the end of the lease", timeout=LEASE + 5, every=0.1)
    return "nobody", time.monotonic() - leased
