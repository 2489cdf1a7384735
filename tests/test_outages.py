"""Servers and processes killed or stopped while people chat: nothing acknowledged is lost, doubled or misplaced."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson
import pytest
from openai import APIStatusError, AsyncOpenAI, ConflictError, InternalServerError
from redis.asyncio import Redis

from api.history.steps import LOCK_MS
from core.queue import QUEUE
from tests.chatting import ask, client_of, items_of, rest, stream, text_until, with_upstream
from tests.conftest import StartService
from tests.entries import TENANT
from tests.fake_upstream import fake_upstream_in
from tests.ownership import violations
from tests.running import Part, Postgres, Service
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

ANSWER = " ".join(f"word{number}" for number in range(1, 33))
# The lock's end, the next sweep, and some for a busy machine.
GIVEN_BACK_SECONDS = 4
CLOSING_SECONDS = LOCK_MS / 1000 + 5
DRAIN_SECONDS = 30.0
names = itertools.count()


@pytest.fixture(scope="module")
async def fake(folder: Any) -> AsyncIterator[Part]:
    server = fake_upstream_in(folder / "outage-upstream")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def service(start_service: StartService, fake: Part) -> Service:
    return await start_service(**with_upstream(fake))


@pytest.fixture(scope="module")
async def client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(service) as one:
        yield one


@dataclass
class Talk:
    """One conversation, and all that its user was told to be in it."""

    conversation: str
    told: list[str] = field(default_factory=list)

    async def say(self, client: AsyncOpenAI, *, streamed: bool) -> None:
        text = f"text {next(names)}"
        if streamed:
            answer, end = await rest(await stream(client, text, conversation=self.conversation))
            assert end == "response.completed"
        else:
            answer = await ask(client, text, conversation=self.conversation)
        self.told += [text, answer]


async def talks(client: AsyncOpenAI, count: int) -> list[Talk]:
    return [Talk((await client.conversations.create()).id) for _ in range(count)]


@dataclass
class Chatter:
    """Users who go on talking until they are told to stop."""

    client: AsyncOpenAI
    talks: list[Talk]
    stopping: bool = False

    @property
    def turns(self) -> int:
        return sum(len(talk.told) // 2 for talk in self.talks)

    async def run(self) -> None:
        async def user(talk: Talk) -> None:
            for number in itertools.count():
                if self.stopping:
                    return
                await talk.say(self.client, streamed=number % 2 == 0)

        await asyncio.gather(*map(user, self.talks))

    async def more(self, turns: int) -> None:
        """Wait until so many more turns have ended well."""
        reached = self.turns + turns
        await wait_until(lambda: self.turns >= reached, f"{turns} more turns", 20)


async def all_is_stored(redis: Redis, connection: "asyncpg.Connection[Any]", talks: list[Talk]) -> None:
    """The queue drains, and PostgreSQL has what was told: everything, once, in order."""
    await wait_until(lambda: _is_empty(redis), "the queue to drain", DRAIN_SECONDS)
    for talk in talks:
        rows = await connection.fetch(
            "SELECT item FROM items WHERE tenant = $1 AND conversation = $2 ORDER BY position",
            TENANT,
            talk.conversation,
        )
        assert [orjson.loads(row["item"])["content"][0]["text"] for row in rows] == talk.told
        turns = "SELECT count(*) FROM responses WHERE tenant = $1 AND conversation = $2 AND position > 0"
        assert await connection.fetchval(turns, TENANT, talk.conversation) == len(talk.told) // 2
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0
    await wait_until(lambda: _nothing_wrong(redis), "every key to have an owner or a time to live")


async def _nothing_wrong(redis: Redis) -> bool:
    return not await violations(redis)


async def _is_empty(redis: Redis) -> bool:
    return not await redis.llen(QUEUE)


async def connected(postgres: Postgres, database: str) -> "asyncpg.Connection[Any]":
    return await asyncpg.connect(host=postgres.host, port=postgres.port, user=postgres.user, database=database)


async def test_postgresql_is_killed_while_people_chat(
    client: AsyncOpenAI, redis: Redis, postgres: Postgres, database: str
) -> None:
    chatter = Chatter(client, await talks(client, 6))
    running = asyncio.create_task(chatter.run())
    await chatter.more(20)
    await postgres.kill()
    try:
        await chatter.more(40)
        assert await redis.llen(QUEUE) > 40
    finally:
        await postgres.start()
    await chatter.more(20)
    chatter.stopping = True
    await running
    connection = await connected(postgres, database)
    try:
        await all_is_stored(redis, connection, chatter.talks)
    finally:
        await connection.close()


async def test_the_worker_is_killed_while_people_chat(
    client: AsyncOpenAI, service: Service, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    chatter = Chatter(client, await talks(client, 6))
    running = asyncio.create_task(chatter.run())
    for _ in range(3):
        await chatter.more(20)
        await service.worker.kill()
        await chatter.more(10)
        await service.worker.start()
    chatter.stopping = True
    await running
    await all_is_stored(redis, connection, chatter.talks)


async def refused(client: AsyncOpenAI, **body: Any) -> tuple[int, bool, float]:
    """(status, whether it says when to come back, seconds)."""
    began = time.monotonic()
    with pytest.raises(APIStatusError) as caught:
        await client.responses.create(input="hello", **body)
    error = caught.value
    return error.status_code, int(error.response.headers.get("retry-after", 0)) >= 1, time.monotonic() - began


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_redis_away(
    client: AsyncOpenAI, redis: Redis, valkey: Part, connection: "asyncpg.Connection[Any]", how: str
) -> None:
    (talk,) = await talks(client, 1)
    await talk.say(client, streamed=False)
    response = await client.responses.create(input="alone")
    await all_is_stored(redis, connection, [talk])
    if how == "killed":
        await valkey.kill()
    else:
        valkey.pause()
    try:
        # Alone, for what waits behind another is not even sent: its late begin would lock the conversation.
        first = await refused(client, conversation=talk.conversation)
        turns = [
            refused(client),
            refused(client, stream=True),
            refused(client, previous_response_id=response.id),
        ]
        refusals, told, stored = await asyncio.gather(
            asyncio.gather(*turns), items_of(client, talk.conversation), client.responses.retrieve(response.id)
        )
        for status, says_when, _ in (first, *refusals):
            assert (status, says_when) == (503, True)
        assert first[2] < (3 if how == "killed" else 6)
        # One hang is enough for all.
        assert max(seconds for *_, seconds in refusals) < 2
        assert (told, stored.output_text) == (talk.told, ANSWER)
        assert await ask(client, "hello", store=False) == ANSWER
        assert await rest(await stream(client, "hello", store=False)) == (ANSWER, "response.completed")
    finally:
        if how == "killed":
            await valkey.start()
        else:
            valkey.resume()
    # A begin that Redis carried out only after its client had been refused is given back soon.
    await wait_until(lambda: _says(client, talk), "the conversation to go on", GIVEN_BACK_SECONDS)
    await all_is_stored(redis, connection, [talk])


async def _says(client: AsyncOpenAI, talk: Talk) -> bool:
    try:
        await talk.say(client, streamed=False)
    except (ConflictError, InternalServerError):
        return False
    return True


async def test_redis_is_stopped_in_the_middle_of_streams(
    client: AsyncOpenAI, redis: Redis, valkey: Part, connection: "asyncpg.Connection[Any]"
) -> None:
    """They go on meanwhile, for longer than a call to Redis may take, and end once it is back."""
    several = await talks(client, 8)

    async def listen(talk: Talk, number: int) -> None:
        events = await stream(client, f"text {number}", conversation=talk.conversation, model="fake-slow-200ms")
        first = await text_until(events, 3)
        ready.append(number)
        middle = await text_until(events, 26)
        beyond.append(number)
        last, end = await rest(events)
        assert end == "response.completed"
        talk.told += [f"text {number}", first + middle + last]

    ready: list[int] = []
    beyond: list[int] = []
    listening = [asyncio.create_task(listen(talk, number)) for number, talk in enumerate(several)]
    await wait_until(lambda: len(ready) == len(several), "all streams to run")
    valkey.pause()
    try:
        await wait_until(lambda: len(beyond) == len(several), "all streams to go on without Redis")
    finally:
        valkey.resume()
    await asyncio.gather(*listening)
    assert {talk.told[1] for talk in several} == {ANSWER}
    await all_is_stored(redis, connection, several)


async def test_the_api_is_killed_in_the_middle_of_answers(
    service: Service,
    start_service: StartService,
    fake: Part,
    redis: Redis,
    connection: "asyncpg.Connection[Any]",
) -> None:
    """Another process closes what it left, with the text that was logged, and the conversations go on there."""
    others = [await start_service(worker=False, **with_upstream(fake)) for _ in range(2)]
    async with client_of(service) as first, client_of(others[0]) as other:
        talk, silent = await talks(first, 2)
        await talk.say(first, streamed=True)
        events = await stream(first, "asked", conversation=talk.conversation, model="fake-hold-for-ever")
        created = await anext(events)
        assert created.type == "response.created"
        response = created.response.id
        said = await text_until(events, 3)
        await wait_until(lambda: _logged(redis, response, "word3"), "the text to be logged")
        not_streamed = asyncio.create_task(
            first.responses.create(input="asked", conversation=silent.conversation, model="fake-hold-for-ever")
        )
        await wait_until(lambda: _running(redis, 2), "both turns to run")
        began = time.monotonic()
        await service.api.kill()
        assert (await asyncio.gather(not_streamed, return_exceptions=True))[
            0
        ].__class__.__name__ == "APIConnectionError"
        assert (await other.responses.retrieve(response)).status == "in_progress"
        with pytest.raises(APIStatusError) as caught:
            await ask(other, "too early", conversation=talk.conversation)
        assert caught.value.code == "conversation_locked"
        await wait_until(lambda: _running(redis, 0), "the responses to be closed", CLOSING_SECONDS)
        assert time.monotonic() - began < CLOSING_SECONDS
        closed = await other.responses.retrieve(response)
        assert (closed.status, closed.output_text) == ("incomplete", said)
        assert closed.incomplete_details is not None
        assert [item.to_dict()["status"] for item in closed.output] == ["incomplete"]
        talk.told += ["asked", said]
        await asyncio.gather(*(one.say(other, streamed=True) for one in (talk, silent)))
        assert await items_of(other, talk.conversation) == talk.told
        assert await items_of(other, silent.conversation) == silent.told
        await all_is_stored(redis, connection, [talk, silent])
    closings = sum(other.api.log_text().count("response of a dead process closed") for other in others)
    assert closings == 2, "one process closes each"
    await service.api.start()


async def _running(redis: Redis, count: int) -> bool:
    return int(await redis.zcard("running")) == count


async def _logged(redis: Redis, response: str, text: str) -> bool:
    entries = await redis.xrange(f"log:{TENANT}:{response}")
    return text in str(entries)
