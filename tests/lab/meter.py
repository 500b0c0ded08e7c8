"""What somebody asks of Consul and how much is answered: a TCP proxy that counts, and that can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit


class Meter:
    """The traffic of all connections through a proxy."""

    def __init__(self, target: str) -> None:
        """`target` is the URL of a Consul."""
        url = urlsplit(target)
        self._target = (url.hostname or "", url.port or 80)
        self._writers: set[asyncio.StreamWriter] = set()
        self._links: set[asyncio.Task[None]] = set()
        self.url = ""
        """Where to find that Consul through the proxy."""
        self.requests: list[str] = []
        """Method, path and query of every request."""
        self.octets = 0
        """Octets of all answers."""
        self.is_cut = False
        """While it is set, connections are refused; `cut` ends those that are there, too."""

    def cut(self) -> None:
        """Ends all connections; no new ones until `is_cut` is unset."""
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Meter"]:
        """Serves as long as the context is open."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._links)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        ends = [writer]
        self._writers.add(writer)
        try:
            if self.is_cut:
                return
            answers, back = await asyncio.open_connection(*self._target)
            ends.append(back)
            self._writers.add(back)
            await asyncio.gather(self._pass_requests(reader, back, writer), self._pass_answers(answers, writer, back))
        except OSError:
            pass  # whichever end went first: the other one goes with it
        finally:
            self._writers.difference_update(ends)
            for each in ends:
                each.transport.abort()
            self._links.discard(link)

    async def _pass_requests(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(1 << 16):
            if chunk.startswith((b"GET ", b"PUT ")):
                self.requests.append(unquote(chunk.split(b" HTTP/1.", 1)[0].decode()))
            back.write(chunk)
            await back.drain()
        writer.transport.abort()
        back.transport.abort()

    async def _pass_answers(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        while chunk := await answers.read(1 << 16):
            self.octets += len(chunk)
            writer.write(chunk)
            await writer.drain()
        writer.transport.abort()
        back.transport.abort()
