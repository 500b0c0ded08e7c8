"""What the stories share: the site that they play on, and what its people do there."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.lab.demo.show import NotAsExpected, Seen, Show
from tests.lab.office import lease_source
from tests.lab.processes import wait_until
from tests.lab.site import SERVER, SERVER6, SERVICE, SERVICE_PORT, Login, Person, Site
from tests.lab.tcp import End, MakeSocket, Outcome, connect, knock

LOGIN: Final = Login("Carol", "correct horse")
"""Whose password the site's FreeRADIUS knows: for the VPN."""

_GROUPS: Final = """
[[group]]
group = "radius.vpn"
attribute = "NAS-Identifier"
value = "gateway"

[[group]]
group = "radius.staff"
attribute = "Class"
value = "staff"
"""

FELT_AT_ONCE: Final = 0.1
"""Seconds within which a refusal must be felt."""

SOON: Final = 1.0
"""Seconds within which a login opens and a logout cuts."""


def configuration(directory: Path) -> str:
    """What the bridge of the stories' site needs in its configuration besides clients."""
    return _GROUPS + lease_source(directory)


@dataclass(frozen=True)
class Seat:
    """Where somebody sits, and where the service is from there."""

    sockets: MakeSocket
    address: str
    server: str
    port: int = SERVICE_PORT


class Stage:
    """A running site, the show of it, and when something was last said that must have its effect (monotonic).

    `patience` is by how much the limits of time are longer than the demo's: for tests on a machine that does much else.
    """

    def __init__(self, site: Site, show: Show, *, patience: float = 1.0) -> None:
        self.site = site
        self._patience = patience
        self.show = show
        self.said = 0.0
        self._granted: set[str] = set()

    def seat(self, person: Person) -> Seat:
        """In the client namespace, by IPv4."""
        return Seat(self.site.from_client, person.address, SERVER)

    def seat6(self, person: Person) -> Seat:
        """In the client namespace, by IPv6."""
        return Seat(self.site.from_client, person.address6, SERVER6)

    def grant(self, who: str) -> None:
        """Step: an engineer grants it, unless a story before did."""
        if who in self._granted:
            return
        self._granted.add(who)

        def act() -> Seen:
            began = time.monotonic()
            self.site.engineer("grant", who, SERVICE)
            return "granted", time.monotonic() - began

        self.show.step(f"engineer: radius-bridge grant {who} {SERVICE}", "granted", act)

    def accounting(self, what: str, attributes: str) -> None:
        """Step: a NAS sends a packet to FreeRADIUS, which passes it on to the bridge."""

        def act() -> Seen:
            answer = self.site.nas(attributes)
            self.said = time.monotonic()
            if not answer.acknowledged:
                raise NotAsExpected(f"no answer for {answer.seconds:.0f} s")
            return "answered", answer.seconds

        self.show.step(what, "answered", act)

    def refused(self, what: str, seat: Seat) -> None:
        """Step: the service is closed to who sits there, and he feels it at once."""
        limit = FELT_AT_ONCE * self._patience

        def act() -> Seen:
            attempt = knock(seat.sockets, seat.address, (seat.server, seat.port))
            if attempt.outcome is not Outcome.REFUSED or attempt.seconds > limit:
                raise NotAsExpected(f"{attempt.outcome} after {attempt.seconds * 1000:.0f} ms")
            return "refused (reset)", attempt.seconds

        self.show.step(what, f"refused, < {limit * 1000:.0f} ms", act)

    def opens(self, what: str, seat: Seat, *, after: str = "login", within: float = SOON) -> None:
        """Step: the service is open to who sits there within so many seconds of what was last said."""
        within *= self._patience

        def act() -> Seen:
            tries = 0
            while True:
                attempt = knock(seat.sockets, seat.address, (seat.server, seat.port))
                tries += 1
                took = attempt.at - self.said
                if attempt.outcome is Outcome.OPEN and took < within:
                    return "open", took
                if took >= within:
                    raise NotAsExpected(f"{attempt.outcome} {took * 1000:.0f} ms after {after}, {tries} attempts")
                time.sleep(0.001)

        self.show.step(what, f"open, < {within * 1000:.0f} ms after {after}", act)

    def who(self, name: str, address: str, *, nas: str = "") -> None:
        """Step: `radius-bridge who` knows where somebody is (`address`, empty if that is not known yet)."""

        def act() -> Seen:
            began = time.monotonic()
            # A NAS that is no part of the demo's own packets tells in its own time.
            wait_until(lambda: self._is_there(name, address, nas), f"{name} at {address or nas}", timeout=10, every=0.1)
            return address or f"on {nas}", time.monotonic() - began

        self.show.step(f"radius-bridge who {name}", address or f"on {nas}, no address yet", act)

    def _is_there(self, name: str, address: str, nas: str) -> bool:
        return any(row["address"] == address and nas in row["nas"] for row in self.rows(name))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Where somebody is, as `radius-bridge who` says it to programs."""
        return [row for row in json.loads(self.site.engineer("who", "--json")) if row["user"] == name]

    @contextmanager
    def connection(self, seat: Seat) -> Iterator[End]:
        """An open connection, in which something is said and answered all the time."""
        with connect(seat.sockets, seat.address, (seat.server, seat.port), every=0.01) as live:
            wait_until(lambda: live.received > 0, "an answer on the open connection", timeout=5)
            yield live

    def lives(self, what: str, live: End, *, bytes_more: int = 2) -> None:
        """Step: the connection goes on."""

        def act() -> Seen:
            before = live.received
            enough = before + bytes_more
            return "open", wait_until(lambda: live.received >= enough, "an answer on it", timeout=2 * self._patience)

        self.show.step(what, "open", act)

    def cut(self, what: str, live: End, *, after: str = "logout", within: float = SOON) -> None:
        """Step: the connection is cut within so many seconds of what was last said."""
        within *= self._patience

        def act() -> Seen:
            deadline = self.said + within + 0.2
            wait_until(lambda: bool(live.ended) or time.monotonic() > deadline, "the cut", timeout=within + 1)
            took = max(live.last_received - self.said, 0.0)
            if took > within:
                raise NotAsExpected(f"bytes still pass {took * 1000:.0f} ms after {after}")
            return f"cut ({live.ended or 'silent'})", took

        self.show.step(what, f"cut, < {within * 1000:.0f} ms after {after}", act)

    def timed(self, what: str, expected: str, act: Callable[[], str]) -> None:
        """Step: `act` works; what it gives is what was seen, and the time is how long it took."""

        def step() -> Seen:
            began = time.monotonic()
            seen = act()
            self.said = time.monotonic()
            return seen, self.said - began

        self.show.step(what, expected, step)
