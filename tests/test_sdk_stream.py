"""Streams through the official SDK, and what the SDK hides: the bytes, the chunks, and clients that leave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types.responses import ResponseStreamEvent
from redis.asyncio import Redis

from core.queue import QUEUE
from tests.running import Part, Service
from tests.talking import DONE, Json, asked, context, drained, event_of, forget_hot, release, talk, talk_now, text_of
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

OPENING = ["response.created", "response.in_progress"]
TEXT_BEGINS = ["response.output_item.added", "response.content_part.added"]
TEXT_ENDS = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
DELTA: Final = "response.output_text.delta"
CALL_ENDS = ["response.function_call_arguments.done", "response.output_item.done"]
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {}, "strict": None}


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


async def events_of(client: AsyncOpenAI, **body: Any) -> list[ResponseStreamEvent]:
    return [event async for event in await client.responses.create(stream=True, **body)]


def folded(kinds: list[str]) -> list[str]:
    """Runs of deltas told once: how the network cut the text is nobody's business."""
    return [kind for index, kind in enumerate(kinds) if not (kind.endswith(".delta") and kinds[index - 1] == kind)]


def test_words_of_the_built_in_model(service: Service) -> None:
    with talk_now(service) as client:
        events = list(client.responses.create(input="one two  three", stream=True))
        assert [event.type for event in events] == [
            *OPENING, *TEXT_BEGINS, DELTA, DELTA, DELTA, *TEXT_ENDS, "response.completed",
        ]  # fmt: skip
        assert [event.delta for event in events if event.type == DELTA] == ["one", " two", "  three"]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        last = events[-1]
        assert last.type == "response.completed"
        assert client.responses.retrieve(last.response.id) == last.response
        with client.responses.stream(model="echo", input="through the SDK's own accumulator") as stream:
            assert stream.get_final_response().output_text == "through the SDK's own accumulator"


@pytest.mark.parametrize(
    ("model", "body", "kinds"),
    [
        ("fake", {}, [*TEXT_BEGINS, DELTA, *TEXT_ENDS, "response.completed"]),
        ("fake-length", {}, [*TEXT_BEGINS, DELTA, *TEXT_ENDS, "response.incomplete"]),
        ("fake-filter", {}, [*TEXT_BEGINS, DELTA, *TEXT_ENDS, "response.incomplete"]),
        ("fake-cut", {}, [*TEXT_BEGINS, DELTA, *TEXT_ENDS, "response.failed"]),
        ("fake-400", {}, ["response.failed"]),
        ("fake-vllm", {},
         [*TEXT_BEGINS, "response.reasoning.delta", "response.reasoning.done", *TEXT_ENDS[1:],
          *TEXT_BEGINS, DELTA, *TEXT_ENDS, "response.completed"]),
        ("fake-refusal", {},
         [*TEXT_BEGINS, "response.refusal.delta", "response.refusal.done", *TEXT_ENDS[1:], "response.completed"]),
        ("fake-tool", {"tools": [WEATHER]},
         ["response.output_item.added", "response.function_call_arguments.delta", *CALL_ENDS, "response.completed"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("store", [True, False], ids=["stored", "unstored"])
async def test_the_order_of_events(client: AsyncOpenAI, model: str, body: Json, kinds: list[str], store: bool) -> None:
    events = await events_of(client, model=model, input="x", store=store, **body)
    assert folded([event.type for event in events]) == [*OPENING, *kinds]
    last: Any = events[-1]
    if store:
        assert await client.responses.retrieve(last.response.id) == last.response
    else:
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(last.response.id)


async def test_a_streamed_turn_is_the_same_turn(client: AsyncOpenAI, upstream: Part) -> None:
    """Streamed or not, the upstream is asked the same and the conversation gets the same."""
    seen = []
    for stream in (True, False):
        conversation = (await client.conversations.create()).id
        first: Any = await client.responses.create(
            model="fake", input="same turn", conversation=conversation, stream=stream, metadata={"a": "b"}
        )
        if stream:
            first = [event async for event in first][-1].response
        await client.responses.create(input="same end", conversation=conversation)
        parts = [one["body"] for one in await asked(upstream, "same turn")][-2:]
        seen.append((first.output_text, first.usage, first.metadata, parts[0]["messages"], parts[1]["messages"]))
    assert seen[0] == seen[1]


async def test_one_event_is_one_chunk(asking_service: Service) -> None:
    """Read from the socket: LF only, each event in an HTTP chunk of its own, [DONE] at last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", asking_service.api.port)
    body = orjson.dumps({"model": "fake", "input": "chunks", "stream": True})
    head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    headers, _, chunked = answer.partition(b"\r\n\r\n")
    assert headers.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: text/event-stream" in headers.lower()
    chunks = []
    while chunked:
        size, _, chunked = chunked.partition(b"\r\n")
        chunks.append(chunked[: int(size, 16)])
        chunked = chunked[int(size, 16) + 2 :]
    assert chunks[-2:] == [DONE, b""]
    for number, chunk in enumerate(chunks[:-2]):
        assert chunk.endswith(b"\n\n")
        assert event_of(chunk[:-2])["sequence_number"] == number
        assert chunk.startswith(b'event: %b\ndata: {"type":' % event_of(chunk[:-2])["type"].encode())


async def test_text_arrives_while_the_model_still_speaks(client: AsyncOpenAI, upstream: Part) -> None:
    async with await client.responses.create(model="fake-hold-live", input="live", stream=True) as events:
        words = ""
        async for event in events:
            if event.type == DELTA:
                words += event.delta
            if words == "word1 word2 word3 ":
                break
        await release(upstream, "live")
        assert [event.type async for event in events][-1] == "response.completed"


@asynccontextmanager
async def leaving(service: Service, body: Json) -> AsyncIterator[str]:
    """Read the first event of a stream, and after the block go away; the response's id."""
    async with aiohttp.ClientSession() as http, http.post(f"{service.url}/responses", json=body) as answer:
        first = event_of((await answer.content.readuntil(b"\n\n"))[:-2])
        yield first["response"]["id"]
        answer.close()


async def test_a_client_that_leaves_stops_nothing(
    client: AsyncOpenAI, asking_service: Service, upstream: Part, redis: Redis
) -> None:
    conversation = (await client.conversations.create()).id
    body = {"model": "fake-hold-left", "input": "left alone", "conversation": conversation, "stream": True}
    async with leaving(asking_service, body) as response:
        pass
    assert (await client.responses.retrieve(response)).status == "in_progress"
    await release(upstream, "left")

    async def ended() -> bool:
        return (await client.responses.retrieve(response)).status == "completed"

    await wait_until(ended, "the response goes on to its end")
    [request] = await asked(upstream, "left alone")
    assert not request["dropped"]
    await forget_hot(redis)
    whole = (await client.responses.retrieve(response)).output_text
    assert whole.endswith("word32")
    assert [text_of(item) async for item in client.conversations.items.list(conversation)] == [whole, "left alone"]


async def test_a_waiting_client_that_leaves_stops_nothing(asking_service: Service, upstream: Part) -> None:
    """The same without a stream."""
    async with talk(asking_service) as client:
        conversation = (await client.conversations.create()).id
        body = {"model": "fake-hold-gone", "input": "gone away", "conversation": conversation}
        async with aiohttp.ClientSession() as http:
            post = asyncio.create_task(_post(http, f"{asking_service.url}/responses", body))
            await wait_until(lambda: asked(upstream, "gone away"), "the upstream is asked")
            await cancelled(post)
        await release(upstream, "gone")

        async def kept() -> bool:
            return len((await client.conversations.items.list(conversation)).data) == 2

        await wait_until(kept, "the turn goes on to its end")


async def cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def _post(http: aiohttp.ClientSession, url: str, body: Json) -> None:
    async with http.post(url, json=body) as answer:
        await answer.read()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_unstored_turn_ends_with_its_client(
    asking_service: Service, upstream: Part, redis: Redis, stream: bool
) -> None:
    await drained(redis)
    question = f"nobody listens {stream}"
    body = {"model": "fake-hang-middle", "input": question, "stream": stream, "store": False}
    if stream:
        async with leaving(asking_service, body):
            pass
    else:
        async with aiohttp.ClientSession() as http:
            post = asyncio.create_task(_post(http, f"{asking_service.url}/responses", body))
            await wait_until(lambda: asked(upstream, question), "the upstream is asked")
            await cancelled(post)

    async def dropped() -> bool:
        return bool((await asked(upstream, question))[0]["dropped"])

    await wait_until(dropped, "the upstream's request is given up")
    assert await redis.llen(QUEUE) == 0


async def test_a_stream_is_resumed(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    """From any event, while it runs and afterwards; once its log is gone the end alone is told."""
    async with await client.responses.create(model="fake-hold-again", input="again", stream=True) as events:
        head = [await anext(aiter(events)) for _ in range(3)]
        assert head[0].type == "response.created"
        name = head[0].response.id
        late = asyncio.create_task(resumed(client, name, 1))
        await release(upstream, "again")
        whole = [*head, *[event async for event in events]]
    assert await late == whole[2:]
    for after in (0, 5, len(whole) - 2):
        assert await resumed(client, name, after) == whole[after + 1 :]
    assert await resumed(client, name, len(whole) - 1) == []
    await drained(redis)
    await redis.delete(f"log:default:{name}")
    assert [event.type for event in await resumed(client, name, 0)] == ["response.completed"]


async def resumed(client: AsyncOpenAI, response: str, after: int) -> list[ResponseStreamEvent]:
    stream = await client.responses.retrieve(response, stream=True, starting_after=after)
    return [event async for event in stream]


async def test_an_idempotency_key_gives_the_same_stream(asking_service: Service, upstream: Part) -> None:
    headers = {"Idempotency-Key": "the same"}
    body = {"model": "fake", "input": "once only", "stream": True}
    answers = set()
    async with aiohttp.ClientSession() as http:
        for _ in range(3):
            async with http.post(f"{asking_service.url}/responses", json=body, headers=headers) as answer:
                answers.add(await answer.read())
        async with http.post(f"{asking_service.url}/responses", json={"input": "x"}, headers=headers) as answer:
            assert answer.status == 409
    assert len(answers) == 1
    assert len(await asked(upstream, "once only")) == 1


async def test_a_following_turn_sees_a_streamed_one_at_once(client: AsyncOpenAI, upstream: Part) -> None:
    """The terminal event comes after the turn can be read, by turns too."""
    previous = None
    for number in range(10):
        text = f"relay {number}"
        events = await events_of(client, model="fake-bench-1", input=text, previous_response_id=previous)
        last: Any = events[-1]
        previous = last.response.id
        assert len(await context(upstream, text)) == 2 * number + 1
