"""What `serve` does before it listens."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from radius_bridge.cli import serve
from radius_bridge.registry import meta
from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.neighbours import Neighbours
from radius_bridge.registry.poll import Poll
from radius_bridge.registry.positions import News
from radius_bridge.settings import Settings
from tests.registry.fake_consul import FakeConsul, Fault

SETTINGS = Settings.model_validate(
    {"client": [{"name": "lab", "address": "127.0.0.1", "secret": "testing123", "networks": ["192.0.2.0/24"]}]}
)


@pytest.mark.parametrize("failing", ["the registry", "the feed", "what is recorded"])
async def test_however_long_consul_is_away_the_bridge_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    where, asked = Datacenters("dc1"), Counter[str]()

    def step(name: str, result: object = None) -> Callable[..., Awaitable[object]]:
        async def ask(*_: object, **__: object) -> object:
            asked[name] += 1
            if name == failing and asked[name] < 1100:  # hours
                raise RegistryError("no leader")
            return result

        return ask

    monkeypatch.setattr(serve, "BACKOFF", (0.0, 0.0))
    monkeypatch.setattr(serve, "_datacenters", step("where", where))
    monkeypatch.setattr(meta, "ensure", step("the registry"))
    monkeypatch.setattr(Poll, "look", step("the feed", News()))
    monkeypatch.setattr(Lanes, "load", step("what is recorded"))
    consul, keys = FakeConsul(lambda: Fault.NONE), Keys()
    neighbours = Neighbours(consul, keys, Lanes(consul, keys))
    assert await serve._load(consul, keys, neighbours, SETTINGS, asyncio.Event()) == where
    assert asked[failing] == 1100


def test_a_metrics_port_that_is_taken_is_named_with_its_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"^metrics\.listen: cannot listen on 127\.0\.0\.1:{port}/tcp: Address already"
        ):
            serve._serve_metrics(("127.0.0.1", port))
