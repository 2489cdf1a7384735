"""GET /v1/conversations?q=: full text of what was said, exact while entries are queued and while the index lags."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from openai import AsyncOpenAI, BadRequestError
from redis.asyncio import Redis

from tests.ownership import violations
from tests.running import Service
from tests.talking import drained, forget_hot, talk
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

numbers = itertools.count()
COUNT_DUE = "SELECT count(*) FROM search_due"


@pytest.fixture
async def client(lagging: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(lagging) as one:
        yield one


@pytest.fixture
async def elsewhere(lagging_too: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(lagging_too) as one:
        yield one


async def search(client: AsyncOpenAI, words: str, **query: Any) -> list[str]:
    body: Any = await client.get("/conversations", cast_to=object, options={"params": {"q": words, **query}})
    return [one["id"] for one in body["data"]]


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def word() -> str:
    """One that no other test uses."""
    return f"unheard{next(numbers)}of"


async def say(client: AsyncOpenAI, *texts: str, **metadata: str) -> str:
    return (await client.conversations.create(items=[user(text) for text in texts], metadata=metadata)).id


async def store(service: Service, redis: Redis, connection: "asyncpg.Connection[Any]") -> None:
    """Let the worker store and index all, and stop it."""
    await service.worker.start()
    await drained(redis)

    async def indexed() -> bool:
        return bool(await connection.fetchval(COUNT_DUE) == 0)

    await wait_until(indexed, "the index to be up to date", 30)
    await service.worker.terminate()


async def store_alone(service: Service, redis: Redis, connection: "asyncpg.Connection[Any]") -> None:
    """Let the worker store all, and leave what it has indexed in the meantime as if it had not."""
    await service.worker.start()
    await drained(redis)
    await service.worker.terminate()
    await connection.execute(
        "INSERT INTO search_due (tenants, conversations, firsts) "
        "SELECT array_agg(tenant), array_agg(conversation), array_agg(position) FROM items"
    )
    await connection.execute("DELETE FROM searchable")


@pytest.mark.parametrize("state", ["queued", "due", "indexed"])
async def test_what_is_found(
    client: AsyncOpenAI, elsewhere: AsyncOpenAI, lagging: Service, redis: Redis,
    connection: "asyncpg.Connection[Any]", state: str,
) -> None:  # fmt: skip
    mark = word()
    both = await say(client, f"The quick brown fox {mark}", "jumps over", a="b")
    apart = await say(client, mark, "quick brown dogs")
    unicode = await say(client, f"Grüße aus Ørsta, 東京 {mark}")
    output = await say(client)
    call = {"type": "function_call", "call_id": "c", "name": "find", "arguments": "{}"}
    result: Any = {"type": "function_call_output", "call_id": "c", "output": f"the result {mark}"}
    refusal: Any = {"role": "assistant", "content": [{"type": "refusal", "refusal": f"never {mark}"}]}
    await client.conversations.items.create(output, items=[call, result, refusal])  # type: ignore[list-item]
    turn = await say(client)
    await client.responses.create(input=f"asked {mark}", conversation=turn)
    image: Any = {"type": "input_image", "image_url": f"https://example.com/{mark}.png", "detail": "auto"}
    unseen = await say(client)
    await client.conversations.items.create(unseen, items=[{"role": "user", "content": [image]}])
    await client.responses.create(input=f"in no conversation {mark}")
    if state != "queued":
        await (store if state == "indexed" else store_alone)(lagging, redis, connection)
    for one in (client, elsewhere):
        assert await search(one, mark) == [turn, output, unicode, apart, both]
        assert await search(one, mark, limit=2) == [turn, output]
        assert await search(one, mark, limit=2, after=output) == [unicode, apart]
        assert await search(one, mark, order="asc", limit=1) == [both]
        assert await search(one, f"QUICK {mark}") == [both]
        assert await search(one, f'"brown fox" {mark}') == [both]
        assert await search(one, f"{mark} -quick -asked -result -never") == [unicode, apart]
        assert await search(one, f"grüße ørsta 東京 {mark}") == [unicode]
        assert await search(one, f"result {mark}") == [output]
        assert await search(one, f"never {mark}") == [output]
        assert await search(one, mark, **{"metadata[a]": "b"}) == [both]
        assert await search(one, f"nobody said {mark}") == []
        assert await search(one, "… !") == []


async def test_changes_show_at_once(
    client: AsyncOpenAI, elsewhere: AsyncOpenAI, lagging: Service, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    """What is stored and indexed already is corrected by what is only queued."""
    old, new = word(), word()
    kept, cut, gone = [await say(client, f"before {old}", "and more") for _ in range(3)]
    await store(lagging, redis, connection)
    await forget_hot(redis)
    items = (await client.conversations.items.list(cut, order="asc")).data
    await client.conversations.items.delete(items[0].id or "", conversation_id=cut)
    await client.conversations.delete(gone)
    await client.conversations.items.create(kept, items=[user(f"added {new}")])
    await client.responses.create(input=f"turn {new}", conversation=cut)
    late = await say(client, f"late {new} {old}")
    assert await violations(redis) == []
    for again in range(3):
        for one in (client, elsewhere):
            assert await search(one, old) == [late, kept]
            assert await search(one, new) == [late, cut, kept]
            assert await search(one, f"turn {new}") == [cut]
            assert await search(one, f"before {new}") == []
        if again == 0:
            await store(lagging, redis, connection)
        else:
            await forget_hot(redis)
    assert await connection.fetchval("SELECT count(*) FROM searchable WHERE conversation = $1", gone) == 0


async def test_what_is_put_back_after_redis_was_wiped(
    client: AsyncOpenAI, lagging: Service, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    old, new = word(), word()
    kept, cut = [await say(client, old) for _ in range(2)]
    await store(lagging, redis, connection)
    await forget_hot(redis)
    # It remembers only what comes now.
    await lagging.api.restart()
    [item] = (await client.conversations.items.list(cut)).data
    await client.conversations.items.delete(item.id or "", conversation_id=cut)
    await client.conversations.items.create(kept, items=[user(new)])
    await redis.flushall()
    assert await search(client, new) == [kept]
    assert await search(client, old) == [kept]
    assert (await client.conversations.items.list(cut)).data == []


async def test_no_text_is_too_much(
    client: AsyncOpenAI, lagging: Service, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    """Nothing is refused, kept from the index or in its way; beyond 100,000 characters nothing is found."""
    first, last, behind = word(), word(), word()
    # The most that so many characters come to: words of letters that take four bytes, with parts that are words too.
    letters = ["".join(chr(0x20000 + (7 * start + 131 * at) % 42_000) for at in range(20)) for start in range(5000)]
    most = " ".join("-".join(pair) for pair in zip(letters[::2], letters[1::2], strict=True))
    texts = (most, "-".join(letters), "x" * 99_000, "a" * 3000 + " b" * 10_000, f"http://example.com/{'p/' * 9000}")
    found = [await say(client, f"{first} {text[:99_000]}") for text in texts]
    edge = await say(client, "y " * 40_000 + f"{last} " + "z" * 30_000 + f" {behind}")
    for stage in ("queued", "stored"):
        assert await search(client, first) == found[::-1]
        assert await search(client, last) == [edge]
        assert await search(client, behind) == []
        if stage == "queued":
            await store(lagging, redis, connection)
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_each_write_is_found_at_once(lagging: Service, lagging_too: Service) -> None:
    """While the worker moves it from Redis to PostgreSQL, and from there into the index."""
    await lagging.worker.start()
    try:
        async with talk(lagging) as client, talk(lagging_too) as elsewhere:
            for _ in range(8):
                mark = word()
                name = await say(client, mark)
                for _ in range(6):
                    found = await asyncio.gather(*(search(elsewhere, mark) for _ in range(8)))
                    assert found == [[name]] * 8
    finally:
        await lagging.worker.terminate()


@pytest.mark.parametrize("words", ["", "  ", "x" * 1001, "a\0b"])
async def test_a_bad_search(client: AsyncOpenAI, words: str) -> None:
    with pytest.raises(BadRequestError) as error:
        await search(client, words)
    assert error.value.param == "q"
