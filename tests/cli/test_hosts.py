"""`confirm`, where somebody else tidies up at the same moment."""

from typing import Any

import pytest
from typer.testing import CliRunner

from radius_bridge.cli import everywhere, hosts
from radius_bridge.cli.main import app
from radius_bridge.registry.kv import Entry, Snapshot
from tests.registry.fake_consul import FakeConsul

OLD = "befw/$confirm$/000000000000"


class _Behind(FakeConsul):
    """Shows a word that is over as it was before somebody else took it away."""

    async def read(self, prefix: str, **_: Any) -> Snapshot:
        return Snapshot(1, (Entry(OLD, 1, raw=b"1"),), missing=False, last_contact=0.0, known_leader=True)


def test_a_word_counts_though_somebody_else_tidied_up_before(monkeypatch: pytest.MonkeyPatch) -> None:
    consul = _Behind()

    async def nothing(*_: object) -> dict[str, object]:
        return {}

    monkeypatch.setattr(hosts, "_read_hosts", lambda: ([], []))
    monkeypatch.setattr(everywhere, "Consul", lambda _: consul)
    monkeypatch.setattr(everywhere, "find_datacenters", nothing)
    monkeypatch.setattr(everywhere, "ensure", nothing)
    result = CliRunner().invoke(app, ["confirm", "0123456789ab"])
    assert result.exit_code == 0, result.output
    assert "befw/$confirm$/0123456789ab" in consul.store
