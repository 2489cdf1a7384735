"""Responses without streaming, through the official SDK; tests/talking.py checks the shape of every answer."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, ConflictError, NotFoundError
from openai.types.responses import ResponseFunctionToolCall
from redis.asyncio import Redis

from core.queue import QUEUE
from tests.running import Part, Service
from tests.talking import Json, asked, context, drained, forget_hot, release, talk, talk_now, text_of

pytestmark = pytest.mark.anyio

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": None,
}
TIME: Any = {**WEATHER, "name": "time"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


def test_hello_with_the_built_in_model(service: Service) -> None:
    with talk_now(service) as client:
        response = client.responses.create(input="hello world")
        assert (response.output_text, response.model, response.status) == ("hello world", "echo", "completed")
        usage = response.usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens, usage.model_extra) == (3, 3, {"estimated": True})
        assert client.responses.retrieve(response.id) == response
        assert [model.id for model in client.models.list()] == ["echo"]


async def test_usage_is_the_providers(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="fake", input="one two three")
    assert response.model == "fake"
    usage = response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (3, 32, 35)
    assert (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens) == (2, 1)
    assert usage.input_tokens_details.cache_write_tokens == 3
    assert not usage.model_extra


async def test_models_are_the_providers(client: AsyncOpenAI) -> None:
    assert {model.id async for model in client.models.list()} == {"fake", "fake-tool"}
    assert (await client.models.retrieve("fake")).id == "fake"
    with pytest.raises(NotFoundError) as error:
        await client.models.retrieve("nothing")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize("form", ["text", "object"])
async def test_a_conversation(client: AsyncOpenAI, upstream: Part, form: str) -> None:
    conversation = await client.conversations.create()
    named: Any = conversation.id if form == "text" else {"id": conversation.id}
    first = await client.responses.create(model="fake-bench-1", input=f"first {form}", conversation=named)
    second = await client.responses.create(input=f"second {form}", conversation=named)
    assert first.conversation is not None
    assert first.conversation.id == conversation.id
    assert await context(upstream, f"second {form}") == [
        f"user: first {form}",
        "assistant: word1",
        f"user: second {form}",
    ]
    kept = [item.id async for item in client.conversations.items.list(conversation.id, order="asc")]
    assert len(kept) == 4
    assert [kept[1], kept[3]] == [first.output[0].id, second.output[0].id]


async def test_a_chain_does_not_inherit_instructions(client: AsyncOpenAI, upstream: Part) -> None:
    first = await client.responses.create(model="fake-bench-1", input="chain 1", instructions="Be brief")
    second = await client.responses.create(model="fake-bench-1", input="chain 2", previous_response_id=first.id)
    third = await client.responses.create(input="chain 3", previous_response_id=second.id, instructions="Be long")
    assert [first.instructions, second.instructions, third.instructions] == ["Be brief", None, "Be long"]
    assert third.previous_response_id == second.id
    past = ["user: chain 1", "assistant: word1"]
    assert await context(upstream, "chain 2") != []
    assert (await asked(upstream, "chain 2"))[0]["body"]["messages"][0]["content"] == "chain 1"
    assert await context(upstream, "chain 3") == [
        "system: Be long", *past, "user: chain 2", "assistant: word1", "user: chain 3",
    ]  # fmt: skip


async def kept(redis: Redis) -> set[bytes]:
    return {key async for key in redis.scan_iter() if not key.startswith(b"{chatQueue}")}


async def test_unstored_leaves_nothing(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    conversation = await client.conversations.create(items=[{"role": "user", "content": "known"}])
    before = await client.responses.create(model="fake-bench-1", input="unstored 0", conversation=conversation.id)
    await client.responses.create(model="fake-bench-1", input="unstored later", conversation=conversation.id)
    await drained(redis)
    keys = await kept(redis)
    alone = await client.responses.create(input="unstored 1", store=False)
    inside = await client.responses.create(input="unstored 2", conversation=conversation.id, store=False)
    after = await client.responses.create(input="unstored 3", previous_response_id=before.id, store=False)
    assert await redis.llen(QUEUE) == 0
    assert await kept(redis) == keys
    past = ["user: known", "user: unstored 0", "assistant: word1"]
    later = ["user: unstored later", "assistant: word1"]
    assert await context(upstream, "unstored 2") == [*past, *later, "user: unstored 2"]
    assert await context(upstream, "unstored 3") == [*past, "user: unstored 3"]
    for response in (alone, inside, after):
        assert (response.status, response.model_extra and response.model_extra["store"]) == ("completed", False)
        for call in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
            with pytest.raises(NotFoundError):
                await call(response.id)
        with pytest.raises(NotFoundError) as error:
            await client.responses.create(input="x", previous_response_id=response.id)
        assert (error.value.code, error.value.param) == ("response_not_found", "previous_response_id")
    assert len([item async for item in client.conversations.items.list(conversation.id)]) == 5


async def test_unstored_reads_a_cold_history(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    first = await client.responses.create(model="fake-bench-1", input="cold unstored 1")
    await forget_hot(redis)
    await client.responses.create(input="cold unstored 2", previous_response_id=first.id, store=False)
    assert await context(upstream, "cold unstored 2") == [
        "user: cold unstored 1", "assistant: word1", "user: cold unstored 2",
    ]  # fmt: skip


@pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])
async def test_a_tool_is_called_and_answers(client: AsyncOpenAI, upstream: Part, redis: Redis, cold: bool) -> None:
    question = f"weather {cold}"
    first = await client.responses.create(model="fake-tool", input=question, tools=[WEATHER])
    [call] = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, call.arguments, call.status) == ("weather", '{"city": "Oslo"}', "completed")
    assert first.output_text == ""
    if cold:
        await forget_hot(redis)
    second = await client.responses.create(
        model="fake-tool",
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        previous_response_id=first.id,
        tools=[WEATHER],
    )
    assert second.output_text.startswith("word1 word2")
    body = (await asked(upstream, question))[-1]["body"]
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert body["messages"] == [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": call.call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.call_id, "content": "rain"},
    ]  # fmt: skip
    [item async for item in client.responses.input_items.list(second.id)]


@pytest.mark.parametrize(
    ("choice", "tools", "sent"),
    [
        (None, ["weather", "time"], None),
        ("auto", ["weather", "time"], None),
        ("none", ["weather", "time"], "none"),
        ("required", ["weather", "time"], "required"),
        ({"type": "function", "name": "time"}, ["weather", "time"],
         {"type": "function", "function": {"name": "time"}}),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "time"}]}, ["time"], None),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
         ["weather"], "required"),
    ],
)  # fmt: skip
async def test_tool_choice(client: AsyncOpenAI, upstream: Part, choice: Any, tools: list[str], sent: Any) -> None:
    question = f"choose {choice}"
    asking = {} if choice is None else {"tool_choice": choice}
    response = await client.responses.create(model="fake", input=question, tools=[WEATHER, TIME], **asking)
    body = (await asked(upstream, question))[-1]["body"]
    assert [tool["function"]["name"] for tool in body["tools"]] == tools
    assert body.get("tool_choice") == sent
    echoed = response.tool_choice
    assert (echoed if isinstance(echoed, str) else echoed.to_dict()) == (choice or "auto")
    assert [tool.to_dict() for tool in response.tools] == [WEATHER, TIME]


async def test_a_tool_that_is_not_allowed_is_not_called(client: AsyncOpenAI) -> None:
    """The model calls weather and time."""
    choice: Any = {"type": "function", "name": "weather"}
    with pytest.raises(APIStatusError) as error:
        await client.responses.create(model="fake-tool-pieces", input="x", tools=[WEATHER, TIME], tool_choice=choice)
    assert (error.value.status_code, error.value.code) == (502, "tool_not_allowed")
    response = await client.responses.create(model="fake-tool-pieces", input="x", tools=[WEATHER, TIME])
    assert [item.to_dict()["name"] for item in response.output] == ["weather", "time"]


async def test_an_image_reaches_the_model(client: AsyncOpenAI, upstream: Part) -> None:
    content: Any = [
        {"type": "input_text", "text": "see this"},
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
    ]
    response = await client.responses.create(model="fake", input=[{"role": "user", "content": content}])
    sent = (await asked(upstream, "see this"))[-1]["body"]["messages"][0]["content"]
    assert sent == [
        {"type": "text", "text": "see this"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    [item] = [one async for one in client.responses.input_items.list(response.id)]
    assert item.to_dict()["content"] == content


SCHEMA: Any = {"name": "city", "description": "Where", "schema": {"type": "object"}, "strict": True}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"extra_body": {"presence_penalty": 1, "frequency_penalty": -1}},
         {"presence_penalty": 1, "frequency_penalty": -1}),
        ({"max_output_tokens": 99}, {"max_tokens": 99}),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_schema", **SCHEMA}}},
         {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        ({"text": {"format": {"type": "text"}}}, {}),
        ({"tools": [WEATHER], "parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ],
)  # fmt: skip
async def test_what_is_set_reaches_the_model_and_nothing_else(
    client: AsyncOpenAI, upstream: Part, given: Json, sent: Json
) -> None:
    question = f"parameters {sorted(given.items())}".replace('"', "'")
    response = await client.responses.create(model="fake", input=question, **given)
    body = (await asked(upstream, question))[-1]["body"]
    body.pop("tools", None)
    assert body == {"model": "fake", "messages": [{"role": "user", "content": question}], **sent}
    told: Any = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "max_output_tokens": None}
    said = {**given, **given.get("extra_body", {})}
    body = response.to_dict()
    assert {name: body[name] for name in told} == {name: said.get(name, value) for name, value in told.items()}
    assert body["text"] == {"format": {"type": "text"}, **given.get("text", {})}


async def test_metadata_and_other_words_come_back(client: AsyncOpenAI, redis: Redis) -> None:
    said: Any = {"metadata": {"a": "b"}, "safety_identifier": "someone", "prompt_cache_key": "key"}
    response = await client.responses.create(input="x", **said)
    await forget_hot(redis)
    for one in (response, await client.responses.retrieve(response.id)):
        assert {name: one.to_dict()[name] for name in said} == said


@pytest.mark.parametrize(("model", "reason"), [("fake-length", "max_output_tokens"), ("fake-filter", "content_filter")])
async def test_an_answer_that_was_cut_short(client: AsyncOpenAI, model: str, reason: str) -> None:
    conversation = await client.conversations.create()
    response = await client.responses.create(model=model, input="x", conversation=conversation.id, max_output_tokens=16)
    assert (response.status, response.output_text, response.max_output_tokens) == ("incomplete", "Hello world", 16)
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == reason
    [item] = [one async for one in client.conversations.items.list(conversation.id, limit=1)][:1]
    assert item.to_dict() == {**response.output[0].to_dict(), "status": "incomplete"}


async def test_a_response_from_its_start_to_its_end(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    """While it runs, once it has ended, and when only PostgreSQL has it."""
    async with await client.responses.create(model="fake-hold-life", input="alive", stream=True) as events:
        opened = await anext(aiter(events))
        assert opened.type == "response.created"
        name = opened.response.id
        running = await client.responses.retrieve(name)
        assert (running.status, running.output, running.usage) == ("in_progress", [], None)
        assert [text_of(one) async for one in client.responses.input_items.list(name)] == ["alive"]
        with pytest.raises(ConflictError) as error:
            await client.responses.delete(name)
        assert error.value.code == "response_running"
        with pytest.raises(ConflictError) as error:
            await client.responses.create(input="x", previous_response_id=name)
        assert (error.value.code, error.value.param) == ("response_running", "previous_response_id")
        await release(upstream, "life")
        [last] = [event async for event in events][-1:]
    assert last.type == "response.completed"
    assert await client.responses.retrieve(name) == last.response
    await forget_hot(redis)
    assert (await client.responses.retrieve(name)).to_dict() == last.response.to_dict()


@pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])
async def test_a_deleted_response(client: AsyncOpenAI, redis: Redis, cold: bool) -> None:
    first = await client.responses.create(model="fake-bench-1", input="to delete")
    if cold:
        await forget_hot(redis)
    await client.responses.delete(first.id)
    for again in range(2):
        calls: list[Any] = [client.responses.retrieve, client.responses.delete, client.responses.input_items.list]
        for call in calls:
            with pytest.raises(NotFoundError):
                await call(first.id)
        for store in (True, False):
            with pytest.raises(NotFoundError):
                await client.responses.create(input="x", previous_response_id=first.id, store=store)
        if not again:
            await forget_hot(redis)


@pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_input_items_in_pages(client: AsyncOpenAI, redis: Redis, order: Any, cold: bool) -> None:
    texts = [f"input {number}" for number in range(12)]
    first = await client.responses.create(model="fake-bench-1", input="before")
    response = await client.responses.create(
        input=[{"role": "user", "content": text} for text in texts], previous_response_id=first.id
    )
    if cold:
        await forget_hot(redis)
    listed = client.responses.input_items.list(response.id, order=order, limit=5)
    page = await listed
    assert (len(page.data), page.has_more) == (5, True)
    assert [text_of(item) async for item in page] == (texts if order == "asc" else texts[::-1])
    with pytest.raises(BadRequestError) as error:
        await client.responses.input_items.list(response.id, after=first.output[0].id or "")
    assert error.value.param == "after"


async def test_a_reference_to_an_item(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    """From the same history it is not doubled; from elsewhere a copy comes in."""
    said = await client.responses.create(model="fake-bench-1", input="elsewhere")
    await drained(redis)
    refer: Any = [{"type": "item_reference", "id": said.output[0].id}, {"role": "user", "content": "about this"}]
    copied = await client.responses.create(input=refer, instructions="copied")
    assert await context(upstream, "copied") == ["system: copied", "assistant: word1", "user: about this"]
    inputs = [item async for item in client.responses.input_items.list(copied.id, order="asc")]
    assert len(inputs) == 2
    assert inputs[0].id != said.output[0].id
    await client.responses.create(input=refer, previous_response_id=said.id, instructions="same")
    assert await context(upstream, "same") == [
        "system: same", "user: elsewhere", "assistant: word1", "user: about this",
    ]  # fmt: skip
