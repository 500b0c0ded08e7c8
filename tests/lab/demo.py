"""The demo: a login opens a port for one user's address, and it closes again. See `script/demo --help`."""

import argparse
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tests.lab.processes import LabError, wait_until
from tests.lab.site import (
    ALICE,
    BOB,
    CONSUL,
    CONSUL_PORT,
    NAS,
    RADIUS,
    SERVER,
    SERVER6,
    SERVICE,
    SERVICE_PORT,
    Person,
    Site,
)
from tests.lab.tcp import End, Outcome, connect, knock

NAME = "rb-demo"
DIRECTORY = Path("/run/rb-demo")
"""Logs, configuration and state of the demo's parts; /run, because only root can put anything there."""
LOCK = Path("/run/rb-demo.lock")

LEASE = 6
"""Seconds that the second login lasts."""

SERVICE_AT = (SERVER, SERVICE_PORT)

FELT_AT_ONCE = 0.1
"""Seconds within which a refusal must be felt."""


class NotAsExpected(Exception):
    """A step showed something else than it should; `str()` is what it showed."""


@dataclass
class Step:
    """One row of the table."""

    what: str
    expected: str
    seen: str = ""
    seconds: float | None = None
    state: str = "waiting"
    """`waiting`, `running`, `good` or `bad`."""


@dataclass
class Show:
    """The steps, and the table of them that grows on a terminal."""

    console: Console
    steps: list[Step] = field(default_factory=list)
    live: Live | None = None

    @contextmanager
    def on_screen(self) -> Iterator[None]:
        """Shows the table: growing on a terminal, once at the end elsewhere."""
        if self.console.is_terminal:
            with Live(self.table(), console=self.console, auto_refresh=False) as self.live:
                yield
            return
        try:
            yield
        finally:
            self.console.print(self.table())

    def step(self, what: str, expected: str, act: Callable[[], tuple[str, float]]) -> None:
        """Does one step. `act` gives what was seen and its seconds, or raises NotAsExpected or LabError."""
        step = Step(what, expected, state="running")
        self.steps.append(step)
        self._refresh()
        try:
            step.seen, step.seconds = act()
            step.state = "good"
        except (NotAsExpected, LabError, OSError) as error:
            step.seen = str(error).splitlines()[0]
            step.state = "bad"
            raise
        finally:
            self._refresh()

    def table(self) -> Table:
        """All steps so far."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for column in ("STEP", "EXPECTED", "SEEN"):
            table.add_column(column, overflow="fold")
        table.add_column("MS", justify="right", no_wrap=True)
        marks = {"running": "[yellow]…[/]", "good": "[green]✔[/]", "bad": "[red]✘[/]"}
        colours = {"running": "yellow", "good": "green", "bad": "red"}
        for step in self.steps:
            milliseconds = "" if step.seconds is None else f"{step.seconds * 1000:.1f}"
            seen = f"[{colours[step.state]}]{escape(step.seen)}[/]"
            table.add_row(marks[step.state], escape(step.what), escape(step.expected), seen, milliseconds)
        return table

    def _refresh(self) -> None:
        if self.live:
            self.live.update(self.table(), refresh=True)


class Demo:
    """The story, told on a running site."""

    def __init__(self, site: Site, show: Show) -> None:
        self.site = site
        self.show = show
        self.answered = 0.0
        """When the last accounting packet was answered (monotonic)."""

    def play(self) -> None:
        """Plays every step. Raises NotAsExpected or LabError at the first that goes wrong."""
        step = self.show.step
        step(f"engineer: radius-bridge grant alice {SERVICE}", "granted", self._grant)
        step("alice connects, not logged in", "refused, < 100 ms", lambda: self._refused(ALICE))
        step(
            "alice logs in: NAS → FreeRADIUS → bridge",
            "answered",
            lambda: self._accounting(ALICE, "Start", "a1"),
        )
        step("alice connects", "open, < 1000 ms after login", lambda: self._open(ALICE))
        step("alice connects over IPv6", "open", lambda: self._open6(ALICE))
        step("bob logs in at another address", "answered", lambda: self._accounting(BOB, "Start", "b1"))
        step("radius-bridge who bob", BOB.address, lambda: self._who(BOB))
        step("bob connects", "refused, < 100 ms", lambda: self._refused(BOB))
        with connect(self.site.from_client, ALICE.address, SERVICE_AT, every=0.01) as live:
            self._alive(live)
            step(
                "alice logs out, a connection is open",
                "answered",
                lambda: self._accounting(ALICE, "Stop", "a1"),
            )
            step("her open connection", "cut, < 1000 ms after logout", lambda: self._cut(live, within=1.0))
        step("alice connects", "refused, < 100 ms", lambda: self._refused(ALICE))
        step(f"alice logs in for {LEASE} s", "answered", lambda: self._accounting(ALICE, "Start", "a2", LEASE))
        began = self.answered
        step("alice connects", "open, < 1000 ms after login", lambda: self._open(ALICE))
        with connect(self.site.from_client, ALICE.address, SERVICE_AT, every=0.01) as live:
            step("kill -9 bridge, Consul and agent", "all dead", self._kill)
            step("alice's connection, with all of them dead", "open", lambda: self._alive(live))
            step(
                "alice's connection when the login's time is over",
                f"cut by the kernel, at most {LEASE} s after login",
                lambda: self._cut_by_time(live, began),
            )
        step("alice connects", "refused, < 100 ms", lambda: self._refused(ALICE))

    def _grant(self) -> tuple[str, float]:
        began = time.monotonic()
        self.site.engineer("grant", "alice", SERVICE)
        return "granted", time.monotonic() - began

    def _refused(self, person: Person) -> tuple[str, float]:
        attempt = knock(self.site.from_client, person.address, SERVICE_AT)
        if attempt.outcome is not Outcome.REFUSED or attempt.seconds > FELT_AT_ONCE:
            raise NotAsExpected(f"{attempt.outcome} after {attempt.seconds * 1000:.0f} ms")
        return "refused (reset)", attempt.seconds

    def _accounting(self, person: Person, status: str, session: str, lease: int | None = None) -> tuple[str, float]:
        answer = self.site.nas(accounting_attributes(person, status, session, lease))
        self.answered = time.monotonic()
        if not answer.acknowledged:
            raise NotAsExpected(f"no answer for {answer.seconds:.0f} s")
        return "answered", answer.seconds

    def _open(self, person: Person) -> tuple[str, float]:
        tries = 0
        while True:
            attempt = knock(self.site.from_client, person.address, SERVICE_AT)
            tries += 1
            after = attempt.at - self.answered
            if attempt.outcome is Outcome.OPEN and after < 1:
                return "open", after
            if after >= 1:
                raise NotAsExpected(f"{attempt.outcome} {after * 1000:.0f} ms after login, {tries} attempts")
            time.sleep(0.001)

    def _open6(self, person: Person) -> tuple[str, float]:
        attempt = knock(self.site.from_client, person.address6, (SERVER6, SERVICE_PORT))
        if attempt.outcome is not Outcome.OPEN:
            raise NotAsExpected(f"{attempt.outcome} after {attempt.seconds * 1000:.0f} ms")
        return "open", attempt.seconds

    def _who(self, person: Person) -> tuple[str, float]:
        began = time.monotonic()
        told = self.site.engineer("who", person.name, "--json")
        if f'"{person.address}"' not in told:
            raise NotAsExpected(told.strip() or "nothing")
        return person.address, time.monotonic() - began

    def _alive(self, live: End) -> tuple[str, float]:
        before = live.received
        took = wait_until(lambda: live.received > before + 1, "an answer on the open connection", timeout=1)
        return "open", took

    def _cut(self, live: End, *, within: float) -> tuple[str, float]:
        deadline = self.answered + within + 0.2
        wait_until(lambda: bool(live.ended) or time.monotonic() > deadline, "the cut", timeout=within + 1)
        after = max(live.last_received - self.answered, 0.0)
        if after > within:
            raise NotAsExpected(f"bytes still pass {after * 1000:.0f} ms after logout")
        return f"cut ({live.ended or 'silent'})", after

    def _kill(self) -> tuple[str, float]:
        began = time.monotonic()
        victims = (self.site.bridge, self.site.consul, self.site.agent)
        for part in victims:
            part.kill()
        if alive := [part.name for part in victims if part.is_running]:
            raise NotAsExpected(f"{', '.join(alive)} alive")
        return "all dead", time.monotonic() - began

    def _cut_by_time(self, live: End, began: float) -> tuple[str, float]:
        deadline = began + LEASE + 0.5
        wait_until(lambda: bool(live.ended) or time.monotonic() > deadline, "the cut", timeout=LEASE + 3)
        after = live.last_received - began
        # Registry and kernel each cut fractions of a second off: it may be two seconds less, never more.
        if not LEASE - 2 <= after <= LEASE:
            raise NotAsExpected(f"last byte {after:.1f} s after login")
        return f"cut ({live.ended or 'silent'})", after


def accounting_attributes(person: Person, status: str, session: str, lease: int | None = None) -> str:
    """What the NAS of the demo sends, as radclient reads it."""
    attributes = [
        f'User-Name = "{person.name}"',
        f"Acct-Status-Type = {status}",
        f'Acct-Session-Id = "{session}"',
        f"NAS-IP-Address = {NAS}",
        f"Framed-IP-Address = {person.address}",
        f"Framed-IPv6-Address = {person.address6}",
    ]
    if lease is not None:
        attributes.append(f"Session-Timeout = {lease}")
    return ", ".join(attributes)


PICTURE = f"""\
[bold]client[/]                       [bold]radius[/]                                    [bold]server[/]
alice {ALICE.address} ─┐
bob   {BOB.address} ─┴─ NAS ──▶ FreeRADIUS ─▶ radius-bridge ─▶ Consul ──▶ agent ─▶ ipset, iptables
      └──────────────────────────── TCP {SERVICE_PORT} ────────────────────────▶ wiki {SERVER}
"""


def playground(site: Site) -> str:
    """What to type after `--keep`; writes the files that it names."""
    inside = f"ip netns exec {NAME}"
    consul = f"CONSUL_HTTP_ADDR={CONSUL}:{CONSUL_PORT}"
    bridge = f"{inside}-radius env {consul} .venv/bin/radius-bridge"
    radclient = f"{inside}-client radclient -S {site.nas_secret_file}"
    for person in (ALICE, BOB):
        for status in ("Start", "Stop"):
            file = site.directory / f"{person.name}.{status.lower()}"
            file.write_text(accounting_attributes(person, status, f"{person.name}-by-hand") + "\n")
    return f"""\
It stays running, with everything as after the first step: alice is granted {SERVICE}, nobody is logged in.

[bold]alice knocks[/]
  {inside}-client bash -c 'head -1 </dev/tcp/{SERVER}/{SERVICE_PORT}'
[bold]alice logs in, alice logs out[/] (bob.start and bob.stop are there too)
  {radclient} -f {site.directory}/alice.start {RADIUS}:1813 acct
  {radclient} -f {site.directory}/alice.stop {RADIUS}:1813 acct
[bold]who is where, who may what[/]
  {bridge} who
  {bridge} grants
  {bridge} grant bob {SERVICE} --for 10m
[bold]what the server enforces[/]
  {inside}-server .venv/bin/radius-bridge-agent status -c {site.directory}/agent.toml
  {inside}-server ipset list
  {inside}-server iptables-save
[bold]what Consul holds[/]
  {inside}-radius env {consul} consul kv get -recurse befw/
[bold]logs[/]
  {site.directory}/*.log
[bold]end it[/]
  script/demo --stop
"""


def sweep(console: Console) -> None:
    """Ends and removes what an earlier demo left, wherever it died."""
    site = Site(NAME, DIRECTORY)
    if any(namespace.exists() for namespace in site.namespaces):
        console.print("[dim]ending what an earlier demo left[/]")
    site.sweep()
    shutil.rmtree(DIRECTORY, ignore_errors=True)


def run(console: Console, *, keep: bool) -> int:
    """Plays the demo; gives the exit code."""
    began = time.monotonic()
    sweep(console)
    DIRECTORY.mkdir(mode=0o700)
    site = Site(NAME, DIRECTORY)
    show = Show(console)
    stays_running = logs_stay = False
    console.print(PICTURE)
    try:
        with console.status("starting Consul, radius-bridge, FreeRADIUS, the agent and a service …"):
            site.build()
            site.start()
        console.print(f"[dim]set up in {time.monotonic() - began:.1f} s; logs in {DIRECTORY}[/]\n")
        with show.on_screen():
            Demo(site, show).play()
        console.print(f"\n[bold green]All {len(show.steps)} steps as expected[/], {time.monotonic() - began:.0f} s.")
        if keep:
            site.start()
            site.engineer("grant", "alice", SERVICE)
            console.print("\n" + playground(site), soft_wrap=True)
            stays_running = logs_stay = True
    except (NotAsExpected, LabError, OSError) as error:
        logs_stay = True
        failed = show.steps[-1].what if show.steps else "the set-up"
        _tell_failure(console, site, f"{failed}: {str(error).splitlines()[0]}")
        return 1
    finally:
        if not stays_running:
            # Whoever presses Ctrl-C once more must not stop the cleaning.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            site.close()
        if not logs_stay:
            shutil.rmtree(DIRECTORY, ignore_errors=True)
    return 0


def _tell_failure(console: Console, site: Site, what: str) -> None:
    console.print(f"\n[bold red]Failed:[/] {escape(what)}")
    if dead := [part.name for part in site.parts if not part.is_running]:
        console.print(f"Not running by then: {', '.join(dead)}")
    for part in site.parts:
        console.print(escape(part.tail()), style="dim", soft_wrap=True)
    console.print(f"\nThe whole logs stay in {DIRECTORY} until the next demo.")


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="script/demo",
        description="In three network namespaces of its own: a RADIUS login through FreeRADIUS opens a port "
        "for one user's address. It closes at logout, and it closes when the login's time is over though "
        "everything but the kernel is dead. Needs root. Exit code 0: everything was as expected.",
    )
    parser.add_argument("--keep", action="store_true", help="leave it running and say how to play with it")
    parser.add_argument("--stop", action="store_true", help="end what --keep left running")
    arguments = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if os.geteuid() != 0:
        console.print("script/demo needs root: it makes network namespaces, and rules inside them only")
        return 2
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another script/demo is running")
            return 2
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupted)
        if arguments.stop:
            sweep(console)
            return 0
        try:
            return run(console, keep=arguments.keep)
        except Interrupted as interrupted:
            console.print("\nInterrupted; everything is cleaned up.")
            return 128 + interrupted.number


class Interrupted(BaseException):
    """A signal asks us to end. No `except Exception` on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _interrupted(number: int, _frame: object) -> NoReturn:
    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main())
