"""What the tests of FreeRADIUS and RadSec share: a bridge with a Consul of its own on a host of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.consul import ConsulServer
from tests.lab.forwarding import Host
from tests.lab.netns import Namespace


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A bridge that listens, before its own Consul."""
    with (
        Namespace(f"rb-host-{os.getpid()}") as namespace,
        ConsulServer(namespace=namespace.name, on_disk=True) as consul,
    ):
        made = Host(namespace, consul, tmp_path)
        try:
            made.bridge.start().wait_log("listening")
            yield made
        finally:
            made.close()
