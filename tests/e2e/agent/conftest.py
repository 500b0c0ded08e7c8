from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import Machine


@pytest.fixture(params=["ipset", "nftables"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A host that is up, before anything is protected on it."""
    machine = Machine(tmp_path, request.param)
    try:
        machine.boot()
        yield machine
    finally:
        machine.power_off()
