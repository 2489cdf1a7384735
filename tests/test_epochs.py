"""Redis comes back as another one: started again, wiped, or restored from an old copy; what is lost is counted."""

import asyncio
import functools
import itertools
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import asyncpg
import orjson
import pytest
from openai import AsyncOpenAI, NotFoundError
from redis.asyncio import Redis

from core.queue import META, QUEUE
from tests.chatting import ask, client_of, items_of
from tests.conftest import StartService
from tests.entries import TENANT
from tests.ownership import violations
from tests.running import Folder, Part, Postgres, Service, valkey_in, worker_command
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

names = itertools.count()
# A turn leaves its input, its answer, and its response.
OF_A_TURN = 3


@dataclass(frozen=True, slots=True)
class Home:
    """A Redis and where it keeps its data."""

    server: Part
    path: Path

    async def wipe(self) -> None:
        """It comes back on a new volume."""
        await self.server.kill()
        shutil.rmtree(self.path / "valkey")
        await self.server.start()

    async def copy(self) -> None:
        """Keep what it has now; whatever it is asked meanwhile may be in the copy or not."""
        await asyncio.to_thread(shutil.copytree, self.path / "valkey", self.path / "copy")

    async def rewind(self) -> None:
        """It comes back as it was when the copy was made."""
        await self.server.kill()
        shutil.rmtree(self.path / "valkey")
        (self.path / "copy").rename(self.path / "valkey")
        await self.server.start()


@pytest.fixture(scope="module")
async def home(anyio_backend: str) -> AsyncIterator[Home]:  # noqa: ARG001 - one event loop for all
    own = Folder()
    server = valkey_in(own.path)
    await server.start()
    yield Home(server, own.path)
    await server.close()
    own.remove()


@pytest.fixture(scope="module")
async def valkey(home: Home) -> Part:
    return home.server


@pytest.fixture(scope="module")
async def first(start_service: StartService) -> Service:
    """The first API process, and the worker; each test starts what it needs."""
    return await start_service(MODEL="echo")


@pytest.fixture(scope="module")
async def other(start_service: StartService, first: Service) -> Service:  # noqa: ARG001 - it has migrated
    return await start_service(worker=False, MODEL="echo")


@dataclass
class Talk:
    """One conversation, and all that was acknowledged to be in it."""

    conversation: str
    told: list[str] = field(default_factory=list)

    async def say(self, client: AsyncOpenAI) -> str:
        """A turn; the response's id."""
        text = f"text {next(names)}"
        response = await client.responses.create(input=text, conversation=self.conversation)
        assert response.output_text == text
        self.told += [text, text]
        return response.id


@dataclass(frozen=True, slots=True)
class World:
    home: Home
    first: Service
    other: Service
    one: AsyncOpenAI
    two: AsyncOpenAI
    redis: Redis
    postgres: Postgres

    async def talk(self, client: AsyncOpenAI, turns: int = 1) -> Talk:
        talk = Talk((await client.conversations.create(metadata={"n": str(next(names))})).id)
        for _ in range(turns):
            await talk.say(client)
        return talk

    async def depth(self) -> int:
        return int(await self.redis.llen(QUEUE))

    async def drained(self) -> None:
        await wait_until(self._is_empty, "the queue to drain", 30)
        await wait_until(self._owned, "every key to have an owner or a time to live")

    async def _is_empty(self) -> bool:
        return await self.depth() == 0

    async def _owned(self) -> bool:
        return not await violations(self.redis)

    async def lost(self) -> int:
        """What the operator is told to be lost so far, once all is brought to PostgreSQL."""
        await wait_until(self._reported, "reports to be brought to PostgreSQL")
        status, output, errors = await worker_command(self.first, "queue", "status", "--json")
        assert status == 0, errors
        entries: int = orjson.loads(output)["lost_entries"]
        return entries

    async def _reported(self) -> bool:
        return not await self.redis.exists("{chatQueue}:e")

    async def connection(self) -> "asyncpg.Connection[Any]":
        database = self.first.environment["PG_DATABASE"]
        where = self.postgres
        return await asyncpg.connect(host=where.host, port=where.port, user=where.user, database=database)

    async def stored(self, talk: Talk) -> list[str]:
        connection = await self.connection()
        rows = await connection.fetch(
            "SELECT item FROM items WHERE tenant = $1 AND conversation = $2 ORDER BY position",
            TENANT,
            talk.conversation,
        )
        assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0
        await connection.close()
        return [orjson.loads(row["item"])["content"][0]["text"] for row in rows]


@pytest.fixture
async def world(home: Home, first: Service, other: Service, redis: Redis, postgres: Postgres) -> AsyncIterator[World]:
    async with client_of(first) as one, client_of(other) as two:
        world = World(home, first, other, one, two, redis, postgres)
        yield world
        for part in (postgres, first.api, first.worker, other.api):
            if not part.child.running:
                await part.start()
        await world.drained()


async def test_a_restart_loses_nothing_and_needs_no_postgresql(world: World) -> None:
    before = await world.lost()
    await world.first.worker.terminate()
    talk = await world.talk(world.one, 2)
    epoch = await world.redis.hget(META, "epoch")
    depth = await world.depth()
    await world.postgres.kill()
    await world.home.server.kill()
    await world.home.server.start()
    await talk.say(world.two)
    assert await world.redis.hget(META, "epoch") != epoch
    assert await world.depth() == depth + OF_A_TURN
    await world.postgres.start()
    await world.first.worker.start()
    await world.drained()
    assert await world.stored(talk) == talk.told
    assert await world.lost() == before


async def test_a_wiped_redis_gets_back_what_is_remembered(world: World) -> None:
    """Readers see it at once, with the worker away; nothing counts as lost."""
    before = await world.lost()
    stored = await world.talk(world.one, 2)
    await world.drained()
    await world.first.worker.terminate()
    new = await world.talk(world.one, 2)
    response = await stored.say(world.two)
    await world.home.wipe()
    # Each process greets Redis at least once a second. What was stored lately comes along; it changes nothing.
    await wait_until(lambda: _is_hot(world, new, stored), "both to put back what they have")
    for talk, client in ((new, world.two), (stored, world.one)):
        assert await items_of(client, talk.conversation) == talk.told
    assert (await world.one.responses.retrieve(response)).output_text == stored.told[-1]
    assert (await world.two.conversations.retrieve(new.conversation)).metadata != {}
    for talk, client in ((new, world.two), (stored, world.one)):
        await talk.say(client)
        assert await items_of(client, talk.conversation) == talk.told
    await world.first.worker.start()
    await world.drained()
    for talk in (new, stored):
        assert await world.stored(talk) == talk.told
        assert await items_of(world.one, talk.conversation) == talk.told
    assert await world.lost() == before


async def test_a_wipe_under_connections_that_stay_is_noticed_by_all(world: World) -> None:
    """Whoever meets it first gives the queue an epoch, with which all scripts of the others are content."""
    before = await world.lost()
    await world.first.worker.terminate()
    talks = [(await world.talk(client, 2), client) for client in (world.one, world.two)]
    await world.redis.flushall()
    for talk, client in talks:
        await wait_until(functools.partial(_is_hot, world, talk), "each to put back what it has")
        await talk.say(client)
    await world.first.worker.start()
    await world.drained()
    assert [await world.stored(talk) for talk, _ in talks] == [talk.told for talk, _ in talks]
    assert await world.lost() == before


async def _is_hot(world: World, *talks: Talk) -> bool:
    return await world.redis.exists(*(f"conv:{TENANT}:{talk.conversation}" for talk in talks)) == len(talks)


async def test_a_branch_gets_back_what_it_inherits(world: World) -> None:
    """Though PostgreSQL has neither it nor the threads that it comes from."""
    await world.first.worker.terminate()
    root = await world.one.responses.create(input="root")
    branches = [await _continued(world.one, root.id, name) for name in ("trunk", "branch")]
    twigs = [await _continued(world.one, branches[1], name) for name in ("twig", "leaf")]
    await world.home.wipe()
    await wait_until(lambda: _knows(world, twigs[1]), "the responses to be put back")
    last = await _continued(world.one, twigs[1], "last")
    thread = cast("bytes", await world.redis.hget(f"resp:{TENANT}:{last}", "thread")).decode()
    elements = cast("list[bytes]", await world.redis.lrange(f"items:{TENANT}:{thread}", 0, -1))
    texts = [orjson.loads(element.partition(b" ")[2])["content"][0]["text"] for element in elements]
    assert texts == [text for name in ("root", "branch", "leaf", "last") for text in (name, name)]
    await world.first.worker.start()


async def _continued(client: AsyncOpenAI, response: str, text: str) -> str:
    return (await client.responses.create(input=text, previous_response_id=response)).id


async def _knows(world: World, response: str) -> bool:
    return bool(await world.redis.exists(f"resp:{TENANT}:{response}"))


async def test_what_nobody_remembers_is_counted(world: World) -> None:
    before = await world.lost()
    await world.first.worker.terminate()
    gone = [await world.talk(world.one, 3) for _ in range(2)]
    await world.first.api.kill()
    kept = await world.talk(world.two, 2)
    await world.home.wipe()
    await kept.say(world.two)
    await asyncio.gather(world.first.api.start(), world.first.worker.start())
    await world.drained()
    assert await world.stored(kept) == kept.told
    assert [await world.stored(talk) for talk in gone] == [[], []]
    assert await world.lost() - before == 2 * (1 + 3 * OF_A_TURN)
    told = f"chatbot_queue_lost_entries {float(await world.lost())}"
    await wait_until(lambda: _tells(world.first, told), "the metric")


async def _tells(service: Service, line: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(service.metrics_url) as answer:
        return line in await answer.text()


async def _is_put_back(world: World, talk: Talk) -> bool:
    items = await world.redis.lrange(f"items:{TENANT}:{talk.conversation}", -1, -1)
    return bool(items) and talk.told[-1] in str(items[0]) and bool(await world.redis.hexists(META, "lost"))


async def test_an_old_copy_is_completed(world: World) -> None:
    """From PostgreSQL what was stored since then, from memory what was not; running ones of then have ended since."""
    before = await world.lost()
    talk, quiet = await world.talk(world.one, 1), await world.talk(world.two, 1)
    doomed = await world.talk(world.one, 1)
    await world.drained()
    await world.home.copy()
    await talk.say(world.one)
    await quiet.say(world.two)
    await world.one.conversations.delete(doomed.conversation)
    await world.drained()
    await world.first.worker.terminate()
    await talk.say(world.one)
    await world.home.rewind()
    # The one that remembers may not be the first that notices.
    await wait_until(lambda: _is_put_back(world, talk), "the last turn to be put back")
    for one, client in ((talk, world.two), (quiet, world.one)):
        assert await items_of(client, one.conversation) == one.told
        await one.say(client)
        assert await items_of(client, one.conversation) == one.told
    with pytest.raises(NotFoundError):
        await ask(world.two, "anybody?", conversation=doomed.conversation)
    await world.first.worker.start()
    await world.drained()
    for one in (talk, quiet):
        assert await world.stored(one) == one.told
    assert await world.lost() == before
