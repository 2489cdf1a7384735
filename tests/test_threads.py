"""Histories: what a turn knows of those before it, with forks, with the worker away, and from PostgreSQL alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import Response
from redis.asyncio import Redis

from core.queue import QUEUE
from tests.entries import claim, writing_to
from tests.running import Part, Postgres, Service
from tests.talking import asked, context, drained, forget_hot, release, talk, text_of
from worker import queue
from worker.storing import store_range

pytestmark = pytest.mark.anyio

HOT_AND_COLD = pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])
WORD = "assistant: word1"


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


async def say(client: AsyncOpenAI, text: str, after: Response | None = None, **body: Any) -> Response:
    """One turn; the model answers "word1"."""
    if after is not None:
        body["previous_response_id"] = after.id
    response: Response = await client.responses.create(**{"model": "fake-bench-1", "input": text, **body})
    return response


def past(*texts: str) -> list[str]:
    """The context that turns with these inputs leave, without the last one's answer."""
    return [line for text in texts for line in (f"user: {text}", WORD)][:-1]


@HOT_AND_COLD
async def test_forks(client: AsyncOpenAI, upstream: Part, redis: Redis, cold: bool) -> None:
    """Each branch has what came before it; a branch of a branch, too."""
    names = {name: f"{name} {cold}" for name in ("root", "trunk", "left", "right", "twig", "leaf", "late")}
    told: dict[str, Response] = {}
    for name, after in (
        ("root", None), ("trunk", "root"), ("left", "trunk"), ("right", "trunk"), ("twig", "right"), ("leaf", "twig"),
        ("late", "root"),
    ):  # fmt: skip
        told[name] = await say(client, names[name], told[after] if after else None)
        if cold:
            await forget_hot(redis)
    for name, line in {
        "left": ["root", "trunk", "left"],
        "right": ["root", "trunk", "right"],
        "leaf": ["root", "trunk", "right", "twig", "leaf"],
        "late": ["root", "late"],
    }.items():
        question = f"after {name} {cold}"
        await say(client, question, told[name])
        assert await context(upstream, question) == past(*(names[one] for one in line), question)
    assert (await client.responses.retrieve(told["trunk"].id)) == told["trunk"]


async def test_parallel_continuations(client: AsyncOpenAI, upstream: Part) -> None:
    first = await say(client, "fan out")
    async with await client.responses.create(
        model="fake-hold-fan", input="the first of many", previous_response_id=first.id, stream=True
    ) as events:
        assert (await anext(aiter(events))).type == "response.created"
        answers = await asyncio.gather(*(say(client, f"branch {number} of it", first) for number in range(8)))
        await release(upstream, "fan")
        last = [event async for event in events][-1]
    assert last.type == "response.completed"
    for number, answer in enumerate(answers):
        assert await context(upstream, f"branch {number} of it") == past("fan out", f"branch {number} of it")
        await say(client, f"more on {number}", answer)
        assert await context(upstream, f"more on {number}") == past(
            "fan out", f"branch {number} of it", f"more on {number}"
        )
    await say(client, "more on the first", last.response)
    assert len(await context(upstream, "more on the first")) == 5


async def test_racing_continuations_of_a_cold_response(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    first = await say(client, "cold fan out")
    await forget_hot(redis)
    await asyncio.gather(*(say(client, f"cold branch {number} of it", first) for number in range(8)))
    for number in range(8):
        question = f"cold branch {number} of it"
        assert await context(upstream, question) == past("cold fan out", question)


@HOT_AND_COLD
async def test_a_response_of_a_conversation_is_continued_beside_it(
    client: AsyncOpenAI, upstream: Part, redis: Redis, cold: bool
) -> None:
    conversation = await client.conversations.create(items=[{"role": "user", "content": "opening"}])
    first, second = [await say(client, f"{word} {cold}", conversation=conversation.id) for word in ("in one", "in two")]
    if cold:
        await forget_hot(redis)
    before = [item.id async for item in client.conversations.items.list(conversation.id)]
    beside = await say(client, f"beside {cold}", first)
    assert beside.conversation is None
    assert await context(upstream, f"beside {cold}") == ["user: opening", *past(f"in one {cold}", f"beside {cold}")]
    await say(client, f"beside the last {cold}", second)
    await say(client, f"further beside {cold}", beside)
    assert len(await context(upstream, f"further beside {cold}")) == 6
    assert [item.id async for item in client.conversations.items.list(conversation.id)] == before
    await say(client, f"in three {cold}", conversation=conversation.id)
    assert len(await context(upstream, f"in three {cold}")) == 6


@HOT_AND_COLD
async def test_a_deleted_response_takes_its_items_along(
    client: AsyncOpenAI, upstream: Part, redis: Redis, cold: bool
) -> None:
    """In a thread of its own; in a conversation its items stay."""
    conversation = await client.conversations.create()
    inside = await say(client, f"kept {cold}", conversation=conversation.id)
    first = await say(client, f"dropped {cold}")
    second = await say(client, f"second {cold}", first)
    for response in (first, inside):
        if cold:
            await forget_hot(redis)
        await client.responses.delete(response.id)
    if cold:
        await forget_hot(redis)
    await say(client, f"third {cold}", second)
    assert await context(upstream, f"third {cold}") == past(f"second {cold}", f"third {cold}")
    assert [text_of(item) async for item in client.conversations.items.list(conversation.id)] == [
        "word1", f"kept {cold}",
    ]  # fmt: skip


@HOT_AND_COLD
async def test_a_response_without_output_is_not_continued(client: AsyncOpenAI, redis: Redis, cold: bool) -> None:
    events = [event async for event in await client.responses.create(model="fake-400", input="vain", stream=True)]
    last = events[-1]
    assert last.type == "response.failed"
    if cold:
        await forget_hot(redis)
    for store in (True, False):
        with pytest.raises(BadRequestError) as error:
            await say(client, "x", last.response, store=store)
        assert (error.value.code, error.value.param) == ("previous_response_failed", "previous_response_id")


async def everything(client: AsyncOpenAI, conversation: str, responses: list[Response]) -> list[Any]:
    """All that can be read of these, as it was sent."""
    calls: list[Awaitable[Any]] = [
        client.conversations.with_raw_response.retrieve(conversation),
        client.conversations.items.with_raw_response.list(conversation, order="asc", limit=100),
        client.conversations.items.with_raw_response.list(conversation, limit=3),
    ]
    for response in responses:
        calls.append(client.responses.with_raw_response.retrieve(response.id))
        calls.append(client.responses.input_items.with_raw_response.list(response.id, order="asc"))
    return [orjson.loads((await call).content) for call in calls]


async def test_reads_and_turns_while_the_worker_is_away(
    client: AsyncOpenAI, asking_service: Service, upstream: Part, redis: Redis
) -> None:
    """What was acknowledged is there at once; PostgreSQL alone tells the very same later, and turns go on from it."""
    await drained(redis)
    await asking_service.worker.terminate()
    conversation = (await client.conversations.create(metadata={"topic": "weather"})).id
    first = await say(client, "away 1", conversation=conversation, metadata={"n": "1"})
    [added] = (await client.conversations.items.create(conversation, items=[{"type": "odd", "v": [1]}])).data  # type: ignore[list-item]
    second = await say(client, "away 2", conversation=conversation)
    assert await context(upstream, "away 2") == past("away 1", "away 2")
    root = await say(client, "away root")
    left, right = await say(client, "away left", root), await say(client, "away right", root)
    failed = [event async for event in await client.responses.create(model="fake-400", input="away vain", stream=True)]
    last = failed[-1]
    assert last.type == "response.failed"
    responses = [first, second, root, left, right, last.response]
    seen = await everything(client, conversation, responses)
    assert [item["id"] for item in seen[1]["data"]] == [
        seen[4]["data"][0]["id"], first.output[0].id, added.id, seen[6]["data"][0]["id"], second.output[0].id,
    ]  # fmt: skip
    assert await redis.llen(QUEUE) > 0
    await asking_service.worker.start()
    await forget_hot(redis)
    assert await everything(client, conversation, responses) == seen
    await say(client, "away 3", conversation=conversation)
    assert await context(upstream, "away 3") == past("away 1", "away 2", "away 3")
    await say(client, "away further", right)
    assert await context(upstream, "away further") == past("away root", "away right", "away further")


@pytest.mark.parametrize("deleted", [False, True], ids=["there", "deleted"])
async def test_a_branch_is_stored_before_what_it_inherits(
    client: AsyncOpenAI, asking_service: Service, upstream: Part, redis: Redis, postgres: Postgres, database: str,
    deleted: bool,
) -> None:  # fmt: skip
    """Ranges of the queue commit in any order, and what is stored may be evicted."""
    await drained(redis)
    await asking_service.worker.terminate()
    name = f"late {deleted}"
    root = await say(client, f"{name} root")
    held = await claim(redis)
    await say(client, f"{name} trunk", root)
    branch = await say(client, f"{name} branch", root)
    async with writing_to(postgres, database) as connection:
        later = await claim(redis)
        assert await queue.ack(redis, later, await store_range(connection, later), expiration_seconds=1800)
    evicted = [await redis.delete(key) async for key in redis.scan_iter("*:thr_*") if await redis.ttl(key) > 0]
    assert evicted, "the branch"
    if deleted:
        await client.responses.delete(root.id)
    await say(client, f"{name} leaf", branch)
    inherited = [] if deleted else [f"{name} root"]
    assert await context(upstream, f"{name} leaf") == past(*inherited, f"{name} branch", f"{name} leaf")
    assert await queue.release(redis, held, ended=True, failed=False)
    await asking_service.worker.start()
    await drained(redis)


async def test_a_long_history_in_order(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    """Turns and created items, alternately hot and cold, are told in the order in which they were acknowledged."""
    conversation = (await client.conversations.create()).id
    said: list[str] = []
    for number in range(6):
        items: Any = [{"role": "user", "content": f"long {number}.{part}"} for part in range(20)]
        await client.conversations.items.create(conversation, items=items)
        await say(client, f"long {number}", conversation=conversation)
        said += [f"user: long {number}.{part}" for part in range(20)] + [f"user: long {number}", WORD]
        if number % 2:
            await forget_hot(redis)
    await say(client, "long end", conversation=conversation)
    assert await context(upstream, "long end") == [*said, "user: long end"]
    assert len((await asked(upstream, "long end"))[-1]["body"]["messages"]) == 6 * 22 + 1


async def all_of(listed: Any) -> list[Any]:
    return [item async for item in listed]


async def test_a_hidden_thread_is_no_conversation(client: AsyncOpenAI, redis: Redis) -> None:
    response = await client.responses.create(model="fake-bench-1", input="hidden")
    found = await redis.hget(f"resp:default:{response.id}", "thread")
    assert isinstance(found, bytes)
    thread = found.decode()
    assert thread.startswith("thr_")
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.conversations.retrieve(thread),
        lambda: client.conversations.update(thread, metadata={}),
        lambda: client.conversations.delete(thread),
        lambda: client.conversations.items.create(thread, items=[{"role": "user", "content": "x"}]),
        lambda: all_of(client.conversations.items.list(thread)),
        lambda: client.conversations.items.retrieve(response.output[0].id or "", conversation_id=thread),
        lambda: client.conversations.items.delete(response.output[0].id or "", conversation_id=thread),
    ]
    for call in calls:
        with pytest.raises(NotFoundError):
            await call()
    with pytest.raises(BadRequestError):
        await client.responses.create(input="x", conversation=thread)
    assert response.conversation is None
