"""The main job: a login opens a port for one user's address, and the logout closes it."""

from tests.lab.demo.stage import Stage
from tests.lab.site import ALICE, BOB, NAS, Person


def attributes(person: Person, status: str, session: str, lease: int | None = None) -> str:
    """What the demo's NAS sends, as radclient reads it; `lease` is a Session-Timeout in seconds."""
    written = [
        f'User-Name = "{person.name}"',
        f"Acct-Status-Type = {status}",
        f'Acct-Session-Id = "{session}"',
        f"NAS-IP-Address = {NAS}",
        f"Framed-IP-Address = {person.address}",
        f"Framed-IPv6-Address = {person.address6}",
    ]
    if lease is not None:
        written.append(f"Session-Timeout = {lease}")
    return ", ".join(written)


def play(stage: Stage) -> None:
    """Plays it."""
    alice, bob = stage.seat(ALICE), stage.seat(BOB)
    stage.grant("alice")
    stage.refused("alice connects, not logged in", alice)
    stage.accounting("alice logs in: NAS → FreeRADIUS → bridge", attributes(ALICE, "Start", "a1"))
    stage.opens("alice connects", alice)
    stage.opens("alice connects over IPv6", stage.seat6(ALICE))
    stage.accounting("bob logs in at another address", attributes(BOB, "Start", "b1"))
    stage.who("bob", BOB.address)
    stage.refused("bob connects, whom nobody granted anything", bob)
    with stage.connection(alice) as live:
        stage.accounting("alice logs out, a connection is open", attributes(ALICE, "Stop", "a1"))
        stage.cut("her open connection", live)
    stage.refused("alice connects", alice)
