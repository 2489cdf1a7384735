"""One streamed answer on the network: reads it, watches the clock, and gives the connection back."""

import asyncio
import contextlib
import time

import aiohttp

from api.upstream.exchange import Delta, UpstreamError
from api.upstream.failures import cut, timed_out
from api.upstream.reply import Reply
from api.upstream.sse import Decoder

# After [DONE] only the end of the HTTP body is missing. A server that keeps it back costs a new connection, not a wait.
END_SECONDS = 0.25


class Flow:
    """`read` gives what each network read brought and, last, Usage and Finish; then an empty list."""

    def __init__(
        self, response: aiohttp.ClientResponse, reply: Reply, first_token_seconds: float, between_tokens_seconds: float
    ) -> None:
        self._response = response
        self._content = response.content
        self._reply = reply
        self._decoder = Decoder()
        self._patience_seconds = first_token_seconds
        self._between_tokens_seconds = between_tokens_seconds
        self._last_delta = time.monotonic()
        self._fresh = True
        self._started = False
        self._over = False
        self._failure: UpstreamError | None = None

    async def read(self) -> list[Delta]:
        """Raises UpstreamError, but not before everything that came ahead of the failure was returned."""
        while not self._over:
            deltas = self._reply.read(await self._payloads())
            if self._over or self._reply.done or self._reply.failure is not None:
                self._over = True
                deltas += self._ending()
            if deltas:
                self._note_progress()
                return deltas
            if time.monotonic() - self._last_delta > self._patience_seconds:
                # Comments and empty chunks keep the socket busy and the client waiting.
                raise self._timed_out()
        if self._failure is not None:
            raise self._failure
        await self._read_to_end()
        return []

    def close(self) -> None:
        """Drop the connection unless the body was read to its end; then it is in the pool already."""
        if not self._content.at_eof():
            self._response.close()

    async def _payloads(self) -> list[bytes]:
        """One network read, or the whole body where the server sent no events but one JSON document (or HTML)."""
        try:
            chunk = await self._content.readany()
            if self._fresh and chunk.strip():
                self._fresh = False
                if chunk.lstrip().startswith((b"{", b"<")):
                    chunk += await self._content.read()
                    self._over = self._reply.done = True
                    return [chunk]
        except TimeoutError:
            self._break_off(self._timed_out())
            return []
        except (aiohttp.ClientError, OSError):
            self._break_off(cut())
            return []
        if chunk:
            return self._decoder.feed(chunk)
        self._over = True
        return [self._decoder.end()]

    def _break_off(self, failure: UpstreamError) -> None:
        """The network failed; after a finish reason nothing is missing."""
        self._over = True
        if self._reply.finish is None:
            self._reply.failure = failure

    def _ending(self) -> list[Delta]:
        try:
            return self._reply.ending()
        except UpstreamError as error:
            self._failure = error
            return []

    def _note_progress(self) -> None:
        self._last_delta = time.monotonic()
        if not self._started:
            self._started = True
            self._patience_seconds = self._between_tokens_seconds
            connection = self._response.connection
            if connection is not None and connection.protocol is not None:
                connection.protocol.read_timeout = self._between_tokens_seconds
                connection.protocol.start_timeout()

    def _timed_out(self) -> UpstreamError:
        return timed_out("between two tokens" if self._started else "before the first token")

    async def _read_to_end(self) -> None:
        if not self._content.at_eof():
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(END_SECONDS):
                    while await self._content.readany():
                        pass
