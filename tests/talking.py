"""The official SDK, with every answer checked on its way to the test, and what tests look at beside it."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, cast

import aiohttp
import httpx2
import orjson
import pytest
from openai import AsyncOpenAI, BaseModel, OpenAI
from redis.asyncio import Redis

from core.queue import QUEUE
from tests.chat_contract import check_chunks, check_completion
from tests.contract import validate_compaction, validate_event, validate_item, validate_response, validate_stream
from tests.documented import check_documented
from tests.running import Part, Service
from tests.waiting import wait_until

Json = dict[str, Any]
NO_KEY = "none"
ERROR_FIELDS = {"message", "type", "param", "code"}
# Items of other types are the client's own affair; the specification knows nothing of them.
KNOWN_ITEMS = {"message", "function_call", "function_call_output", "reasoning"}
DONE = b"data: [DONE]\n\n"


def talk(service: Service, api_key: str = NO_KEY) -> AsyncOpenAI:
    """A client that tries once and checks what it gets; `async with` closes it."""
    http = httpx2.AsyncClient(transport=_CheckedTransport(), timeout=20)
    return AsyncOpenAI(base_url=service.url, api_key=api_key, max_retries=0, http_client=http)


def talk_now(service: Service) -> OpenAI:
    """The same for tests that use the synchronous SDK."""
    http = httpx2.Client(transport=_CheckedTransportNow(), timeout=20)
    return OpenAI(base_url=service.url, api_key=NO_KEY, max_retries=0, http_client=http)


class _Checked(httpx2.AsyncByteStream, httpx2.SyncByteStream):
    """An answer's body; once its end is reached the whole is checked. Who leaves early leaves it unchecked."""

    def __init__(self, request: httpx2.Request, response: httpx2.Response) -> None:
        self._request, self._response, self._stream = request, response, response.stream
        # The SDK reads up to [DONE], and then the rest with another iterator.
        self._parts: list[bytes] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in cast("httpx2.AsyncByteStream", self._stream):
            self._parts.append(part)
            yield part
        self._check()

    def __iter__(self) -> Iterator[bytes]:
        for part in cast("httpx2.SyncByteStream", self._stream):
            self._parts.append(part)
            yield part
        self._check()

    def _check(self) -> None:
        body, url = b"".join(self._parts), self._request.url
        status, headers = self._response.status_code, self._response.headers
        check_answer(status, headers, body, url.params)
        check_documented(self._request.method, url.path, status, headers, body)

    async def aclose(self) -> None:
        await cast("httpx2.AsyncByteStream", self._stream).aclose()

    def close(self) -> None:
        cast("httpx2.SyncByteStream", self._stream).close()


class _CheckedTransport(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        response.stream = _Checked(request, response)
        return response


class _CheckedTransportNow(httpx2.HTTPTransport):
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        response.stream = _Checked(request, response)
        return response


def check_answer(status: int, headers: Mapping[str, str], body: bytes, query: Mapping[str, str]) -> None:
    """What holds for every answer to a good or bad request, streamed or not."""
    assert headers["x-request-id"].startswith("req_")
    if headers["content-type"].startswith("text/event-stream"):
        assert headers["cache-control"] == "no-cache"
        assert headers["x-accel-buffering"] == "no"
        if b'"chat.completion.chunk"' in body:
            check_chunks(body)
        else:
            check_events(events_of(body), whole="starting_after" not in query)
        return
    if headers["content-type"] == "application/x-ndjson":
        assert body.endswith(b"}\n")
        return
    assert headers["content-type"] == "application/json"
    answer = orjson.loads(body)
    if status == 200:
        (check_completion if answer.get("object") == "chat.completion" else _check_object)(answer)
        return
    assert answer.keys() == {"error"}
    assert answer["error"].keys() == ERROR_FIELDS
    assert status not in (429, 503) or int(headers["retry-after"]) >= 1


def events_of(body: bytes) -> list[Json]:
    """The events of a whole stream; fails unless its bytes are as promised."""
    assert b"\r" not in body
    *frames, done, rest = body.split(b"\n\n")
    assert (done + b"\n\n", rest) == (DONE, b"")
    return [event_of(frame) for frame in frames if frame != b": keep-alive"]


def event_of(frame: bytes) -> Json:
    """The event of one frame without its empty line."""
    name, value = frame.split(b"\n")
    event: Json = orjson.loads(value.removeprefix(b"data: "))
    assert value.startswith(b"data: {")
    assert name == f"event: {event['type']}".encode()
    return event


def check_events(events: list[Json], *, whole: bool = True) -> None:
    try:
        if whole:
            validate_stream(events)
        for event in events:
            validate_event(event)
    except pytest.skip.Exception:
        pass  # without the specification only tests/test_contract.py is skipped


def _check_object(answer: Json) -> None:
    try:
        match answer:
            case {"deleted": True}:
                assert answer.keys() == {"id", "object", "deleted"}
            case {"object": "response" | "response.compaction" as kind}:
                (validate_response if kind == "response" else validate_compaction)(answer)
            case {"object": "conversation"}:
                assert answer.keys() == {"id", "object", "created_at", "metadata"}
            case {"object": "list", "data": [*data], "has_more": bool(), "first_id": first, "last_id": last}:
                assert (first, last) == ((data[0]["id"], data[-1]["id"]) if data else (None, None))
                for item in data:
                    _check_item(item)
            case {"object": "list" | "model" | "response.input_tokens"}:
                pass
            case _:
                _check_item(answer)
    except pytest.skip.Exception:
        pass  # as above


def _check_item(item: Json) -> None:
    assert item["id"]
    if item.get("object") == "conversation":
        return  # in the list of them
    if item["type"] in KNOWN_ITEMS:
        validate_item(item)


def text_of(item: BaseModel) -> str:
    """What a message says in its first part."""
    body: Json = item.to_dict()
    return str(body["content"][0]["text"])


async def asked(upstream: Part, text: str) -> list[Json]:
    """The requests that the upstream got with this text in them, oldest first: {"body", "headers", "dropped"}."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{upstream.host}:{upstream.port}/requests") as answer,
    ):
        return [one for one in await answer.json() if text in orjson.dumps(one["body"]).decode()]


async def context(upstream: Part, text: str) -> list[str]:
    """What the last question with this text held, as "role: text" lines."""
    messages = (await asked(upstream, text))[-1]["body"]["messages"]
    return [f"{message['role']}: {message['content']}" for message in messages]


async def release(upstream: Part, name: str) -> None:
    """Let `fake-hold-NAME` and `fake-gate-NAME` go on."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{upstream.host}:{upstream.port}/release/{name}") as answer,
    ):
        assert answer.status == 200


async def drained(redis: Redis) -> None:
    async def empty() -> bool:
        return await redis.llen(QUEUE) == 0

    await wait_until(empty, "an empty queue")


async def forget_hot(redis: Redis) -> None:
    """What Redis may do at any time once the worker has stored everything: drop all that has a time to live."""
    await drained(redis)
    async for key in redis.scan_iter():
        if await redis.ttl(key) >= 0:
            await redis.delete(key)
    left = [key async for key in redis.scan_iter("conv:*")]
    assert not left, f"stored, and yet without a time to live: {left}"
