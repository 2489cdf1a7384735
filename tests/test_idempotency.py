"""Idempotency-Key on every POST that writes: a repetition gets the answer of the first time and writes nothing."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, ConflictError
from redis.asyncio import Redis

from tests.ownership import at_rest
from tests.running import Part, Service
from tests.talking import asked, drained, release, talk, text_of
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

numbers = itertools.count()
ITEM: Any = {"type": "message", "role": "user", "content": "once"}
OTHER_ITEM: Any = {"type": "gadget", "parts": [{"size": 3}], "note": "kept as it came"}


@pytest.fixture
def key() -> str:
    return f"key {next(numbers)}: with spaces"


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(service) as one:
        yield one


@pytest.fixture
async def conversation(client: AsyncOpenAI) -> str:
    return (await client.conversations.create(metadata={"topic": "first"})).id


async def texts(client: AsyncOpenAI, conversation: str) -> list[str]:
    return [text_of(item) async for item in client.conversations.items.list(conversation, order="asc")]


async def test_a_conversation_is_made_once(client: AsyncOpenAI, redis: Redis, key: str) -> None:
    headers = {"Idempotency-Key": key}
    made = [
        await client.conversations.create(items=[ITEM], metadata={"a": "b"}, extra_headers=headers) for _ in range(3)
    ]
    assert made[0] == made[1] == made[2]
    assert await texts(client, made[0].id) == ["once"]
    await drained(redis)
    assert 86_000 < await redis.ttl(f"idem:default:{key}") <= 86_400
    await at_rest(redis)


async def test_items_are_added_once(service: Service, redis: Redis, conversation: str, key: str) -> None:
    """Also of a kind that we don't know, and after the hot copy is gone."""
    url, body = f"{service.url}/conversations/{conversation}/items", {"items": [ITEM, OTHER_ITEM]}
    answers = set()
    async with aiohttp.ClientSession() as http:
        for _ in range(2):
            async with http.post(url, json=body, headers={"Idempotency-Key": key}) as answer:
                answers.add((answer.status, await answer.read()))
            await drained(redis)
            await redis.delete(f"conv:default:{conversation}", f"items:default:{conversation}")
        async with http.get(url) as listed:
            assert len((await listed.json())["data"]) == 2
    assert len(answers) == 1


async def test_metadata_is_changed_once(client: AsyncOpenAI, conversation: str, key: str) -> None:
    """A late repetition does not undo what came after it."""
    headers = {"Idempotency-Key": key}
    first = await client.conversations.update(conversation, metadata={"topic": "second"}, extra_headers=headers)
    await client.conversations.update(conversation, metadata={"topic": "third"})
    assert await client.conversations.update(conversation, metadata={"topic": "second"}, extra_headers=headers) == first
    assert (await client.conversations.retrieve(conversation)).metadata == {"topic": "third"}


async def test_a_repetition_after_a_restart(service: Service, client: AsyncOpenAI, conversation: str, key: str) -> None:
    """The process that answered the first time is dead."""
    headers = {"Idempotency-Key": key}
    first = await client.conversations.items.create(conversation, items=[ITEM], extra_headers=headers)
    await service.api.kill()
    await service.api.start()
    async with talk(service) as anew:
        again = await anew.conversations.items.create(conversation, items=[ITEM], extra_headers=headers)
        assert again == first
        assert await texts(anew, conversation) == ["once"]


async def test_the_same_at_the_same_time(client: AsyncOpenAI, conversation: str, key: str) -> None:
    headers = {"Idempotency-Key": key}
    made = await asyncio.gather(
        *(client.conversations.items.create(conversation, items=[ITEM], extra_headers=headers) for _ in range(20))
    )
    assert all(one == made[0] for one in made)
    assert await texts(client, conversation) == ["once"]


async def test_a_key_is_for_one_request(client: AsyncOpenAI, conversation: str, key: str) -> None:
    """Neither another body nor another endpoint gets in with it, whichever came first."""
    headers: Any = {"Idempotency-Key": key}
    await client.conversations.update(conversation, metadata={}, extra_headers=headers)
    for refused in (
        client.conversations.update(conversation, metadata={"a": "b"}, extra_headers=headers),
        client.conversations.create(metadata={}, extra_headers=headers),
        client.conversations.items.create(conversation, items=[ITEM], extra_headers=headers),
        client.responses.create(input="x", extra_headers=headers),
    ):
        with pytest.raises(ConflictError) as told:
            await refused
        assert told.value.code == "idempotency_key_reused"
    headers = {"Idempotency-Key": f"{key}, of a turn"}
    await client.responses.create(input="x", extra_headers=headers)
    with pytest.raises(ConflictError) as told:
        await client.conversations.create(extra_headers=headers)
    assert told.value.code == "idempotency_key_reused"
    assert await texts(client, conversation) == []


async def test_what_was_refused_leaves_its_key_free(
    asking_service: Service, upstream: Part, client: AsyncOpenAI, conversation: str, key: str
) -> None:
    """Here while a turn holds the conversation."""
    headers = {"Idempotency-Key": key}
    async with talk(asking_service) as asking:
        running = asyncio.create_task(
            asking.responses.create(model="fake-hold-refused", input="held", conversation=conversation)
        )

        async def reached() -> bool:
            return bool(await asked(upstream, "held"))

        await wait_until(reached, "the running turn")
        with pytest.raises(ConflictError) as told:
            await client.conversations.items.create(conversation, items=[ITEM], extra_headers=headers)
        assert told.value.code == "conversation_locked"
        await release(upstream, "refused")
        await running
    await client.conversations.items.create(conversation, items=[ITEM], extra_headers=headers)
    assert (await texts(client, conversation))[-1] == "once"
