from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.dataplane.backends import BACKENDS
from tests.e2e.dataplane.host import Host


@pytest.fixture(params=BACKENDS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path, request.param) as host:
        yield host
