"""Kea's control socket, played by a server of ours: whatever it answers, what it gave so far stays."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from radius_bridge.leases import keasocket
from radius_bridge.leases.keasocket import KeaSocket
from radius_bridge.leases.source import LOOK, Trouble
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.clients import Networks
from tests.leases.recorder import Recorder

WITHIN = Networks([parse_prefix("192.0.2.0/24")])
Answer = Callable[[str, Any], bytes]

DATABASE = {
    "config-get": {"Dhcp4": {"lease-database": {"type": "mysql"}}},
    "list-commands": ["lease4-get-page"],
}


@asynccontextmanager
async def kea(folder: Path, answer: Answer) -> AsyncIterator[KeaSocket]:
    """A source whose Kea gives `answer(command, arguments)`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = msgspec.json.decode(await reader.read(65536))
        writer.write(answer(request["command"], request.get("arguments")))
        await writer.drain()
        writer.close()

    path = folder / "kea.sock"
    async with await asyncio.start_unix_server(serve, path):
        yield KeaSocket("dhcp", WITHIN, Recorder().submit, path)


def said(arguments: Any) -> bytes:
    return msgspec.json.encode({"result": 0, "arguments": arguments})


@pytest.mark.parametrize(
    "octets",
    [b"", b"[]", b"?", b'{"result":0,"text":"\xff"}', b'{"result":0,"arguments":' + b"[" * 100_000, b'{"result":0}'],
)
async def test_an_answer_that_cannot_be_read_is_trouble(tmp_path: Path, octets: bytes) -> None:
    async with kea(tmp_path, lambda *_: octets) as source:
        with pytest.raises(Trouble, match=r"kea\.sock"):
            await source.look()


@pytest.mark.parametrize("arguments", [None, 7, "Dhcp4", [], {"Dhcp4": None}, {"Dhcp4": {"lease-database": []}}])
async def test_a_configuration_of_another_form_is_trouble(tmp_path: Path, arguments: Any) -> None:
    async with kea(tmp_path, lambda *_: said(arguments)) as source:
        with pytest.raises(Trouble, match=r"kea\.sock"):
            await source.look()


@pytest.mark.parametrize("commands", [None, 7])
async def test_a_list_of_commands_of_another_form_is_trouble(tmp_path: Path, commands: Any) -> None:
    answers = {**DATABASE, "list-commands": commands}
    async with kea(tmp_path, lambda command, _: said(answers[command])) as source:
        with pytest.raises(Trouble, match=r"kea\.sock"):
            await source.look()


@pytest.mark.parametrize("page", [None, 7, {"leases": None}, {"leases": 7}, {"leases": [7]}, {"leases": {"a": 1}}])
async def test_a_page_of_another_form_is_trouble_and_never_no_leases(tmp_path: Path, page: Any) -> None:
    async with kea(tmp_path, lambda command, _: said(DATABASE.get(command, page))) as source:
        with pytest.raises(Trouble, match=r"kea\.sock"):
            await source.look()


async def test_pages_that_come_again_and_again_are_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keasocket, "PAGE", 1)
    lease = {"ip-address": "192.0.2.7", "hw-address": "", "state": 0, "cltt": 1, "valid-lft": 1}
    async with kea(tmp_path, lambda command, _: said(DATABASE.get(command, {"leases": [lease]}))) as source:
        with pytest.raises(Trouble, match="again"):
            await asyncio.wait_for(source.look(), 10)


async def test_a_bad_row_does_not_make_us_ask_for_the_configuration_at_every_look(tmp_path: Path) -> None:
    leases = tmp_path / "leases.csv"
    header = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context"
    leases.write_text(f"{header},pool_id\nno row of Kea's\n")
    asked: list[str] = []

    def answer(command: str, _: Any) -> bytes:
        asked.append(command)
        return said({"Dhcp4": {"lease-database": {"type": "memfile", "name": str(leases)}}})

    async with kea(tmp_path, answer) as source:
        for _ in range(5):
            with pytest.raises(Trouble, match="line 2"):
                await source.look()
    assert asked == ["config-get"]
    assert source.every == LOOK


async def test_a_kea_that_cannot_say_where_its_leases_are_is_asked_seldom(tmp_path: Path) -> None:
    async with kea(tmp_path, lambda *_: b"?") as source:
        with pytest.raises(Trouble):
            await source.look()
    assert source.every == keasocket.POLL
