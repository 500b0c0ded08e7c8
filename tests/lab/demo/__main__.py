"""The demo: logins open a port for one user's address, and it closes again. See `script/demo --help`."""

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from tests.lab.demo.playground import playground
from tests.lab.demo.show import NotAsExpected, Show
from tests.lab.demo.stage import LOGIN, Stage, configuration
from tests.lab.demo.stories import STORIES, Story
from tests.lab.office import Office
from tests.lab.openvpn import Vpn
from tests.lab.processes import LabError
from tests.lab.site import ALICE, BOB, SERVER, SERVICE, SERVICE_PORT, Site, clear

NAME = "rb-demo"
DIRECTORY = Path("/run/rb-demo")
"""Logs, configuration and state of the demo's parts; /run, because only root can put anything there."""
LOCK = Path("/run/rb-demo.lock")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


PICTURE = f"""\
[bold]client[/]                       [bold]radius[/]                                    [bold]server[/]
alice {ALICE.address} ─┐
bob   {BOB.address} ─┴─ NAS ──▶ FreeRADIUS ─▶ radius-bridge ─▶ Consul ──▶ agent ─▶ ipset, iptables
      └──────────────────────────── TCP {SERVICE_PORT} ────────────────────────▶ wiki {SERVER}
"""


def sweep(console: Console) -> None:
    """Ends and removes what an earlier demo left, wherever it died."""
    site = Site(NAME, DIRECTORY)
    left = [each for each in (*Office.namespaces(site), *Vpn.namespaces(site), *site.namespaces) if each.exists()]
    if left:
        console.print("[dim]ending what an earlier demo left[/]")
    for namespace in left:
        clear(namespace)
    shutil.rmtree(DIRECTORY, ignore_errors=True)


def run(console: Console, show: Show, stories: list[Story], *, keep: bool) -> int:
    """Plays the stories; gives the exit code."""
    began = time.monotonic()
    sweep(console)
    DIRECTORY.mkdir(mode=0o700)
    site = Site(NAME, DIRECTORY, login=LOGIN, more=configuration(DIRECTORY))
    stays_running = logs_stay = False
    failed = "the set-up"
    console.print(PICTURE)
    try:
        with console.status("starting Consul, radius-bridge, FreeRADIUS, the agent and a service …"):
            site.build()
            site.start()
        console.print(f"[dim]set up in {time.monotonic() - began:.1f} s; logs in {DIRECTORY}[/]")
        stage = Stage(site, show)
        for number, story in enumerate(stories, 1):
            failed = story.heading
            with show.story(story.name, f"{number}/{len(stories)} {story.heading}"):
                story.play(stage)
        console.print(f"\n[bold green]All {len(show.steps)} steps as expected[/], {time.monotonic() - began:.0f} s.")
        if keep:
            for part in (site.consul, site.bridge, site.agent):
                part.kill()  # Consul in dev mode forgets who is still logged in
            site.start()
            site.engineer("grant", "alice", SERVICE)
            console.print("\n" + playground(site), soft_wrap=True)
            stays_running = logs_stay = True
    except (NotAsExpected, LabError, OSError) as error:
        logs_stay = True
        if show.steps and show.steps[-1].state == "bad":
            failed = show.steps[-1].what
        _tell_failure(console, site, f"{failed}: {str(error).partition(chr(10))[0]}")
        return 1
    finally:
        if not stays_running:
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


def _arguments() -> argparse.Namespace:
    stories = "\n".join(f"  {story.name:6} {story.heading}" for story in STORIES)
    parser = argparse.ArgumentParser(
        prog="script/demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Shows logins that open a port for one user's address, on real parts in network namespaces\n"
        "of its own. Each step is checked and timed. It needs root, and leaves nothing behind.",
        epilog=f"the stories:\n{stories}\n\nexit codes: 0 all was as expected, 1 something was not, 2 not started",
    )
    parser.add_argument(
        "--story",
        action="append",
        choices=[story.name for story in STORIES],
        help="only this one (may be repeated); without it, all of them, in under a minute",
    )
    parser.add_argument("--keep", action="store_true", help="leave it running and say how to play with it")
    parser.add_argument("--stop", action="store_true", help="end what --keep left running")
    parser.add_argument(
        "--json", action="store_true", help="print the steps as JSON, and nothing else on standard output"
    )
    return parser.parse_args()


def main() -> int:
    """The command line; gives the exit code."""
    arguments = _arguments()
    stream = sys.stderr if arguments.json else sys.stdout
    console = Console(highlight=False, file=stream, width=None if stream.isatty() else 140)
    if os.geteuid() != 0:
        console.print("script/demo needs root: it makes network namespaces, and rules inside them only")
        return 2
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another script/demo is running")
            return 2
        for number in _SIGNALS:
            signal.signal(number, _interrupted)
        if arguments.stop:
            sweep(console)
            return 0
        show = Show(console)
        stories = [story for story in STORIES if not arguments.story or story.name in arguments.story]
        try:
            return run(console, show, stories, keep=arguments.keep)
        except Interrupted as interrupted:
            console.print("\nInterrupted; everything is cleaned up.")
            return 128 + interrupted.number
        finally:
            if arguments.json:
                print(json.dumps(show.as_json(), indent=2, ensure_ascii=False))


class Interrupted(BaseException):
    """A signal asks us to end. No `except Exception` on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _interrupted(number: int, _frame: object) -> NoReturn:
    # Whoever presses Ctrl-C once more must not stop the cleaning.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main())
