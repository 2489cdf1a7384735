"""GET /v1/conversations: newest first, by metadata, and exact while entries are still queued."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, InternalServerError
from redis.asyncio import Redis

from api.listing.conversations import CHUNK
from core.queue import QUEUE
from tests.conftest import StartService
from tests.ownership import violations
from tests.running import Postgres, Service
from tests.talking import Json, drained, forget_hot, talk

pytestmark = pytest.mark.anyio

names = itertools.count()


@pytest.fixture
async def storing(lagging: Service) -> AsyncIterator[Service]:
    """The same with its worker at work."""
    await lagging.worker.start()
    yield lagging
    await lagging.worker.terminate()


@pytest.fixture
async def client(lagging: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(lagging) as one:
        yield one


@pytest.fixture
async def elsewhere(lagging_too: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(lagging_too) as one:
        yield one


async def page(client: AsyncOpenAI, **query: Any) -> Json:
    body: Any = await client.get("/conversations", cast_to=object, options={"params": query})
    listed: Json = body
    return listed


async def ids(client: AsyncOpenAI, **query: Any) -> list[str]:
    return [one["id"] for one in (await page(client, **query))["data"]]


async def all_ids(client: AsyncOpenAI, **query: Any) -> list[str]:
    """Through all pages."""
    found: list[str] = []
    while True:
        listed = await page(client, **query, **({"after": found[-1]} if found else {}))
        found += [one["id"] for one in listed["data"]]
        if not listed["has_more"]:
            return found


def topic() -> dict[str, str]:
    """Metadata that no other test uses."""
    return {"topic": f"list {next(names)}"}


def wanted(metadata: dict[str, str]) -> dict[str, str]:
    return {f"metadata[{key}]": value for key, value in metadata.items()}


async def create(client: AsyncOpenAI, count: int, **metadata: str) -> list[str]:
    """Newest first."""
    return [(await client.conversations.create(metadata=metadata)).id for _ in range(count)][::-1]


@pytest.mark.parametrize("state", ["queued", "stored", "cold", "half"])
async def test_pages(client: AsyncOpenAI, lagging: Service, redis: Redis, state: str) -> None:
    mark = topic()
    made = await create(client, 3, **mark)
    if state != "queued":
        await lagging.worker.start()
        await (forget_hot if state == "cold" else drained)(redis)
        await lagging.worker.terminate()
    made = [*await create(client, 4 if state == "half" else 0, **mark), *made]
    asked = wanted(mark)
    assert await ids(client, **asked) == made
    first = await page(client, **asked, limit=2)
    shown = {key: first[key] for key in ("object", "first_id", "last_id", "has_more")}
    assert shown == {"object": "list", "first_id": made[0], "last_id": made[1], "has_more": True}
    one = await client.conversations.retrieve(made[0])
    assert first["data"][0] == one.to_dict() == {**first["data"][0], "object": "conversation", "metadata": mark}
    assert await all_ids(client, **asked, limit=2) == made
    assert await all_ids(client, **asked, limit=2, order="asc") == made[::-1]
    assert await ids(client, **asked, after=made[-1]) == []
    # Threads of responses without a conversation are none.
    await client.responses.create(input="no conversation")
    assert (await ids(client))[: len(made)] == made


async def test_everything_that_was_done_shows_at_once_everywhere(
    client: AsyncOpenAI, elsewhere: AsyncOpenAI, lagging: Service, redis: Redis
) -> None:
    """While nothing is stored, while half of it is, and when all is."""
    before, after = topic(), topic()
    old = await create(client, 4, **before)
    await lagging.worker.start()
    await forget_hot(redis)
    await lagging.worker.terminate()
    new = await create(client, 2, **before)
    for changed in (old[0], new[0]):
        await client.conversations.update(changed, metadata={**after, "more": "x"})
    for gone in (old[1], new[1]):
        await client.conversations.delete(gone)
    assert await redis.llen(QUEUE) == 6
    assert await violations(redis) == []
    for again in range(3):
        for one in (client, elsewhere):
            assert await all_ids(one, **wanted(before), limit=1) == old[2:]
            assert await all_ids(one, **wanted(after), limit=1) == [new[0], old[0]]
            assert await ids(one, **wanted({**after, "more": "x"})) == [new[0], old[0]]
            assert await ids(one, **wanted({**after, "more": "y"})) == []
            # The place of what is gone is still known.
            assert await ids(one, **wanted(after), after=new[1]) == [old[0]]
            listed = await ids(one)
            assert [name for name in listed if name in {*old, *new}] == [new[0], old[0], *old[2:]]
        if again == 0:
            await lagging.worker.start()
            await drained(redis)
            await lagging.worker.terminate()
            assert await redis.keys("unstored:*") == []
        else:
            await forget_hot(redis)


async def test_no_write_falls_between_redis_and_postgresql(storing: Service, lagging_too: Service) -> None:
    """Lists at the very moment at which the worker moves it from the one to the other."""
    async with talk(storing) as client, talk(lagging_too) as elsewhere:
        for number in range(12):
            name = (await client.conversations.create(metadata={"number": str(number)})).id
            for _ in range(4):
                listed = await asyncio.gather(*(ids(elsewhere, limit=1) for _ in range(16)))
                assert listed == [[name]] * 16
            await client.conversations.update(name, metadata={"number": "changed"})
            assert (await page(elsewhere, limit=1))["data"][0]["metadata"] == {"number": "changed"}
            if number % 2:
                await client.conversations.delete(name)
                assert name not in await ids(elsewhere, limit=2)


async def test_more_than_redis_tells_at_once(client: AsyncOpenAI, elsewhere: AsyncOpenAI, lagging_too: Service) -> None:
    mark, rare = topic(), topic()
    found = await create(client, 2, **mark, rare=rare["topic"])
    async with aiohttp.ClientSession() as http:

        async def post(_: int) -> str:
            async with http.post(f"{lagging_too.url}/conversations", json={"metadata": mark}) as answer:
                return str((await answer.json())["id"])

        made = await asyncio.gather(*map(post, range(2 * CHUNK + 20)))
    everything = sorted([*made, *found], reverse=True)
    assert await all_ids(elsewhere, **wanted(mark), limit=100) == everything
    assert await all_ids(elsewhere, **wanted(mark), limit=100, order="asc") == everything[::-1]
    assert await ids(elsewhere, **wanted({"rare": rare["topic"]})) == found


async def test_what_is_put_back_after_redis_was_wiped(
    client: AsyncOpenAI, elsewhere: AsyncOpenAI, lagging: Service, redis: Redis
) -> None:
    await lagging.worker.start()
    await drained(redis)
    await lagging.worker.terminate()
    mark, changed = topic(), topic()
    made = await create(client, 4, **mark)
    await client.conversations.update(made[0], metadata=changed)
    await client.conversations.delete(made[1])
    await client.conversations.items.create(made[2], items=[{"role": "user", "content": "x"}])
    await redis.flushall()
    # The process that knows it puts it back when it next speaks to Redis.
    for one in (client, elsewhere):
        assert await ids(one, **wanted(mark)) == made[2:]
        assert await ids(one, **wanted(changed)) == [made[0]]
    assert await violations(redis) == []


async def test_without_postgresql_it_says_so(client: AsyncOpenAI, postgres: Postgres) -> None:
    await postgres.kill()
    try:
        with pytest.raises(InternalServerError) as error:
            await page(client, limit=1)
    finally:
        await postgres.start()
    assert (error.value.status_code, error.value.code) == (503, "store_unavailable")
    assert await ids(client, limit=1) != []


async def test_a_tenant_sees_its_own(start_service: StartService, folder: Path) -> None:
    file = folder / "list-keys.toml"
    hashes = {tenant: hashlib.sha256(f"{tenant}-key".encode()).hexdigest() for tenant in ("acme", "beta")}
    file.write_text(
        "".join(f'[[keys]]\ntenant = "{name}"\nname = "k"\nsha256 = "{sha}"\n' for name, sha in hashes.items())
    )
    service = await start_service(AUTH="", KEYS_FILE=str(file), MODEL="echo", worker=False)
    async with talk(service, "acme-key") as acme, talk(service, "beta-key") as beta:
        own = await create(acme, 1, who="acme")
        others = await create(beta, 2, who="beta")
        assert (await ids(acme), await ids(beta)) == (own, others)
        assert await ids(acme, **wanted({"who": "beta"})) == []
        assert await ids(acme, after=others[0]) == own


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
        ("after=%00", "after"),
        ("after=conv_unknown", "after"),
        ("after=msg_01a2131c4413c1a75921e2a22dfede78", "after"),
        ("metadata=x", "metadata"),
        ("metadata.topic=x", "metadata"),
        ("metadata[a]=x&metadata[a]=y", "metadata"),
        ("metadata[a]=%00", "metadata"),
        ("metadata[" + "k" * 65 + "]=x", "metadata"),
        ("metadata[a]=" + "v" * 513, "metadata"),
        ("&".join(f"metadata[{number}]=x" for number in range(17)), "metadata"),
    ],
)
async def test_a_bad_query(lagging: Service, query: str, param: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{lagging.url}/conversations?{query}") as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == param
