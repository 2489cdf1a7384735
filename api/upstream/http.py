"""A server of models, over one HTTP session that is kept alive: one try of each call, in the server's dialect."""

import asyncio
import contextlib
import dataclasses
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import orjson
from yarl import URL

from api.upstream.counting import Counter, Way
from api.upstream.exchange import Ask, Count, Delta, Json, Stream
from api.upstream.failures import (
    EmptyStreamError,
    ForeignReasoningError,
    PassingError,
    refused,
    timed_out,
    unreachable,
    unreadable,
)
from api.upstream.flow import Flow
from api.upstream.payloads import Reply
from api.upstream.settings import Timeouts
from api.upstream.sse import Decoder
from core import tracing

OPENAI_HOST = "api.openai.com"
# An error's body is read this far: enough for any message, too little to hurt.
ERROR_BYTES = 64 * 1024
# aiohttp warns above this size, for it writes such a body in one go; a file object goes in pieces.
LARGE_BODY_BYTES = 1024 * 1024
# Nobody waits longer for a count: an estimate will do.
COUNT_SECONDS = 5.0


class Request(Protocol):
    """The body of a question. `openai`: the server is OpenAI's own, which knows more than others."""

    def __call__(self, ask: Ask, *, stream: bool, openai: bool) -> Json: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    path: str
    request: Request
    reply: Callable[[Ask, str], Reply]
    ways: tuple[Way, ...]
    """In which the server may count tokens."""
    counts_beside: bool = False
    """The endpoints for it are beside `/v1`, not below `path`."""


class _Whole:
    """A stream that was over when it came."""

    def __init__(self, deltas: list[Delta]) -> None:
        self.first = deltas

    async def read(self) -> list[Delta]:
        return []

    def close(self) -> None:
        pass


class HttpUpstream:
    """Made outside of an event loop, it opens its session with the first request."""

    def __init__(self, dialect: Dialect, url: str, key: str, timeouts: Timeouts) -> None:
        self._dialect = dialect
        self._url = URL(f"{url}/{dialect.path}")
        self._told: tracing.Attributes = {
            "http.request.method": "POST",
            "url.full": str(self._url.with_user(None).with_query(None)),
            "server.address": self._url.host or "",
            "server.port": self._url.port or 0,
        }
        self._models_url = URL(f"{url}/models")
        self._openai = self._url.host == OPENAI_HOST
        self._beside = URL(url.removesuffix("/v1")) if dialect.counts_beside else self._url
        self._counter = Counter(self._ask_beside, dialect.ways, self._counted)
        self._key = key
        self._timeouts = timeouts
        self._stream_timeout = self._client_timeout(self._timeouts.first_token)
        self._whole_timeout = self._client_timeout(self._timeouts.whole)
        self._opened: aiohttp.ClientSession | None = None

    async def begin(self, ask: Ask) -> Stream:
        try:
            return await self._begin(ask)
        except ForeignReasoningError:
            return await self._begin(_without_reasoning(ask))
        except EmptyStreamError:
            # llama.cpp's Python server answers so where the prompt is too long. Not streamed, it says what is wrong.
            try:
                return _Whole(await self.complete(ask))
            except PassingError:
                # It closes the connection after such a stream, which is back in the pool by then.
                return _Whole(await self.complete(ask))

    async def complete(self, ask: Ask) -> list[Delta]:
        try:
            return await self._complete(ask)
        except ForeignReasoningError:
            return await self._complete(_without_reasoning(ask))

    async def count(self, ask: Ask) -> Count:
        return await self._counter.count(ask)

    def _counted(self, ask: Ask) -> Json:
        return self._dialect.request(ask, stream=False, openai=False)

    async def models(self) -> list[str]:
        response = await self._sent(self._session.get(self._models_url, timeout=self._stream_timeout))
        try:
            return [model["id"] for model in orjson.loads(await _read(response))["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise unreadable("a list of models that can't be read") from error

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def _begin(self, ask: Ask) -> Stream:
        """Send the question and wait for the first token: the part that may be tried again."""
        body = orjson.dumps(self._dialect.request(ask, stream=True, openai=self._openai))
        asked_at = asyncio.get_running_loop().time()
        response = await self._post(body, self._stream_timeout)
        reply = self._dialect.reply(ask, self._key)
        flow = Flow(response, reply, asked_at, self._timeouts.first_token, self._timeouts.between_tokens)
        try:
            flow.first = await flow.read()
        except BaseException:
            flow.close()
            raise
        return flow

    async def _complete(self, ask: Ask) -> list[Delta]:
        body = orjson.dumps(self._dialect.request(ask, stream=False, openai=self._openai))
        response = await self._post(body, self._whole_timeout)
        answer = await _read(response)
        reply = self._dialect.reply(ask, self._key)
        reply.done = True
        if answer.lstrip().startswith((b"{", b"<")):
            return reply.read([answer]) + reply.ending()
        decoder = Decoder()
        return reply.read([*decoder.feed(answer), decoder.end()]) + reply.ending()

    async def _ask_beside(self, path: str, body: Json) -> Json | None:
        """Another endpoint of the server."""
        data = io.BytesIO(orjson.dumps(body))
        try:
            async with (
                asyncio.timeout(COUNT_SECONDS),
                self._session.post(self._beside / path, data=data, allow_redirects=False) as response,
            ):
                answer = orjson.loads(await response.read()) if response.status == 200 else None
        except ValueError:
            return None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise unreachable(error) from error
        if response.status >= 500:
            raise unreadable(f"HTTP {response.status}")
        return answer if isinstance(answer, dict) else None

    async def _post(self, body: bytes, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:  # noqa: ASYNC109
        data = body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body)
        with tracing.span("POST", "client", self._told):
            parent = tracing.traceparent()
            headers = {"traceparent": parent} if parent else None
            return await self._sent(
                self._session.post(self._url, data=data, timeout=timeout, allow_redirects=False, headers=headers)
            )

    async def _sent(self, request: Awaitable[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
        """The response if it is one with HTTP 200; raises what its status means otherwise."""
        try:
            response = await request
        except TimeoutError as error:
            raise timed_out("before its answer began") from error
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error) from error
        if tracing.recorded() is not None:
            tracing.note({"http.response.status_code": response.status})
        if response.status == 200:
            return response
        body = b""
        try:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                body = await response.content.read(ERROR_BYTES)
        finally:
            response.close()
        raise refused(response.status, body, response.headers, self._key)

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers,
            )
        return self._opened

    def _client_timeout(self, read: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=self._timeouts.whole, connect=self._timeouts.connect, sock_read=read)


def _without_reasoning(ask: Ask) -> Ask:
    """What the conversation's provider thought before; another one that steps in goes on without."""
    return dataclasses.replace(ask, items=[item for item in ask.items if item["type"] != "reasoning"])


async def _read(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read()
    except TimeoutError as error:
        raise timed_out("in the middle of its answer") from error
    except (aiohttp.ClientError, OSError) as error:
        raise unreachable(error) from error
