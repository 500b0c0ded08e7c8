"""How the agent begins."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from agent import run
from agent.clicommon import settings_of
from agent.settings import AgentSettings


def test_a_token_that_cannot_be_read_keeps_nobody_from_restoring_what_was_enforced(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'[consul]\ntoken_file = "{tmp_path}/gone"\n')
    assert settings_of(config).consul.token_file == tmp_path / "gone"


async def test_what_was_enforced_is_restored_before_the_token_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored: list[object] = []

    async def restore(*done: object) -> None:
        restored.append(done)

    monkeypatch.setattr(run, "restore", restore)
    monkeypatch.setattr(run, "dataplane_of", lambda _: nullcontext())
    settings = AgentSettings.model_validate({"consul": {"token_file": tmp_path / "gone"}})
    with pytest.raises(OSError, match=r"token_file .* cannot be read"):
        await run.run(settings)
    assert restored
