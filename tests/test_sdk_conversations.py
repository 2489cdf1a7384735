"""The eight endpoints of the Conversations API through the official SDK, hot and cold."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, ConflictError, NotFoundError
from redis.asyncio import Redis

from tests.running import Part, Service
from tests.talking import Json, asked, context, drained, forget_hot, release, talk, talk_now, text_of
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

HOT_AND_COLD = pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def texts(client: AsyncOpenAI, conversation: str, **query: Any) -> list[str]:
    return [text_of(item) async for item in client.conversations.items.list(conversation, **query)]


async def with_items(client: AsyncOpenAI, count: int) -> str:
    """A conversation with so many messages "item 0", "item 1", …, created twenty at a time."""
    conversation = await client.conversations.create()
    for first in range(0, count, 20):
        items = [user(f"item {number}") for number in range(first, min(first + 20, count))]
        created = await client.conversations.items.create(conversation.id, items=items)
        assert [text_of(item) for item in created.data] == [item["content"] for item in items]
    return conversation.id


@asynccontextmanager
async def running(client: AsyncOpenAI, upstream: Part, conversation: str, gate: str) -> AsyncIterator[str]:
    """A turn of this conversation that waits after its first words; the response's id. It ends with the block."""
    async with await client.responses.create(
        model=f"fake-hold-{gate}", input=gate, conversation=conversation, stream=True
    ) as events:
        opened = await anext(aiter(events))
        assert opened.type == "response.created"
        yield opened.response.id
        await release(upstream, gate)
        assert [event.type async for event in events][-1] == "response.completed"


def test_its_life_with_the_synchronous_sdk(service: Service) -> None:
    with talk_now(service) as client:
        conversation = client.conversations.create(items=[user("first")], metadata={"topic": "a"})
        assert conversation.metadata == {"topic": "a"}
        assert client.conversations.retrieve(conversation.id) == conversation
        updated = client.conversations.update(conversation.id, metadata={"topic": "b"})
        assert (updated.metadata, updated.created_at) == ({"topic": "b"}, conversation.created_at)
        [added] = client.conversations.items.create(conversation.id, items=[user("second")]).data
        found = client.conversations.items.retrieve(added.id or "", conversation_id=conversation.id)
        assert found == added
        assert [text_of(item) for item in client.conversations.items.list(conversation.id)] == ["second", "first"]
        assert client.conversations.items.delete(added.id or "", conversation_id=conversation.id) == updated
        assert [text_of(item) for item in client.conversations.items.list(conversation.id)] == ["first"]
        assert client.conversations.delete(conversation.id).deleted
        with pytest.raises(NotFoundError):
            client.conversations.retrieve(conversation.id)


@HOT_AND_COLD
async def test_all_pages(client: AsyncOpenAI, redis: Redis, cold: bool) -> None:
    conversation = await with_items(client, 45)
    whole = [f"item {number}" for number in range(45)]
    if cold:
        await forget_hot(redis)
    assert await texts(client, conversation) == whole[::-1]
    assert await texts(client, conversation, order="asc") == whole
    assert await texts(client, conversation, order="desc", limit=100) == whole[::-1]
    assert await texts(client, conversation, order="asc", limit=1) == whole
    page = await client.conversations.items.list(conversation, order="asc", limit=45)
    assert (len(page.data), page.has_more) == (45, False)
    page = await client.conversations.items.list(conversation, order="desc", limit=44)
    assert (len(page.data), page.has_more, page.last_id) == (44, True, page.data[-1].id)
    page = await client.conversations.items.list(conversation, after=page.last_id or "")
    assert ([text_of(item) for item in page.data], page.has_more) == (["item 0"], False)
    with pytest.raises(BadRequestError) as error:
        await client.conversations.items.list(conversation, after="msg_unknown")
    assert (error.value.code, error.value.param) == ("invalid_value", "after")


@HOT_AND_COLD
async def test_an_empty_conversation(client: AsyncOpenAI, redis: Redis, cold: bool) -> None:
    conversation = await client.conversations.create()
    if cold:
        await forget_hot(redis)
    assert await client.conversations.retrieve(conversation.id) == conversation
    assert conversation.metadata == {}
    assert (await client.conversations.items.list(conversation.id)).to_dict() == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
    }  # fmt: skip
    answer = await client.responses.create(input="its first", conversation=conversation.id)
    assert answer.output_text == "user: its first"


GIVEN_AND_KEPT: list[tuple[Json, Json]] = [
    (user("plain"), {"role": "user", "status": "completed", "content": [{"type": "input_text", "text": "plain"}]}),
    ({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rule"}]},
     {"role": "developer", "status": "completed", "content": [{"type": "input_text", "text": "rule"}]}),
    ({"role": "assistant", "content": "said"},
     {"role": "assistant", "status": "completed",
      "content": [{"type": "output_text", "text": "said", "annotations": [], "logprobs": []}]}),
    ({"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
     {"role": "user", "status": "completed",
      "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"}]}),
    ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, {"status": "completed"}),
    ({"type": "function_call_output", "call_id": "c", "output": "done"}, {"status": "completed"}),
    ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]}, {}),
    ({"type": "from_the_future", "n": 1.5, "big": 2**63, "deep": {"list": [None, True, "ü\u2028", {"a": []}]}}, {}),
]  # fmt: skip


async def test_every_type_of_item_comes_back(client: AsyncOpenAI, redis: Redis) -> None:
    given: Any = [item for item, _ in GIVEN_AND_KEPT]
    conversation = await client.conversations.create(items=given)
    wanted = [{"type": "message", **item, **kept} for item, kept in GIVEN_AND_KEPT]

    async def seen() -> list[Json]:
        # The SDK's types know nothing of the future: its bytes do.
        answer = await client.conversations.items.with_raw_response.list(conversation.id, order="asc")
        listed: list[Json] = orjson.loads(answer.content)["data"]
        for item in listed:
            one = await client.conversations.items.with_raw_response.retrieve(
                item["id"], conversation_id=conversation.id
            )
            assert orjson.loads(one.content) == item
        return listed

    hot = await seen()
    assert [{name: value for name, value in item.items() if name != "id"} for item in hot] == wanted
    await forget_hot(redis)
    assert await seen() == hot


@HOT_AND_COLD
async def test_items_and_metadata_change_after_a_turn(
    client: AsyncOpenAI, upstream: Part, redis: Redis, cold: bool
) -> None:
    conversation = await client.conversations.create(metadata={"a": "1"})
    first = await client.responses.create(model="fake-bench-1", input=f"changed {cold}", conversation=conversation.id)
    for step in (
        lambda: client.conversations.update(conversation.id, metadata={"b": "2"}),
        lambda: client.conversations.items.create(conversation.id, items=[user("added"), user("dropped")]),
        lambda: client.conversations.items.delete(first.output[0].id or "", conversation_id=conversation.id),
        lambda: drop_newest(client, conversation.id),
    ):
        if cold:
            await forget_hot(redis)
        await step()
    if cold:
        await forget_hot(redis)
    assert (await client.conversations.retrieve(conversation.id)).metadata == {"b": "2"}
    await client.responses.create(input=f"then {cold}", conversation=conversation.id)
    assert await context(upstream, f"then {cold}") == [f"user: changed {cold}", "user: added", f"user: then {cold}"]
    assert (await client.conversations.retrieve(conversation.id)).metadata == {"b": "2"}


async def drop_newest(client: AsyncOpenAI, conversation: str) -> None:
    [newest] = (await client.conversations.items.list(conversation, limit=1)).data
    await client.conversations.items.delete(newest.id or "", conversation_id=conversation)


@HOT_AND_COLD
async def test_a_deleted_item(client: AsyncOpenAI, redis: Redis, cold: bool) -> None:
    conversation = await with_items(client, 3)
    doomed = (await client.conversations.items.list(conversation)).data[1].id or ""
    if cold:
        await forget_hot(redis)
    await client.conversations.items.delete(doomed, conversation_id=conversation)
    for again in range(2):
        for call in (client.conversations.items.retrieve, client.conversations.items.delete):
            with pytest.raises(NotFoundError) as error:
                await call(doomed, conversation_id=conversation)
            assert error.value.code == "item_not_found"
        assert await texts(client, conversation, order="asc") == ["item 0", "item 2"]
        if not again:
            await forget_hot(redis)


@HOT_AND_COLD
async def test_a_deleted_conversation(
    client: AsyncOpenAI, redis: Redis, connection: "asyncpg.Connection[Any]", cold: bool
) -> None:
    conversation = (await client.conversations.create(items=[user("secret")])).id
    response = await client.responses.create(model="fake-bench-1", input="also secret", conversation=conversation)
    item = response.output[0].id or ""
    if cold:
        await forget_hot(redis)
    assert (await client.conversations.delete(conversation)).deleted
    items = client.conversations.items
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.conversations.retrieve(conversation),
        lambda: client.conversations.update(conversation, metadata={}),
        lambda: client.conversations.delete(conversation),
        lambda: items.create(conversation, items=[user("late")]),
        lambda: all_of(items.list(conversation)),
        lambda: items.retrieve(item, conversation_id=conversation),
        lambda: items.delete(item, conversation_id=conversation),
        lambda: client.responses.create(input="late", conversation=conversation),
        lambda: client.responses.create(input="late", conversation=conversation, store=False),
        lambda: client.responses.create(input="late", previous_response_id=response.id),
        lambda: client.responses.retrieve(response.id),
        lambda: all_of(client.responses.input_items.list(response.id)),
        lambda: client.responses.delete(response.id),
    ]
    for again in range(2):
        for call in calls:
            with pytest.raises(NotFoundError):
                await call()
        if not again:
            await drained(redis)
            assert not await redis.exists(f"resp:default:{response.id}", f"log:default:{response.id}")
            await forget_hot(redis)
    for table in ("conversations", "items", "responses"):
        column = "id" if table == "conversations" else "conversation"
        query = f"SELECT count(*) FROM {table} WHERE {column} = $1"  # noqa: S608 - names of this test
        assert await connection.fetchval(query, conversation) == 0, table


async def all_of(listed: Any) -> list[Any]:
    return [item async for item in listed]


async def test_a_turn_locks_its_conversation(client: AsyncOpenAI, upstream: Part) -> None:
    conversation = await with_items(client, 1)
    [item] = (await client.conversations.items.list(conversation)).data
    async with running(client, upstream, conversation, "locked") as response:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.responses.create(input="second", conversation=conversation),
            lambda: client.responses.create(input="second", conversation=conversation, stream=True),
            lambda: client.conversations.items.create(conversation, items=[user("second")]),
            lambda: client.conversations.items.delete(item.id or "", conversation_id=conversation),
        ]
        for call in calls:
            with pytest.raises(ConflictError) as error:
                await call()
            assert error.value.code == "conversation_locked"
            assert response in error.value.message
        # Reading and turns that leave nothing behind go on.
        assert await texts(client, conversation) == ["item 0"]
        await client.responses.create(input="beside", conversation=conversation, store=False)
    assert len(await texts(client, conversation)) == 3
    await client.responses.create(input="third", conversation=conversation)


async def test_a_conversation_that_is_deleted_while_a_turn_runs(
    client: AsyncOpenAI, asking_service: Service, upstream: Part, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    conversation = await with_items(client, 1)
    async with AsyncOpenAI(base_url=asking_service.url, api_key="none", max_retries=0) as plain:
        events = await plain.responses.create(
            model="fake-hold-doomed", input="doomed", conversation=conversation, stream=True
        )
        opened = await anext(aiter(events))
        assert opened.type == "response.created"
        await client.conversations.delete(conversation)
        ending: list[str] = []
        with pytest.raises(APIError) as caught:
            ending.extend([event.type async for event in events])
        assert caught.value.code == "conversation_not_found"
        assert not {"response.completed", "response.incomplete", "response.failed"} & set(ending)

        async def dropped() -> bool:
            return bool((await asked(upstream, "doomed"))[-1]["dropped"])

        await wait_until(dropped, "the upstream's request was given up")
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(opened.response.id)
    await drained(redis)
    assert await connection.fetchval("SELECT count(*) FROM items WHERE conversation = $1", conversation) == 0
    assert await connection.fetchval("SELECT count(*) FROM responses WHERE id = $1", opened.response.id) == 0
    assert await redis.zcard("running") == 0
