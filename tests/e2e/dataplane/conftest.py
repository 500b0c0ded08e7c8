from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.dataplane.host import Host

# The kernel tells which of the two it has; iptables-nft is on every host the agent is made for.
BACKENDS = ["nftables", "nft", *(["legacy"] if Path("/proc/net/ip_tables_names").exists() else [])]


@pytest.fixture(params=BACKENDS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path, request.param) as host:
        yield host
