"""Server-sent events of ready bytes: one event per write, no task group, no encoding."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.turn.events import DONE
from api.turn.follow import CutError

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
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        watch = asyncio.create_task(self._watch(receive)) if self._on_leave else None
        try:
            async for frames in self._events:
                for frame in frames:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": DONE, "more_body": False})
        except CutError:
            # No terminal event, no [DONE]: the client must ask with GET how it ended.
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if watch is not None:
                watch.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self._on_leave:
            self._on_leave()
