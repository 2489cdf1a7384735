"""Server-sent events of ready bytes: one event per write, no task group, no encoding."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from redis.exceptions import RedisError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import metrics
from api.errors import ApiError
from api.turn.events import DONE, error_frame
from api.turn.follow import CutError, DeletedError

log = logging.getLogger(__name__)
T = TypeVar("T")

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """Sends what `events` yields; `on_leave` is called when the client goes away before the end."""

    def __init__(self, events: AsyncIterator[list[bytes]], on_leave: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.raw_headers = list(HEADERS)
        self._events = events
        self._on_leave = on_leave

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        with metrics.STREAMS.track_inprogress():
            await self._send(receive, send)

    async def _send(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if self._on_leave is None:
            await self._send_events(send)
            return
        async with leaving(receive, self._on_leave):
            await self._send_events(send)

    async def _send_events(self, send: Send) -> None:
        try:
            async for frames in self._events:
                for frame in frames:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": DONE, "more_body": False})
        except DeletedError as deleted:
            ending = error_frame(deleted.sequence, deleted.error) + DONE
            await send({"type": "http.response.body", "body": ending, "more_body": False})
        except (CutError, ApiError, RedisError):
            # No terminal event, no [DONE]: the client must ask with GET how it ended.
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class JsonLines(Response):
    """Sends lines as they come. An error in the middle breaks the connection: what came before must not look whole."""

    def __init__(self, lines: AsyncIterator[bytes], file_name: str) -> None:
        super().__init__(
            media_type="application/x-ndjson",
            headers={"content-disposition": f'attachment; filename="{file_name}"', "cache-control": "no-cache"},
        )
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for lines in self._lines:
                await send({"type": "http.response.body", "body": lines, "more_body": True})
        except (ApiError, RedisError) as error:
            # The server breaks a connection whose answer does not come to its end.
            log.warning("an export was broken off", extra={"error": type(error).__name__})
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def begun(pieces: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same, but its first piece is there: what fails before it can still be answered with an error."""
    first = await anext(pieces)

    async def all_of_them() -> AsyncIterator[T]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_them()


@contextlib.asynccontextmanager
async def leaving(receive: Receive, on_leave: Callable[[], None]) -> AsyncIterator[None]:
    """Call `on_leave` if the client, whose body was read already, goes away meanwhile."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        on_leave()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
