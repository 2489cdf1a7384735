"""GET /v1/conversations/{id}/export: all of it, at once, in little memory, and never cut without a sign."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import orjson
import pytest
from openai import AsyncOpenAI, NotFoundError
from redis.asyncio import Redis

from api.listing.export import PAGE_BYTES
from tests.running import Postgres, Service
from tests.talking import Json, drained, forget_hot, talk

pytestmark = pytest.mark.anyio

LARGE = "x" * (PAGE_BYTES // 2)
LARGE_ITEMS = 60
# Room for some pages on their way, not for the conversation.
MOST_GROWTH_BYTES = LARGE_ITEMS * len(LARGE) // 2


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(service) as one:
        yield one


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def exported(client: AsyncOpenAI, conversation: str) -> list[Json]:
    answer = await client.get(f"/conversations/{conversation}/export", cast_to=httpx2.Response)
    assert answer.headers["content-disposition"] == f'attachment; filename="{conversation}.jsonl"'
    return [orjson.loads(line) for line in answer.content.splitlines()]


async def listed(client: AsyncOpenAI, conversation: str) -> list[Json]:
    return [item.to_dict() async for item in client.conversations.items.list(conversation, order="asc", limit=100)]


@pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])
async def test_all_of_it_in_order(client: AsyncOpenAI, redis: Redis, cold: bool) -> None:
    created = await client.conversations.create(metadata={"a": "b"}, items=[user("first"), user("second\n line")])
    conversation = created.id
    for number in range(6):
        await client.conversations.items.create(
            conversation, items=[user(f"{number} {part}") for part in range(20)] if number else [user(LARGE)] * 5
        )
    await client.responses.create(input="asked", conversation=conversation)
    if cold:
        await forget_hot(redis)
    items = await listed(client, conversation)
    assert len(items) == 2 + 5 + 100 + 2
    if cold:
        await forget_hot(redis)
    assert await exported(client, conversation) == [created.to_dict(), *items]


async def test_what_was_done_a_moment_ago(client: AsyncOpenAI, service: Service, redis: Redis) -> None:
    conversation = (await client.conversations.create(items=[user("0"), user("1")])).id
    await forget_hot(redis)
    await service.worker.terminate()
    try:
        [gone, _] = await listed(client, conversation)
        await client.conversations.items.delete(gone["id"], conversation_id=conversation)
        await client.conversations.items.create(conversation, items=[user("2")])
        await client.conversations.update(conversation, metadata={"new": "yes"})
        head, *items = await exported(client, conversation)
        assert head["metadata"] == {"new": "yes"}
        assert [item["content"][0]["text"] for item in items] == ["1", "2"]
    finally:
        await service.worker.start()


async def with_large_items(client: AsyncOpenAI) -> str:
    conversation = (await client.conversations.create()).id
    for _ in range(LARGE_ITEMS // 4):
        await client.conversations.items.create(conversation, items=[user(LARGE)] * 4)
    return conversation


@pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])
async def test_it_costs_the_memory_of_a_page(client: AsyncOpenAI, service: Service, redis: Redis, cold: bool) -> None:
    conversation = await with_large_items(client)
    await (forget_hot if cold else drained)(redis)
    await service.api.restart()
    before = resident_bytes(service.api.pid)
    peak = size = 0
    url = f"{service.url}/conversations/{conversation}/export"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        async for chunk in answer.content.iter_chunked(PAGE_BYTES):
            size += len(chunk)
            peak = max(peak, resident_bytes(service.api.pid))
    assert size > LARGE_ITEMS * len(LARGE)
    assert peak - before < MOST_GROWTH_BYTES


@pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])
async def test_it_is_deleted_in_the_middle(client: AsyncOpenAI, service: Service, redis: Redis, cold: bool) -> None:
    conversation = await with_large_items(client)
    await (forget_hot if cold else drained)(redis)
    url = f"{service.url}/conversations/{conversation}/export"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert orjson.loads(await answer.content.readline())["id"] == conversation
        await client.conversations.delete(conversation)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


async def test_postgresql_goes_in_the_middle(
    client: AsyncOpenAI, service: Service, redis: Redis, postgres: Postgres
) -> None:
    conversation = await with_large_items(client)
    await forget_hot(redis)
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{service.url}/conversations/{conversation}/export") as answer,
    ):
        await answer.content.readline()
        await postgres.kill()
        try:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        finally:
            await postgres.start()
    assert len(await exported(client, conversation)) == 1 + LARGE_ITEMS


async def test_one_that_there_is_not(client: AsyncOpenAI) -> None:
    gone = (await client.conversations.create()).id
    await client.conversations.delete(gone)
    for name in (gone, "conv_unknown", "resp_1"):
        with pytest.raises(NotFoundError) as error:
            await exported(client, name)
        assert error.value.code == "conversation_not_found"
