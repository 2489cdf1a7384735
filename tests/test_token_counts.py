"""How many tokens a question has: as its provider counts, or an estimate that says so. The fake counts words."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from redis.asyncio import Redis

from local.children import HOST
from tests.conftest import StartService
from tests.running import Part, Service
from tests.talking import drained, forget_hot, talk

pytestmark = pytest.mark.anyio

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": None,
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


@pytest.fixture(scope="module", params=["vllm", "llama"])
async def counting_service(start_service: StartService, upstream: Part, request: pytest.FixtureRequest) -> Service:
    """Its provider has a counting endpoint beside /v1."""
    url = f"http://{HOST}:{upstream.port}/{request.param}/v1"
    return await start_service(OPENAI_BASE_URL=url, MODEL="fake-bench-4", worker=False)


async def test_the_provider_counts(counting_service: Service) -> None:
    """The whole question: history, instructions and the new input, exactly as the turn's usage says later."""
    async with talk(counting_service) as client:
        first = await client.responses.create(input="one two three")
        asking: Any = {"input": "five six", "previous_response_id": first.id, "instructions": "Be brief"}
        counted = await client.responses.input_tokens.count(**asking)
        second = await client.responses.create(**asking)
        assert second.usage is not None
        assert counted.to_dict() == {"object": "response.input_tokens", "input_tokens": 3 + 4 + 2 + 2}
        assert counted.input_tokens == second.usage.input_tokens


async def test_an_image_is_no_text_that_could_be_counted(counting_service: Service) -> None:
    async with talk(counting_service) as client:
        content: Any = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PIXEL}]
        counted = await client.responses.input_tokens.count(input=[{"role": "user", "content": content}])
        assert counted.model_extra == {"estimated": True}


async def test_without_a_count_it_is_an_estimate(client: AsyncOpenAI, redis: Redis) -> None:
    """Four bytes a token, of what stands in the history, hot or cold; nothing is kept."""
    conversation = await client.conversations.create(items=[{"role": "user", "content": "x" * 400}])
    await drained(redis)
    before = {key async for key in redis.scan_iter()}
    asking: Any = {"input": "y" * 40, "conversation": conversation.id}
    counted = await client.responses.input_tokens.count(**asking)
    assert counted.to_dict() == {"object": "response.input_tokens", "input_tokens": 110, "estimated": True}
    assert {key async for key in redis.scan_iter()} == before
    await forget_hot(redis)
    assert await client.responses.input_tokens.count(**asking) == counted
    with_tools = await client.responses.input_tokens.count(**asking, tools=[WEATHER])
    assert with_tools.input_tokens > counted.input_tokens
    greek = await client.responses.input_tokens.count(input="ω" * 40)
    assert greek.input_tokens == 20
    assert len([item async for item in client.conversations.items.list(conversation.id)]) == 1


async def test_what_can_not_be_asked_can_not_be_counted(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError) as missing:
        await client.responses.input_tokens.count(input="x", previous_response_id="resp_none")
    assert missing.value.code == "response_not_found"
    no_content: Any = [{"role": "user", "content": 5}]
    with pytest.raises(BadRequestError) as wrong:
        await client.responses.input_tokens.count(input=no_content)
    assert wrong.value.param == "input[0].content"


async def test_a_count_that_fails_is_an_estimate(start_service: StartService, upstream: Part) -> None:
    """As for the answer, the provider may be away; whoever only asks for the cost is not kept waiting."""
    file = upstream.child.log.parent / "counts.toml"
    file.write_text(
        f"""
        [providers.away]
        base_url = "http://{HOST}:1/v1"
        [models.away]
        targets = [{{ provider = "away" }}]
        """,
        encoding="utf-8",
    )
    service = await start_service(UPSTREAMS_FILE=str(file), worker=False)
    async with talk(service) as client:
        counted = await client.responses.input_tokens.count(input="x" * 40)
        assert counted.to_dict() == {"object": "response.input_tokens", "input_tokens": 10, "estimated": True}
