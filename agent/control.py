"""The agent's control socket: how `status` asks a running agent. One line in, one line of JSON out.

Root and the agent's own user only.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

TIMEOUT = 5.0
"""Seconds that either side waits for the other."""

LONG = 60.0
"""Seconds that an answer may take that needs work."""

Reply = dict[str, Any]

Answer = Callable[[str], Reply | Awaitable[Reply]]
"""Answers a question, of which it is given what follows the first word."""

_MAX_QUESTION = 4096


class NotRunning(Exception):
    """Nobody answers at the control socket."""


@asynccontextmanager
async def serve(path: Path, answers: Mapping[str, Answer]) -> AsyncIterator[None]:
    """Answers questions at `path` (mode 0600) as long as the context is open. Raises OSError if it cannot listen.

    A question is a word, which `answers` has, and what follows it after a space: that is passed on.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                question = (await reader.readuntil(b"\n")).decode().strip()
                word, _, rest = question.partition(" ")
                known = answers.get(word)
            async with asyncio.timeout(LONG):
                reply = known(rest) if known else {"error": f"unknown question {question!r}", "known": sorted(answers)}
                if isinstance(reply, Awaitable):
                    reply = await reply
            async with asyncio.timeout(TIMEOUT):
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone or talks nonsense: nothing that the agent could do about it
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    listener = _listen(path)
    server = await asyncio.start_unix_server(answer, sock=listener, limit=_MAX_QUESTION)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()
        path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    """A socket at `path`. Raises OSError that names the setting."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
    except OSError as error:
        listener.close()
        raise OSError(f"control_socket {path}: {error}") from error
    return listener


async def ask(path: Path, question: str, timeout: float = TIMEOUT) -> dict[str, Any]:
    """The running agent's answer, within `timeout` seconds. Raises NotRunning if there is none."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 26)
            try:
                writer.write(question.encode() + b"\n")
                answer = json.loads(await reader.readuntil(b"\n"))
            finally:
                writer.close()
                await writer.wait_closed()
    except PermissionError:
        raise NotRunning(f"{path}: only root and the agent's user may ask it") from None
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        raise NotRunning(f"no agent answers at {path} ({str(error) or type(error).__name__})") from None
    if not isinstance(answer, dict):
        raise NotRunning(f"{path}: that is no agent")
    return answer
