"""What applications build on, through the SDK's own helpers: structured outputs, parallel calls, reasoning, refusals,
images and files."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, pydantic_function_tool
from openai.types.responses import ParsedResponseFunctionToolCall
from pydantic import BaseModel
from redis.asyncio import Redis

from tests.running import Part, Service
from tests.talking import Json, asked, context, forget_hot, talk

pytestmark = pytest.mark.anyio

PIXEL = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="


class City(BaseModel):
    city: str
    people: int


class Weather(BaseModel):
    """The weather of a city."""

    city: str


class Time(BaseModel):
    """The time."""


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


def tool(model: type[BaseModel], name: str) -> Any:
    function: Any = pydantic_function_tool(model, name=name)["function"]
    return {"type": "function", **function}


WEATHER, TIME = tool(Weather, "weather"), tool(Time, "time")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_answer_in_a_schema_is_parsed(client: AsyncOpenAI, upstream: Part, streamed: bool) -> None:
    question = f"parse {streamed}"
    if streamed:
        async with client.responses.stream(model="fake-city", input=question, text_format=City) as events:
            async for _ in events:
                pass
            response = await events.get_final_response()
    else:
        response = await client.responses.parse(model="fake-city", input=question, text_format=City)
    assert response.output_parsed == City(city="Oslo", people=700000)
    sent = (await asked(upstream, question))[-1]["body"]["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"]) == ("City", True)
    assert sent["schema"]["required"] == ["city", "people"]
    body: Any = response.to_dict(warnings=False)
    assert body["text"]["format"]["schema"] == sent["schema"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_refusal_is_told_and_remembered(client: AsyncOpenAI, upstream: Part, streamed: bool) -> None:
    conversation = await client.conversations.create()
    asking: Any = {"model": "fake-refusal", "conversation": conversation.id, "text_format": City}
    if streamed:
        async with client.responses.stream(input="refuse", **asking) as events:
            kinds = [event.type async for event in events]
            response = await events.get_final_response()
        assert {"response.refusal.delta", "response.refusal.done"} < set(kinds)
    else:
        response = await client.responses.parse(input="refuse", **asking)
    assert response.output_parsed is None
    body: Any = response.to_dict(warnings=False)
    assert [part for item in body["output"] for part in item["content"]] == [{"type": "refusal", "refusal": "I won't"}]
    await client.responses.create(input=f"and now {streamed}", conversation=conversation.id)
    assert await context(upstream, f"and now {streamed}") == [
        "user: refuse", "assistant: I won't", f"user: and now {streamed}",
    ]  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_parallel_calls_and_their_outputs(
    client: AsyncOpenAI, upstream: Part, redis: Redis, streamed: bool
) -> None:
    """Two functions at once, their arguments parsed by the SDK; both outputs go back together."""
    question = f"parallel {streamed}"
    asking: Any = {"model": "fake-tool-pieces", "input": question, "tools": [WEATHER, TIME]}
    if streamed:
        async with client.responses.stream(**asking, parallel_tool_calls=True) as events:
            async for _ in events:
                pass
            response = await events.get_final_response()
    else:
        response = await client.responses.parse(**asking, parallel_tool_calls=True)
    weather, time = response.output
    assert isinstance(weather, ParsedResponseFunctionToolCall)
    assert isinstance(time, ParsedResponseFunctionToolCall)
    assert (weather.name, weather.parsed_arguments) == ("weather", {"city": "Oslo"})
    assert (time.name, time.parsed_arguments) == ("time", {})
    assert (await asked(upstream, question))[-1]["body"]["parallel_tool_calls"] is True
    await forget_hot(redis)
    outputs: Any = [
        {"type": "function_call_output", "call_id": time.call_id, "output": f"noon {streamed}"},
        {"type": "function_call_output", "call_id": weather.call_id, "output": "rain"},
    ]
    await client.responses.create(model="fake", input=outputs, previous_response_id=response.id, tools=[WEATHER, TIME])
    messages = (await asked(upstream, f"noon {streamed}"))[-1]["body"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == [weather.call_id, time.call_id]
    assert [message["tool_call_id"] for message in messages[2:]] == [time.call_id, weather.call_id]


async def test_one_call_at_a_time(client: AsyncOpenAI, upstream: Part) -> None:
    response = await client.responses.create(
        model="fake", input="one at a time", tools=[WEATHER], parallel_tool_calls=False
    )
    assert response.parallel_tool_calls is False
    assert (await asked(upstream, "one at a time"))[-1]["body"]["parallel_tool_calls"] is False


async def test_reasoning_is_kept_and_not_sent_back(client: AsyncOpenAI, upstream: Part) -> None:
    """A chat-completions server gives it as text; what a client brings of another's comes back as it was."""
    asking: Any = {"model": "fake-vllm", "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"}}
    first = await client.responses.create(input="think", **asking)
    thought, said = (item.to_dict() for item in first.output)
    assert thought["content"] == [{"type": "reasoning_text", "text": "Let me think"}]
    assert thought["summary"] == []
    await client.responses.create(input="think on", previous_response_id=first.id)
    assert await context(upstream, "think on") == ["user: think", "assistant: Hello world", "user: think on"]
    secret: Json = {"type": "reasoning", "summary": [], "encrypted_content": "opaque"}
    by_hand: Any = [thought, said, secret, {"role": "user", "content": "think by hand"}]
    second = await client.responses.create(input=by_hand, store=True)
    assert await context(upstream, "think by hand") == ["assistant: Hello world", "user: think by hand"]
    kept = [item.to_dict() async for item in client.responses.input_items.list(second.id, order="asc")]
    assert kept[0]["content"] == thought["content"]
    assert {name: kept[2][name] for name in secret} == secret


@pytest.mark.parametrize("url", [PIXEL, "https://example.com/cat.png"])
async def test_images_and_files(client: AsyncOpenAI, upstream: Part, url: str) -> None:
    """By URL or in the request; also as what a function gave."""
    content: Any = [
        {"type": "input_text", "text": f"look at {url[:8]}"},
        {"type": "input_image", "image_url": url, "detail": "high"},
        {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
    ]
    response = await client.responses.create(
        input=[{"role": "user", "content": content}], include=["message.input_image.image_url"]
    )
    [message] = (await asked(upstream, f"look at {url[:8]}"))[-1]["body"]["messages"]
    assert message["content"][1:] == [
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
        {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
    ]
    [item] = [one.to_dict() async for one in client.responses.input_items.list(response.id)]
    assert item["content"] == content


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, "input"),
        ({"type": "input_file", "file_id": "file-1"}, "input[0].content[0].file_data"),
        ({"type": "input_image", "file_id": "file-1"}, "input[0].content[0].image_url"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "input[0].content[0].type"),
    ],
    ids=["file_url", "file_id", "image_id", "audio"],
)
async def test_what_a_chat_completions_server_can_not_be_sent(client: AsyncOpenAI, part: Any, param: str) -> None:
    conversation = await client.conversations.create()
    with pytest.raises(BadRequestError) as error:
        await client.responses.create(input=[{"role": "user", "content": [part]}], conversation=conversation.id)
    assert error.value.param == param
    assert (await client.conversations.items.list(conversation.id)).data == []


LIKELY: list[Json] = [
    {"token": "Hel", "logprob": -0.25, "bytes": [72, 101, 108], "top_logprobs": [
        {"token": "Hel", "logprob": -0.25, "bytes": [72, 101, 108]},
        {"token": "Good", "logprob": -1.5, "bytes": [71, 111, 111, 100]},
    ]},
    {"token": "~", "logprob": -0.5, "bytes": [126], "top_logprobs": []},
    {"token": "lo", "logprob": -2, "bytes": [108, 111], "top_logprobs": []},
]  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_log_probabilities(client: AsyncOpenAI, upstream: Part, streamed: bool) -> None:
    """Those of a token without text of its own go with the next."""
    question = f"how likely {streamed}"
    asking: Any = {"model": "fake-likely", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    if streamed:
        events = [event async for event in await client.responses.create(input=question, stream=True, **asking)]
        told: list[Any] = [event.to_dict() for event in events]
        deltas = [event for event in told if event["type"] == "response.output_text.delta"]
        assert [one for event in deltas for one in event["logprobs"]] == LIKELY
        [done] = [event for event in told if event["type"] == "response.output_text.done"]
        assert done["logprobs"] == LIKELY
        response: Any = told[-1]["response"]
    else:
        response = (await client.responses.create(input=question, **asking)).to_dict()
    assert response["output"][0]["content"][0]["logprobs"] == LIKELY
    assert response["top_logprobs"] == 2
    body = (await asked(upstream, question))[-1]["body"]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    without = await client.responses.create(model="fake-likely", input=f"not {question}", top_logprobs=2)
    plain: Any = without.to_dict()
    assert plain["output"][0]["content"][0]["logprobs"] == []
    assert "logprobs" not in (await asked(upstream, f"not {question}"))[-1]["body"]


async def test_what_may_be_included(client: AsyncOpenAI) -> None:
    """What belongs to tools that are not here is never there to be included, as in OpenAI's API."""
    known: Any = [
        "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
        "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
        "reasoning.encrypted_content", "message.output_text.logprobs",
    ]  # fmt: skip
    response = await client.responses.create(model="fake", input="x", include=known)
    assert response.status == "completed"
    unknown: Any = ["everything"]
    with pytest.raises(BadRequestError) as error:
        await client.responses.create(model="fake", input="x", include=unknown)
    assert (error.value.code, error.value.param) == ("invalid_value", "include[0]")
