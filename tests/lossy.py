"""A way to Redis on which the reply to a script gets lost after Redis has carried it out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from local.children import HOST


@dataclass
class Lossy:
    """While `losing` is above 0, that many replies to scripts are swallowed, and their connections with them."""

    port: int = 0
    losing: int = 0
    lost: int = 0
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """What happens before the client can send it again."""

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter, target: int) -> None:
        server, to_server = await asyncio.open_connection(HOST, target)
        try:
            while request := await client.read(1 << 20):
                to_server.write(request)
                reply = await server.read(1 << 20)
                if self.losing and b"EVAL" in request and not reply.startswith(b"-NOSCRIPT"):
                    self.losing -= 1
                    self.lost += 1
                    if self.meanwhile is not None:
                        await self.meanwhile()
                    break
                to_client.write(reply)
        finally:
            to_server.close()
            to_client.close()


@asynccontextmanager
async def lossy(target: int) -> AsyncIterator[Lossy]:
    """Serve one on a port of its own, for small requests and replies that fit in one read."""
    way = Lossy()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, asyncio.CancelledError):
            await way._carry(reader, writer, target)  # noqa: SLF001 - its own part

    server = await asyncio.start_server(serve, HOST, 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
