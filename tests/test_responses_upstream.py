"""A provider that speaks the Responses API itself, as the service's own clients see it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError
from redis.asyncio import Redis

from api.turn.rebuilding import rebuild
from local.children import HOST
from tests.chatting import ask, rest, stream
from tests.conftest import StartService
from tests.fake_responses import CITED, THOUGHT
from tests.running import Part, Service
from tests.talking import asked, forget_hot, talk

pytestmark = pytest.mark.anyio

CITATION = {"type": "url_citation", **CITED}
WEATHER: Any = {
    "type": "function", "name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}  # fmt: skip


@pytest.fixture(scope="module")
async def service(start_service: StartService, upstream: Part, folder: Path) -> Service:
    file = folder / "native.toml"
    file.write_text(
        f"""
        [providers.native]
        kind = "responses"
        base_url = "http://{HOST}:{upstream.port}/v1"
        retries = 0
        breaker_failures = 0
        [providers.chat]
        base_url = "http://{HOST}:{upstream.port}/v1"
        [models."*"]
        targets = [{{ provider = "native" }}]
        [models.either]
        targets = [{{ provider = "native", model = "fake-500" }}, {{ provider = "chat", model = "fake-bench-2" }}]
        """,
        encoding="utf-8",
    )
    return await start_service(UPSTREAMS_FILE=str(file), MODEL="fake-history")


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(service) as one:
        yield one


async def output_of(client: AsyncOpenAI, model: str, *, streamed: bool, **body: Any) -> list[dict[str, Any]]:
    """Without the ids, which are ours. A stream is checked event by event on its way here; and what another process
    would make of its events, had this one died just before the end, is the same."""
    if not streamed:
        response = await client.responses.create(model=model, input="x", **body)
    else:
        events = [event async for event in await stream(client, "x", model=model, **body)]
        response = events[-1].response  # type: ignore[union-attr] # the terminal event
        assert rebuild([event.to_dict() for event in events[:-1]]) == [item.to_dict() for item in response.output]
    assert response.status == "completed"
    return [{name: value for name, value in item.to_dict().items() if name != "id"} for item in response.output]


def said(text: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}
    return {"type": "message", "status": "completed", "role": "assistant", "content": [part]}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_items_come_as_the_provider_makes_them(client: AsyncOpenAI, streamed: bool) -> None:
    thought = {"type": "reasoning", "summary": THOUGHT["summary"], "content": [], "encrypted_content": "sealed"}
    bare = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Let me think"}]}
    hello = said("Hello world")
    for model, expected in {
        "fake-plain": [hello],
        "fake-reasoning": [thought, hello],
        "fake-sealed": [{**thought, "summary": []}, hello],
        "fake-thinking": [bare, hello],
        "fake-two-messages": [said("Hello"), said("world")],
        "fake-cited": [said("Hello world", CITATION)],
    }.items():
        assert await output_of(client, model, streamed=streamed) == expected, model


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_tools_run_at_the_client(client: AsyncOpenAI, upstream: Part, streamed: bool) -> None:
    conversation = (await client.conversations.create()).id
    [call] = await output_of(client, "fake-tool", streamed=streamed, conversation=conversation, tools=[WEATHER])
    assert (call["name"], call["arguments"], call["call_id"]) == ("weather", '{"city": "Oslo"}', "call_fake")
    result: Any = {"type": "function_call_output", "call_id": "call_fake", "output": f"rain {streamed}"}
    after = await client.responses.create(
        model="fake-tool", input=[result], conversation=conversation, tools=[WEATHER], max_output_tokens=16
    )
    assert after.output_text.startswith("word1 word2")
    [request] = await asked(upstream, f"rain {streamed}")
    assert [item["type"] for item in request["body"]["input"]] == ["message", "function_call", "function_call_output"]
    assert request["body"]["tools"][0]["name"] == "weather"


async def test_a_model_gets_its_own_thoughts_back(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    first = await client.responses.create(
        model="fake-reasoning", input="think", include=["reasoning.encrypted_content"]
    )
    await forget_hot(redis)
    second = await client.responses.create(input="and now", previous_response_id=first.id, reasoning={"effort": "low"})
    assert second.output_text == "user: think\nreasoning: sealed\nassistant: Hello world\nuser: and now"
    [request] = await asked(upstream, "and now")
    assert (request["body"]["store"], request["body"]["reasoning"]) == (False, {"effort": "low"})
    assert request["body"]["include"] == ["reasoning.encrypted_content"]
    await client.responses.create(input="without thoughts")
    [plain] = await asked(upstream, "without thoughts")
    assert "include" not in plain["body"], "models that don't reason refuse the word"


@pytest.mark.parametrize(
    ("model", "status", "reason"),
    [("fake-length", "incomplete", "max_output_tokens"), ("fake-filter", "incomplete", "content_filter")],
)
async def test_an_answer_that_stops_early_says_why(client: AsyncOpenAI, model: str, status: str, reason: str) -> None:
    response = await client.responses.create(model=model, input="x")
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == (status, reason)
    assert response.output_text == "Hello world"


@pytest.mark.parametrize(
    ("model", "text", "code"),
    [
        ("fake-no-end", "Hello world", "upstream_cut"),
        ("fake-error-event", "Hello world", "upstream_error"),
        ("fake-failed", "Hello world", "upstream_error"),
        ("fake-failed-first", "", "upstream_rejected"),
        ("fake-500", "", "upstream_error"),
    ],
)
async def test_what_is_not_whole_is_not_told_as_whole(client: AsyncOpenAI, model: str, text: str, code: str) -> None:
    events = [event async for event in await stream(client, "x", model=model)]
    failed: Any = events[-1]
    assert (failed.type, failed.response.error.code, failed.response.output_text) == ("response.failed", code, text)
    assert await client.responses.retrieve(failed.response.id) == failed.response
    with pytest.raises(APIStatusError) as error:
        await client.responses.create(model=model, input="x")
    assert error.value.code == code


async def test_a_provider_of_the_other_kind_steps_in(client: AsyncOpenAI) -> None:
    """Also for parameters that only chat completions know."""
    seeded: dict[str, Any] = {"model": "either", "messages": [{"role": "user", "content": "x"}], "seed": 1}
    completion = await client.chat.completions.create(**seeded)
    assert completion.choices[0].message.content == "word1 word2"
    with pytest.raises(BadRequestError, match="does not know: seed"):
        await client.chat.completions.create(**{**seeded, "model": "fake-plain"})
    completion = await client.chat.completions.create(model="fake-plain", messages=seeded["messages"])
    assert completion.choices[0].message.content == "Hello world"
    assert await rest(await stream(client, "x", model="either")) == ("word1 word2", "response.completed")
    assert await ask(client, "x", model="either") == "word1 word2"
