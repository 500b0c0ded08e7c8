"""A demo that cannot fail shows nothing: its steps fail when what they show is not so."""

import io
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from tests.lab.demo.show import NotAsExpected, Show
from tests.lab.demo.stage import Seat, Stage
from tests.lab.ports import free_port
from tests.lab.processes import LabError
from tests.lab.site import Site
from tests.lab.tcp import Listener, connect

HERE = "127.0.0.1"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Of a site that does not run."""
    return Stage(Site("rb-nowhere", tmp_path), Show(Console(file=io.StringIO(), width=140)))


@pytest.fixture
def service() -> Iterator[tuple[Listener, int]]:
    """A service that is open, and says nothing by itself; its port."""
    port = free_port()
    listener = Listener(socket.socket, socket.AF_INET, port)
    yield listener, port
    listener.close()


def at(port: int) -> Seat:
    return Seat(socket.socket, HERE, HERE, port)


def test_an_open_service_is_not_shown_as_refused(stage: Stage, service: tuple[Listener, int]) -> None:
    with pytest.raises(NotAsExpected):
        stage.refused("alice connects", at(service[1]))
    assert [(step["step"], step["ok"], step["seconds"]) for step in stage.show.as_json()] == [
        ("alice connects", False, None)
    ]


def test_a_refused_connection_is_not_shown_as_open(stage: Stage) -> None:
    with pytest.raises(NotAsExpected, match="refused"):
        stage.opens("alice connects", at(1))


def test_a_connection_that_goes_on_is_not_shown_as_cut(stage: Stage, service: tuple[Listener, int]) -> None:
    listener, port = service
    with connect(socket.socket, HERE, (HERE, port)) as live:
        accepted = listener.accept(every=0.01)
        stage.said = time.monotonic()
        try:
            with pytest.raises((NotAsExpected, LabError)):
                stage.cut("her open connection", live, within=0.1)
        finally:
            accepted.close()


def test_a_silent_connection_is_not_shown_as_alive(stage: Stage, service: tuple[Listener, int]) -> None:
    with connect(socket.socket, HERE, (HERE, service[1])) as live, pytest.raises(LabError):
        stage.lives("her open connection", live)


def test_a_story_that_fails_is_shown_up_to_its_failure_without_colours_when_piped() -> None:
    out = io.StringIO()
    show = Show(Console(file=out, width=140))

    def fails() -> tuple[str, float]:
        raise NotAsExpected("open")

    with suppress(NotAsExpected), show.story("login", "A login"):
        show.step("alice connects", "open", lambda: ("open", 0.0012))
        show.step("bob connects", "refused", fails)
    told = out.getvalue()
    assert "\x1b" not in told
    assert [line.split()[0] for line in told.splitlines()[-2:]] == ["✔", "✘"]
    assert "1.2" in told.splitlines()[-2]
