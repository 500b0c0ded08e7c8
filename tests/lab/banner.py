"""The service that the lab protects: greets, then returns what it gets. `python -m tests.lab.banner PORT`."""

import asyncio
import sys

GREETING = b"welcome to the wiki\n"


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greets, and echoes until the other side leaves or the firewall resets the connection."""
    try:
        writer.write(GREETING)
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the firewall ended it: what the lab is about
    finally:
        writer.close()


async def serve(port: int) -> None:
    """Listens on IPv4 and IPv6 until it is killed."""
    server = await asyncio.start_server(talk, host=["0.0.0.0", "::"], port=port)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
