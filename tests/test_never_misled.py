"""What a client is told of what exists, what was deleted and what may be tried again, also in a crowd or an outage."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest
from openai import AsyncOpenAI, InternalServerError, NotFoundError
from redis.asyncio import Redis

from api.connections import Connections
from api.lanes import Lanes
from api.ring import Ring
from api.settings import read_settings
from api.turn.follow import CutError, follow
from api.turn.running import KEPT_FRAMES, Turn
from api.upstream.routing import Routing
from core.epochs import Epochs
from core.settings import Environment
from core.store import open_pool
from tests.entries import TENANT
from tests.running import Part, Service
from tests.talking import drained, forget_hot, talk, text_of

pytestmark = pytest.mark.anyio

CROWD = 600
TOOL: Any = {"type": "function", "name": "allowed", "parameters": {}}


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


async def test_a_crowd_is_no_outage(asking_service: Service, client: AsyncOpenAI) -> None:
    """More requests at once than connections to Redis: each of them waits for its turn."""
    response = await client.responses.create(input="hello")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def status(number: int) -> int:
            if number % 10:
                async with http.get(f"{asking_service.url}/responses/{response.id}") as answer:
                    return answer.status
            async with http.post(f"{asking_service.url}/responses", json={"input": "x"}) as answer:
                return answer.status

        assert Counter(await asyncio.gather(*map(status, range(CROWD)))) == {200: CROWD}


async def test_what_only_redis_has_is_not_denied_while_it_is_away(
    asking_service: Service, client: AsyncOpenAI, valkey: Part, redis: Redis
) -> None:
    kept = await client.responses.create(input="stored")
    await drained(redis)
    await asking_service.worker.terminate()
    conversation = await client.conversations.create()
    response = await client.responses.create(input="not stored yet", conversation=conversation.id)
    await valkey.kill()
    for reading in (
        client.responses.retrieve(response.id),
        client.responses.input_items.list(response.id),
        client.conversations.retrieve(conversation.id),
        client.conversations.items.list(conversation.id),
        client.conversations.items.retrieve("msg_1", conversation_id=conversation.id),
    ):
        with pytest.raises(InternalServerError) as refused:
            await reading
        assert (refused.value.status_code, refused.value.code) == (503, "store_unavailable")
    assert (await client.responses.retrieve(kept.id)).id == kept.id
    await valkey.start()
    await asking_service.worker.start()
    assert (await client.responses.retrieve(response.id)).id == response.id
    with pytest.raises(NotFoundError):
        await client.responses.retrieve("resp_unknown")


@pytest.mark.parametrize("deleted", ["conversation", "item"])
async def test_what_is_deleted_cannot_be_referred_to(
    asking_service: Service, client: AsyncOpenAI, redis: Redis, deleted: str
) -> None:
    """From the first moment, not only when PostgreSQL has heard of it."""
    message: Any = {"type": "message", "role": "user", "content": "to be forgotten"}
    conversation = await client.conversations.create(items=[message])
    item = (await client.conversations.items.list(conversation.id)).data[0]
    await forget_hot(redis)
    reference: Any = {"type": "item_reference", "id": item.id}
    assert "to be forgotten" in (await client.responses.create(input=[reference])).output_text
    await drained(redis)
    await asking_service.worker.terminate()
    if deleted == "conversation":
        await client.conversations.delete(conversation.id)
    else:
        await client.conversations.items.delete(str(item.id), conversation_id=conversation.id)
    with pytest.raises(NotFoundError) as refused:
        await client.responses.create(input=[reference])
    assert refused.value.code == "item_not_found"
    await asking_service.worker.start()


async def test_a_turn_that_is_told_as_failed_can_be_tried_again(client: AsyncOpenAI) -> None:
    """An error in the place of the response must not leave half of the turn behind."""
    conversation = await client.conversations.create()
    for _ in range(2):
        with pytest.raises(InternalServerError) as failed:
            await client.responses.create(
                model="fake-text-then-tool", input="question", conversation=conversation.id, tools=[TOOL],
                tool_choice={"type": "function", "name": "allowed"},
            )  # fmt: skip
        assert failed.value.code == "tool_not_allowed"
    assert (await client.conversations.items.list(conversation.id)).data == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_nul_of_the_model_costs_nothing_but_itself(
    client: AsyncOpenAI, redis: Redis, connection: "asyncpg.Connection[Any]", streamed: bool
) -> None:
    conversation = await client.conversations.create()
    body: Any = {"model": "fake-nul", "input": "x", "conversation": conversation.id}
    if streamed:
        last = [event async for event in await client.responses.create(stream=True, **body)][-1]
        assert last.type == "response.completed"
    else:
        await client.responses.create(**body)
    await forget_hot(redis)
    items = (await client.conversations.items.list(conversation.id, order="asc")).data
    assert [text_of(item) for item in items] == ["x", "one\ufffdtwo \\u0000"]
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_a_reader_whose_events_are_gone_is_let_go(asking_service: Service, redis: Redis) -> None:
    """It was so far behind that it needs the log, and the log went with its conversation."""
    settings = read_settings(Environment(asking_service.environment))
    pool = await open_pool(settings.postgres, 1, "chatbot-test")
    async with asyncio.TaskGroup() as tasks:
        ring = Ring(tasks)
        epochs = Epochs(settings.redis, settings.postgres, "test", ring.put_back)
        connections = Connections(settings, redis, epochs, ring, Lanes(redis), pool, Routing(settings.upstreams), tasks)
        turn = Turn(TENANT, "resp_gone", "conv_gone", "token", streamed=True)
        for _ in range(3 * KEPT_FRAMES):
            turn.emit(b"response.output_text.delta", b'"delta":"x"')
        turn.mark_logged(turn.sequence)
        turn.end()
        async with asyncio.timeout(5):
            with pytest.raises(CutError):
                [frames async for frames in follow(connections, turn)]
    await pool.close()
