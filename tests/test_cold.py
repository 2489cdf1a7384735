"""Conversations that Redis no longer has: one query brings them back, once for all who wait; and PostgreSQL away."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import psutil
import pytest
from openai import APIStatusError, AsyncOpenAI
from redis.asyncio import Redis

from core import store
from core.queue import QUEUE
from local.children import HOST
from local.embedded import SUPERUSER
from tests.chatting import ask, client_of, items_of, with_upstream
from tests.conftest import StartService
from tests.fake_upstream import fake_upstream_in
from tests.running import Part, Postgres, Service
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

STATEMENT = re.compile(
    r"\[(\d+)\] LOG:  (?:execute \S+|statement): (.*?)(?=^\d{4}-\d\d-\d\d \d\d:|\Z)", re.DOTALL | re.MULTILINE
)
LOADS = "WITH RECURSIVE wanted"
# Each new session of the driver learns once what types its first statement has.
TYPES = re.compile(r"pg_type|set_config\('jit'")
# Each process looks at these now and then, on a connection that may be new.
LOOKS = {" ".join(text.split()) for text in (store.REACHED, store.LOSSES, store.DEAD_LETTERS)}
# What a client waits for a store that does not answer at all: api/store.py, and some for a busy machine.
HANGING_SECONDS = 7.5


@pytest.fixture(scope="module")
async def fake(folder: Any) -> AsyncIterator[Part]:
    server = fake_upstream_in(folder / "cold-upstream")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def service(start_service: StartService, fake: Part, postgres: Postgres, database: str) -> Service:
    """PostgreSQL's log tells every statement of its sessions."""
    root = await asyncpg.connect(host=postgres.host, port=postgres.port, user=SUPERUSER, database=database)
    await root.execute(f"ALTER DATABASE {database} SET log_statement = 'all'")
    await root.close()
    return await start_service(**with_upstream(fake))


@pytest.fixture(scope="module")
async def other_pod(start_service: StartService, fake: Part, service: Service) -> Service:  # noqa: ARG001 - it migrates
    return await start_service(worker=False, **with_upstream(fake))


@pytest.fixture(scope="module")
async def client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(service) as one:
        yield one


async def cool(redis: Redis) -> None:
    """As if everything that is stored had been evicted."""
    await wait_until(lambda: _is_empty(redis), "everything to be stored")
    stored = [key async for key in redis.scan_iter(count=1000) if await redis.ttl(key) > 0]
    await redis.delete(*stored)
    left = [key async for key in redis.scan_iter("[cir]*") if key.startswith((b"conv:", b"items:", b"resp:"))]
    assert left == []


async def _is_empty(redis: Redis) -> bool:
    return not await redis.llen(QUEUE)


class Statements:
    """What the API processes asked of PostgreSQL since this was made."""

    def __init__(self, postgres: Postgres, pids: set[int]) -> None:
        self._postgres, self._pids, self._from = postgres, pids, len(postgres.log_text())

    def seen(self) -> list[str]:
        found = STATEMENT.findall(self._postgres.log_text()[self._from :])
        mine = (" ".join(text.split()) for pid, text in found if int(pid) not in self._pids)
        return [text for text in mine if not TYPES.search(text) and text not in LOOKS]


async def statements(postgres: Postgres, connection: "asyncpg.Connection[Any]") -> Statements:
    """From now on; the worker and the test are left out."""
    rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name <> 'chatbot-api'")
    return Statements(postgres, {row["pid"] for row in rows})


async def conversation_of(client: AsyncOpenAI, *texts: str) -> str:
    conversation = (await client.conversations.create()).id
    for text in texts:
        await ask(client, text, conversation=conversation)
    return conversation


async def test_one_query_before_the_first_token(
    client: AsyncOpenAI, redis: Redis, postgres: Postgres, connection: "asyncpg.Connection[Any]"
) -> None:
    conversation = await conversation_of(client, "one", "two")
    before = await items_of(client, conversation)
    await cool(redis)
    asked = await statements(postgres, connection)
    told = await ask(client, "three", conversation=conversation, model="fake-history")
    assert [text[: len(LOADS)] for text in asked.seen()] == [LOADS]
    assert told.splitlines() == [
        f"{role}: {text}" for role, text in zip(["user", "assistant"] * 3, [*before, "three"], strict=False)
    ]
    assert await items_of(client, conversation) == [*before, "three", told]


async def test_one_query_for_all_who_wait(
    client: AsyncOpenAI,
    other_pod: Service,
    fake: Part,
    redis: Redis,
    postgres: Postgres,
    connection: "asyncpg.Connection[Any]",
) -> None:
    """20 racing turns from two processes: one has the lock, the others are refused, one query."""
    conversation = await conversation_of(client, "one")
    await cool(redis)
    asked = await statements(postgres, connection)
    refused: list[tuple[int, str | None]] = []
    async with client_of(other_pod) as other:

        async def race(pod: AsyncOpenAI) -> str | None:
            try:
                return await ask(pod, "two", conversation=conversation, model="fake-hold-race")
            except APIStatusError as error:
                refused.append((error.status_code, error.code))
                return None

        async with connection.transaction():
            await connection.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")  # nobody loads before all wait
            calls = await begins(redis)
            racing = [asyncio.create_task(race(pod)) for pod in [client, other] * 10]
            await wait_until(lambda: _waiting(redis, calls + 10 * len(racing)), "all to wait")
        await wait_until(lambda: len(refused) == 19, "all but one to be refused")
        async with aiohttp.ClientSession() as http:
            await http.post(f"http://{HOST}:{fake.port}/release/race")
        answers = [answer for answer in await asyncio.gather(*racing) if answer]
    assert len(answers) == 1
    assert set(refused) == {(409, "conversation_locked")}
    assert [text[: len(LOADS)] for text in asked.seen()] == [LOADS]
    assert (await items_of(client, conversation))[2:] == ["two", answers[0]]


async def begins(redis: Redis) -> int:
    return int((await redis.info("commandstats"))["cmdstat_evalsha"]["calls"])


async def _waiting(redis: Redis, calls: int) -> bool:
    """Who waits for another loader begins again and again."""
    return await begins(redis) > calls


async def test_forks_of_forks_come_back_whole(
    client: AsyncOpenAI, redis: Redis, postgres: Postgres, connection: "asyncpg.Connection[Any]"
) -> None:
    async def turn(text: str, previous: str | None) -> str:
        return (await client.responses.create(input=text, previous_response_id=previous)).id

    root = await turn("root", None)
    left, right = await turn("left", root), await turn("right", root)
    await turn("further", left)
    twig = await turn("twig", right)
    fork_of_fork = await turn("leaf", right)
    for response, said in (
        (left, ["root", "left"]),
        (right, ["root", "right"]),
        (twig, ["root", "right", "twig"]),
        (fork_of_fork, ["root", "right", "leaf"]),
    ):
        await cool(redis)
        asked = await statements(postgres, connection)
        told = await ask(client, "?", previous_response_id=response, model="fake-history")
        assert re.findall("^user: (.*)$", told, re.MULTILINE) == [*said, "?"]
        assert [text.startswith(LOADS) for text in asked.seen()] == [False, True], "where it is, and the thread"


async def refused(client: AsyncOpenAI, **body: Any) -> tuple[APIStatusError, float]:
    began = time.monotonic()
    with pytest.raises(APIStatusError) as caught:
        await client.responses.create(input="hello", **body)
    return caught.value, time.monotonic() - began


async def hot_and_cold(client: AsyncOpenAI, redis: Redis) -> tuple[str, str, str]:
    """A hot conversation, a cold one, and a cold response."""
    cold = await conversation_of(client, "cold")
    response = await client.responses.create(input="cold")
    await cool(redis)
    hot = await conversation_of(client, "hot")
    return hot, cold, response.id


async def test_postgresql_killed(client: AsyncOpenAI, redis: Redis, postgres: Postgres) -> None:
    hot, cold, response = await hot_and_cold(client, redis)
    await postgres.kill()
    try:
        for body in ({"conversation": cold}, {"previous_response_id": response}):
            error, seconds = await refused(client, **body)
            assert (error.status_code, seconds < 3) == (503, True), error
            assert int(error.response.headers["retry-after"]) >= 1
        with pytest.raises(APIStatusError) as caught:
            await client.conversations.retrieve(cold)
        assert caught.value.status_code == 503
        assert await ask(client, "more", conversation=hot)
        assert len(await items_of(client, hot)) == 4
        new = await conversation_of(client, "new")
        assert len(await items_of(client, new)) == 2
    finally:
        await postgres.start()
    assert await ask(client, "again", conversation=cold)
    assert len(await items_of(client, cold)) == 4
    assert await ask(client, "again", previous_response_id=response)
    await wait_until(lambda: _is_empty(redis), "everything to be stored")


async def test_postgresql_hangs(client: AsyncOpenAI, redis: Redis, postgres: Postgres) -> None:
    """It keeps its connections and answers nothing, as behind a dead network."""
    hot, cold, response = await hot_and_cold(client, redis)
    first = psutil.Process(postgres.pid)
    stopped = [first, *first.children(recursive=True)]
    for process in stopped:
        process.suspend()
    try:
        waiting = [
            asyncio.create_task(refused(client, **body))
            for body in ({"conversation": cold}, {"previous_response_id": response})
        ]
        for _ in range(20):
            assert await ask(client, "more", conversation=hot)
        for error, seconds in await asyncio.gather(*waiting):
            assert (error.status_code, seconds < HANGING_SECONDS) == (503, True), (error, seconds)
            assert int(error.response.headers["retry-after"]) >= 1
    finally:
        for process in stopped:
            process.resume()
    await wait_until(lambda: _is_empty(redis), "everything to be stored", 30)
    assert len(await items_of(client, hot)) == 42
    assert await ask(client, "again", conversation=cold)
