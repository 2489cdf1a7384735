"""/v1/chat/completions through the official SDK; tests/chat_contract.py checks the shape of every answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pydantic
import pytest
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)
from openai.types.chat import ChatCompletionChunk
from redis.asyncio import Redis

from core.queue import QUEUE
from tests.running import Part, Service
from tests.talking import Json, asked, context, drained, forget_hot, release, talk, talk_now
from tests.talking import text_of as text_of_item
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


async def chunks_of(client: AsyncOpenAI, **body: Any) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in await client.chat.completions.create(stream=True, **body)]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_hello_with_the_built_in_model(service: Service) -> None:
    with talk_now(service) as client:
        answer = client.chat.completions.create(model="echo", messages=[user("hello world")])
        [choice] = answer.choices
        assert (choice.message.content, choice.finish_reason, answer.model) == ("hello world", "stop", "echo")
        usage = answer.usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 3, 6)
        assert usage.model_extra == {"estimated": True}
        chunks = list(client.chat.completions.create(model="echo", messages=[user("one two three")], stream=True))
        assert text_of(chunks) == "one two three"
        assert chunks[-1].choices[0].finish_reason == "stop"
        with client.chat.completions.stream(model="echo", messages=[user("accumulated by the SDK")]) as stream:
            assert stream.get_final_completion().choices[0].message.content == "accumulated by the SDK"


async def test_it_leaves_nothing(client: AsyncOpenAI, redis: Redis) -> None:
    keys = {key async for key in redis.scan_iter()}
    for store in (False, True):
        await client.chat.completions.create(model="fake", messages=[user("x")], store=store)
        await chunks_of(client, model="fake", messages=[user("x")], store=store)
    assert await redis.llen(QUEUE) == 0
    assert {key async for key in redis.scan_iter()} <= keys


async def test_messages_and_parameters_go_to_the_provider(client: AsyncOpenAI, upstream: Part) -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
    file = {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk=", "filename": "hi.txt"}}
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages: list[Any] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "all of it"}, image, file], "name": "ann"},
        {"role": "assistant", "content": "let me see", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "assistant", "content": [{"type": "text", "text": "it "}, {"type": "text", "text": "rains"}]},
        {"role": "developer", "content": [{"type": "text", "text": "be long"}]},
        user("and now?"),
    ]
    parameters: Json = {
        "temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.2, "stop": ["END", "STOP"],
        "seed": 7, "logit_bias": {"50256": -100}, "reasoning_effort": "low", "verbosity": "low",
        "parallel_tool_calls": False, "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }  # fmt: skip
    await client.chat.completions.create(
        model="fake-json", messages=messages, max_completion_tokens=9, user="u", n=1, logprobs=False, **parameters
    )
    sent = (await asked(upstream, "all of it"))[-1]["body"]
    assert sent.pop("messages") == [
        messages[0],
        messages[1],
        messages[2],
        messages[3],
        {"role": "assistant", "content": "it rains"},
        {"role": "system", "content": "be long"},
        messages[6],
    ]
    assert sent == {"model": "fake-json", "max_tokens": 9, **parameters}


async def test_a_tool_is_called_and_answers(client: AsyncOpenAI) -> None:
    question: list[Any] = [user("weather?")]
    whole = (await client.chat.completions.create(model="fake-tool", messages=question, tools=[WEATHER])).choices[0]
    assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
    [call] = whole.message.tool_calls or []
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("call_fake", "weather", '{"city": "Oslo"}')
    async with client.chat.completions.stream(model="fake-tool", messages=question, tools=[WEATHER]) as stream:
        streamed = (await stream.get_final_completion()).choices[0]
    assert streamed.finish_reason == "tool_calls"
    [same] = streamed.message.tool_calls or []
    assert (same.id, same.function.name, same.function.arguments) == (
        call.id, call.function.name, call.function.arguments,
    )  # fmt: skip
    said_before: Any = whole.message.to_dict()
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    answer = await client.chat.completions.create(
        model="fake-tool",
        messages=[*question, said_before, result],
        tools=[WEATHER],
    )
    assert (answer.choices[0].message.content or "").startswith("word1 word2")


async def test_several_calls_streamed(client: AsyncOpenAI) -> None:
    tools = [WEATHER, {"type": "function", "function": {"name": "time"}}]
    async with client.chat.completions.stream(model="fake-tool-pieces", messages=[user("x")], tools=tools) as stream:
        calls = (await stream.get_final_completion()).choices[0].message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_a", "weather", '{"city":"Oslo"}'),
        ("call_b", "time", "{}"),
    ]


class Said(pydantic.BaseModel):
    said: str


async def test_a_parsed_answer(service: Service) -> None:
    async with talk(service) as client:
        answer = await client.chat.completions.parse(
            model="echo", messages=[user('{"said": "hello"}')], response_format=Said
        )
        assert answer.choices[0].message.parsed == Said(said="hello")
        async with client.chat.completions.stream(
            model="echo", messages=[user('{"said": "hello"}')], response_format=Said
        ) as stream:
            assert (await stream.get_final_completion()).choices[0].message.parsed == Said(said="hello")


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
        ),
    ],
)
async def test_formats(client: AsyncOpenAI, upstream: Part, wanted: Any, sent: Any) -> None:
    question = f"format {wanted['type']}"
    await client.chat.completions.create(model="fake", messages=[user(question)], response_format=wanted)
    assert (await asked(upstream, question))[-1]["body"].get("response_format") == sent


@pytest.mark.parametrize(
    ("model", "text", "refusal", "reason"),
    [
        ("fake-length", "Hello world", None, "length"),
        ("fake-filter", "Hello world", None, "content_filter"),
        ("fake-refusal", None, "I won't", "stop"),
        ("fake-vllm", "Hello world", None, "stop"),
    ],
)
async def test_how_answers_end(
    client: AsyncOpenAI, model: str, text: str | None, refusal: str | None, reason: str
) -> None:
    [choice] = (await client.chat.completions.create(model=model, messages=[user("x")])).choices
    assert (choice.message.content, choice.message.refusal, choice.finish_reason) == (text, refusal, reason)
    async with client.chat.completions.stream(model=model, messages=[user("x")]) as stream:
        async for _ in stream:
            pass
        [streamed] = stream.current_completion_snapshot.choices
    assert (streamed.message.content or None, streamed.message.refusal, streamed.finish_reason) == (
        text, refusal, reason,
    )  # fmt: skip


async def test_usage_of_a_stream(client: AsyncOpenAI) -> None:
    body: Json = {"model": "fake", "messages": [user("one two three")]}
    assert [chunk.usage for chunk in await chunks_of(client, **body) if chunk.usage] == []
    *others, last = await chunks_of(client, **body, stream_options={"include_usage": True})
    assert {chunk.usage for chunk in others} == {None}
    assert last.usage is not None
    assert (last.choices, last.usage.prompt_tokens, last.usage.completion_tokens) == ([], 3, 32)
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == 2
    assert last.usage.prompt_tokens_details.cache_write_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_answer_has_its_status(client: AsyncOpenAI, stream: bool) -> None:
    body: Json = {"messages": [user("x")], "stream": stream}
    with pytest.raises(RateLimitError) as busy:
        await client.chat.completions.create(model="fake-429-later", **body)
    assert (busy.value.response.headers["retry-after"], busy.value.code) == ("77", "rate_limit_exceeded")
    with pytest.raises(BadRequestError) as long:
        await client.chat.completions.create(model="fake-context", **body)
    assert long.value.code == "context_length_exceeded"


@pytest.mark.parametrize(("model", "code"), [("fake-cut", "upstream_cut"), ("fake-finish-error", "upstream_error")])
async def test_an_error_in_the_middle_is_raised(client: AsyncOpenAI, model: str, code: str) -> None:
    seen: list[ChatCompletionChunk] = []

    async def read() -> None:
        async for chunk in await client.chat.completions.create(model=model, messages=[user("x")], stream=True):
            seen.append(chunk)  # noqa: PERF401 - the error must not lose what came before it

    with pytest.raises(APIError) as error:
        await read()
    assert not isinstance(error.value, APIStatusError)
    assert error.value.code == code
    assert text_of(seen) in ("word1 word2 word3 ", "Hello world")


@pytest.mark.parametrize(
    ("model", "stream"), [("fake-hang-middle", False), ("fake-hang", True), ("fake-hang-middle", True)]
)
async def test_it_stops_when_its_client_leaves(
    asking_service: Service, upstream: Part, model: str, stream: bool
) -> None:
    question = f"leaving {model} {stream}"
    body = {"model": model, "messages": [user(question)], "stream": stream}
    seen = asyncio.Event()

    async def talking() -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{asking_service.url}/chat/completions", json=body) as one,
        ):
            await one.content.readuntil(b"word3")
            seen.set()
            await one.read()

    async def dropped() -> bool:
        return bool((await asked(upstream, question))[-1]["dropped"])

    task = asyncio.create_task(talking())
    if (model, stream) == ("fake-hang-middle", True):
        await seen.wait()
    await wait_until(lambda: asked(upstream, question), "the upstream is asked")
    task.cancel()
    await asyncio.wait([task])
    await wait_until(dropped, "the upstream's request is given up")


def asking(conversation: str, text: str, **more: Any) -> Any:
    return {
        "model": "fake-bench-1",
        "messages": [{"role": "user", "content": text, "name": "ann"}],
        "store": True,
        "metadata": {"conversation": conversation, "topic": "tests"},
        **more,
    }


async def said(client: AsyncOpenAI, conversation: str) -> list[str]:
    return [text_of_item(item) async for item in client.conversations.items.list(conversation, order="asc")]


async def test_a_completion_is_a_turn(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    conversation = (await client.conversations.create(items=[{"role": "user", "content": "known"}])).id
    first = await client.chat.completions.create(**asking(conversation, "chat 1"))
    stream = await client.chat.completions.create(**asking(conversation, "chat 2"), stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "word1"
    await forget_hot(redis)
    third = await client.responses.create(model="fake-bench-1", input="chat 3", conversation=conversation)
    assert await context(upstream, "chat 3") == [
        "user: known", "user: chat 1", "assistant: word1", "user: chat 2", "assistant: word1", "user: chat 3",
    ]  # fmt: skip
    assert await said(client, conversation) == ["known", "chat 1", "word1", "chat 2", "word1", "chat 3", "word1"]
    response = await client.responses.retrieve(first.id.replace("chatcmpl-", "resp_"))
    assert (response.output_text, response.metadata) == ("word1", {"conversation": conversation, "topic": "tests"})
    assert first.usage is not None
    assert response.usage is not None
    assert first.usage.total_tokens == response.usage.total_tokens
    assert third.conversation is not None


@pytest.mark.parametrize("stream", [False, True])
async def test_an_idempotency_key(client: AsyncOpenAI, upstream: Part, redis: Redis, stream: bool) -> None:
    conversation = (await client.conversations.create()).id
    headers = {"Idempotency-Key": f"chat {stream}"}
    question = f"once {stream}"
    bodies = []
    for attempt in range(3):
        raw = client.chat.completions.with_raw_response
        answer = await raw.create(**asking(conversation, question), stream=stream, extra_headers=headers)
        bodies.append((await answer.http_response.aread()).decode())
        if attempt == 1:
            await drained(redis)
            assert not stream or await redis.delete(f"log:default:{response_of(bodies[0])}")
    assert bodies[0] == bodies[1]
    assert {response_of(body) for body in bodies} == {response_of(bodies[0])}
    assert all('"content":"word1"' in body for body in bodies)
    assert len(await asked(upstream, question)) == 1
    assert await said(client, conversation) == [question, "word1"]
    with pytest.raises(ConflictError) as error:
        await client.chat.completions.create(**asking(conversation, "another"), extra_headers=headers)
    assert error.value.code == "idempotency_key_reused"


def response_of(body: str) -> str:
    return "resp_" + body.partition("chatcmpl-")[2].partition('"')[0]


async def test_a_turn_locks_its_conversation(client: AsyncOpenAI, upstream: Part) -> None:
    conversation = (await client.conversations.create()).id
    body = asking(conversation, "holding", model="fake-hold-chat")
    stream = await client.chat.completions.create(**body, stream=True)
    assert (await anext(aiter(stream))).choices[0].delta.role == "assistant"
    for streamed in (False, True):
        with pytest.raises(ConflictError) as error:
            await client.chat.completions.create(**asking(conversation, "second"), stream=streamed)
        assert (error.value.code, error.value.param) == ("conversation_locked", "metadata.conversation")
    await release(upstream, "chat")
    assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == "stop"
    await client.chat.completions.create(**asking(conversation, "third"))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_conversation(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(NotFoundError) as error:
        await client.chat.completions.create(**asking("conv_unknown", "x"), stream=stream)
    assert (error.value.code, error.value.param) == ("conversation_not_found", "metadata.conversation")


async def test_a_turn_that_is_cancelled_is_told_as_broken_off(client: AsyncOpenAI) -> None:
    conversation = (await client.conversations.create()).id
    stream = await client.chat.completions.create(
        **asking(conversation, "to cancel", model="fake-hang-middle"), stream=True
    )
    first = await anext(aiter(stream))
    await client.responses.cancel(first.id.replace("chatcmpl-", "resp_"))
    with pytest.raises(APIError) as error:
        [chunk async for chunk in stream]
    assert error.value.code == "response_interrupted"
    assert await said(client, conversation) == ["to cancel", "word1 word2 word3 "]


async def test_a_turn_whose_conversation_is_deleted(client: AsyncOpenAI) -> None:
    conversation = (await client.conversations.create()).id
    body = asking(conversation, "doomed", model="fake-hang-middle")
    stream = await client.chat.completions.create(**body, stream=True)
    await anext(aiter(stream))
    await client.conversations.delete(conversation)
    with pytest.raises(APIError) as error:
        [chunk async for chunk in stream]
    assert (error.value.code, error.value.param) == ("conversation_not_found", "metadata.conversation")


async def test_a_failed_turn_leaves_the_conversation_as_it_was(client: AsyncOpenAI) -> None:
    conversation = (await client.conversations.create()).id
    for stream in (False, True):
        with pytest.raises(InternalServerError) as error:
            await client.chat.completions.create(**asking(conversation, "x", model="fake-500"), stream=stream)
        assert error.value.code == "upstream_error"
    assert await said(client, conversation) == []
