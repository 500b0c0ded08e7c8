"""What `serve` does before it listens."""

import asyncio
import socket

import pytest

from radius_bridge.cli import serve
from radius_bridge.registry import meta
from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.lanes import Lanes
from radius_bridge.settings import Settings
from tests.registry.fake_consul import FakeConsul, Fault

SETTINGS = Settings.model_validate(
    {"client": [{"name": "lab", "address": "127.0.0.1", "secret": "testing123", "networks": ["192.0.2.0/24"]}]}
)


async def test_however_long_consul_is_away_the_bridge_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "BACKOFF", (0.0, 0.0))
    where, asked = Datacenters("dc1"), 0

    async def ensure(*_: object) -> None:
        nonlocal asked
        asked += 1
        if asked < 1100:  # hours
            raise RegistryError("no leader")

    async def read(*_: object) -> Datacenters:
        return where

    monkeypatch.setattr(meta, "ensure", ensure)
    monkeypatch.setattr(serve, "_datacenters", read)
    monkeypatch.setattr(Lanes, "load", ensure)
    consul, keys = FakeConsul(lambda: Fault.NONE), Keys()
    found = await serve._load(consul, keys, Lanes(consul, keys), SETTINGS, asyncio.Event())
    assert found == where
    assert asked == 1101


def test_a_metrics_port_that_is_taken_is_named_with_its_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"^metrics\.listen: cannot listen on 127\.0\.0\.1:{port}/tcp: Address already"
        ):
            serve._serve_metrics(("127.0.0.1", port))
