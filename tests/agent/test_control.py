"""The control socket: one question, one answer, root only; nonsense hurts nobody."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.control import NotRunning, ask, serve


def nothing(_: str) -> dict[str, Any]:
    return {}


async def test_a_running_agent_answers(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    async with serve(path, {"status": lambda _: {"enforcing": True}}):
        assert await ask(path, "status") == {"enforcing": True}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_what_follows_the_word_is_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serve(path, {"forget": lambda name: {"forgotten": name}}):
        assert await ask(path, "forget ssh_tcp_22") == {"forgotten": "ssh_tcp_22"}


async def test_an_unknown_question_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serve(path, {"status": nothing}):
        assert (await ask(path, "open all"))["known"] == ["status"]


async def test_without_an_agent_the_error_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=r"control\.sock"):
        await ask(tmp_path / "control.sock", "status")


async def test_a_path_at_which_no_socket_can_be_is_named_with_its_setting(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30)
    with pytest.raises(OSError, match=f"control_socket {path}: "):
        async with serve(path, {"status": nothing}):
            pass


async def test_a_socket_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    left = await asyncio.start_unix_server(lambda _reader, _writer: None, str(path))
    left.close()
    await left.wait_closed()
    async with serve(path, {"status": nothing}):
        assert await ask(path, "status") == {}


@pytest.mark.parametrize("nonsense", [b"\xff\xfe\n", b"x" * 100_000, b""])
async def test_nonsense_gets_no_answer_and_the_next_one_does(tmp_path: Path, nonsense: bytes) -> None:
    path = tmp_path / "control.sock"
    async with serve(path, {"status": nothing}):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(nonsense)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert await ask(path, "status") == {}
