"""One streamed answer on the network: reads it, watches the clock, and gives the connection back."""

import asyncio
import contextlib

import aiohttp

from api.upstream.exchange import Delta, UpstreamError
from api.upstream.failures import EmptyStreamError, cut, timed_out
from api.upstream.payloads import Reply
from api.upstream.sse import Decoder

# After [DONE] only the end of the HTTP body is missing. A server that keeps it back costs a new connection, not a wait.
END_SECONDS = 0.25


class Flow:
    """`read` gives what each network read brought and, last, Usage and Finish; then an empty list."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        reply: Reply,
        asked_at: float,
        first_token_seconds: float,
        between_tokens_seconds: float,
    ) -> None:
        """`asked_at` is the loop's time: the first token's clock runs since then."""
        self.first: list[Delta] = []
        self._response = response
        self._content = response.content
        self._reply = reply
        self._decoder = Decoder()
        self._fresh = True
        self._started = False
        self._over = False
        self._failure: UpstreamError | None = None
        self._loop = asyncio.get_running_loop()
        self._between_tokens_seconds = between_tokens_seconds
        self._patience_seconds = first_token_seconds
        self._waiting_since: float | None = asked_at
        connection = response.connection
        if connection is not None and connection.protocol is not None:
            # aiohttp makes and cancels a timer with each read, a seventh of a stream's cost: ours looks now and then.
            connection.protocol.read_timeout = None
            connection.protocol.start_timeout()
        self._watch = self._loop.call_at(asked_at + first_token_seconds, self._look)

    async def read(self) -> list[Delta]:
        """Raises UpstreamError, but not before everything that came ahead of the failure was returned."""
        if self._started:
            self._waiting_since = self._loop.time()
        while not self._over:
            deltas = self._reply.read(await self._payloads())
            if self._over or self._reply.done or self._reply.failure is not None:
                self._over = True
                deltas += self._ending()
            if deltas:
                self._waiting_since = None
                if not self._started:
                    self._started = True
                    self._patience_seconds = self._between_tokens_seconds
                    self._watch.cancel()
                    self._look()
                return deltas
        if self._failure is not None:
            raise self._failure
        await self._read_to_end()
        return []

    def _look(self) -> None:
        """End a wait that lasts too long. Only deltas end a wait (comments keep the socket busy, not the client), and
        the time that our own reader takes between two reads is nobody's fault."""
        now = self._loop.time()
        due = (now if self._waiting_since is None else self._waiting_since) + self._patience_seconds
        if due <= now:
            self._content.set_exception(TimeoutError())
        else:
            self._watch = self._loop.call_at(due, self._look)

    def close(self) -> None:
        """Drop the connection unless the body was read to its end; then it is in the pool already."""
        self._watch.cancel()
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
        if self._fresh:
            raise EmptyStreamError
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

    def _timed_out(self) -> UpstreamError:
        return timed_out("between two tokens" if self._started else "before the first token")

    async def _read_to_end(self) -> None:
        if not self._content.at_eof():
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(END_SECONDS):
                    while await self._content.readany():
                        pass
