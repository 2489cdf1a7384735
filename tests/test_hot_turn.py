"""What a hot turn costs: two scripts and no PostgreSQL; and that its end is told only once it is kept."""

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from api.history.scripts import script
from api.history.steps import LOCK_MS
from core import queue, queue_sample
from core.queue import QUEUE
from local.children import HOST
from tests.chatting import ask, client_of, rest, stream, terminal_of, text_until, with_upstream
from tests.conftest import StartService
from tests.fake_upstream import fake_upstream_in
from tests.running import Part, Service
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

ANSWER = " ".join(f"word{number}" for number in range(1, 33))
SCRIPTS = {
    script(name, allow_oom=allow_oom, counts=counts).sha: name
    for name, allow_oom, counts in (
        ("begin", False, True),
        ("flush", True, False),
        ("finish", True, True),
        ("expired", True, False),
    )
} | {queue._renew.sha: "renew", queue_sample._sample.sha: "sample"}  # noqa: SLF001 - a script is known by its hash
# Now and then for all turns of a process together: the sweeper, and who looks for lost epochs and for reports of them.
OF_NO_TURN = {"expired", "renew", "sample", "SMEMBERS", "SREM"}
names = itertools.count()


@pytest.fixture(scope="module")
async def fake(folder: Any) -> AsyncIterator[Part]:
    server = fake_upstream_in(folder / "hot-upstream")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def service(start_service: StartService, fake: Part) -> Service:
    """Without a worker, whose commands would be among those that are counted."""
    return await start_service(worker=False, **with_upstream(fake))


@pytest.fixture(scope="module")
async def client(service: Service, valkey: Part) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(service) as one, Redis(host=valkey.host, port=valkey.port) as redis:
        await redis.script_load(script("expired", allow_oom=True).source)
        for streamed in (False, True):  # Redis learns the scripts
            await one.responses.create(input="hello", stream=streamed)
        events = await stream(one, "hello", model="fake-slow-10ms")
        await rest(events)
        yield one


@dataclass
class Seen:
    """The commands that clients sent to Redis, with the times at which it took them."""

    commands: list[tuple[float, str]] = field(default_factory=list)

    def times(self, name: str) -> list[float]:
        return [at for at, seen in self.commands if seen == name]

    def names(self) -> list[str]:
        return [name for _, name in self.commands]


@asynccontextmanager
async def watching(redis: Redis) -> AsyncIterator[Seen]:
    """What Redis takes meanwhile, complete when the context ends."""
    seen = Seen()
    marker = f"end-{next(names)}"
    watched = asyncio.Event()

    async def watch() -> None:
        async with redis.monitor() as monitor:
            watched.set()
            async for command in monitor.listen():
                words = re.split(r"\s+", command["command"], maxsplit=2)
                if words[-1] == marker:
                    return
                name = words[0].upper()
                name = SCRIPTS.get(words[1], name) if name == "EVALSHA" else name
                if command["client_type"] != "lua" and name not in OF_NO_TURN:
                    seen.commands.append((command["time"], name))

    async with redis.client() as own, asyncio.TaskGroup() as tasks:
        await own.ping()  # its connection is made before anybody watches
        tasks.create_task(watch())
        await watched.wait()
        yield seen
        await own.echo(marker)


async def queries(connection: "asyncpg.Connection[Any]") -> list[Any]:
    """The API's sessions, each with the time of its last query."""
    return await connection.fetch(
        "SELECT pid, query_start FROM pg_stat_activity WHERE application_name = 'chatbot-api' AND datname = "
        "current_database() ORDER BY pid"
    )


async def in_a_conversation(client: AsyncOpenAI) -> list[dict[str, Any]]:
    """Bodies of hot turns: the first and the next in a conversation and in a thread, and a fork."""
    conversation = (await client.conversations.create(items=[{"type": "message", "role": "user", "content": "x"}])).id
    first = await client.responses.create(input="hello")
    await client.responses.create(input="hello", previous_response_id=first.id)
    last = await client.responses.create(input="hello")
    return [
        {},
        {"conversation": conversation},
        {"conversation": conversation, "extra_headers": {"Idempotency-Key": f"key-{next(names)}"}},
        {"previous_response_id": last.id},
        {"previous_response_id": first.id},
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_two_scripts_and_no_postgresql(
    client: AsyncOpenAI, redis: Redis, connection: "asyncpg.Connection[Any]", *, streamed: bool
) -> None:
    bodies = await in_a_conversation(client)
    before = await queries(connection)
    assert before, "the API has asked whether PostgreSQL is there when it started"
    for body in bodies:
        async with watching(redis) as seen:
            if streamed:
                assert await rest(await stream(client, "hello", **body)) == (ANSWER, "response.completed")
            else:
                assert await ask(client, "hello", **body) == ANSWER
        # A busy machine can make a turn last long enough for a flush.
        assert [name for name in seen.names() if name != "flush"] == ["begin", "finish"], body
        assert len(seen.commands) <= 4, seen
    assert await queries(connection) == before


async def test_turns_share_round_trips(client: AsyncOpenAI, redis: Redis) -> None:
    turns = 64
    before = await redis.info("stats")
    async with watching(redis) as seen:
        await asyncio.gather(*(ask(client, "hello") for _ in range(turns)))
    after = await redis.info("stats")
    counts = Counter(seen.names())
    assert (counts.pop("begin"), counts.pop("finish")) == (turns, turns)
    assert counts.keys() <= {"flush", "HELLO", "CLIENT", "EVAL", "EVALSHA"}, (
        "a busy lane may open one more connection, and greet it"
    )
    reads = after["total_reads_processed"] - before["total_reads_processed"]
    assert reads < 1.5 * turns, "a round trip for each call would be twice as many as there are turns"


async def test_a_turn_that_lasts_is_logged_while_events_come(client: AsyncOpenAI, redis: Redis) -> None:
    async with watching(redis) as seen:
        events = await stream(client, "hello", model="fake-slow-40ms")
        assert await rest(events) == (ANSWER, "response.completed")
    assert [name for name in seen.names() if name != "flush"] == ["begin", "finish"]
    # 32 tokens in 1.3 s, each 40 ms after the one before it.
    assert 6 <= len(seen.times("flush")) <= 30
    moments = [at for at, _ in seen.commands]
    assert max(later - one for one, later in itertools.pairwise(moments)) < 0.5


async def test_the_lock_of_a_quiet_turn_is_renewed_every_second(client: AsyncOpenAI, redis: Redis, fake: Part) -> None:
    """Streamed or not, for as long as its model thinks."""
    gate = f"hold-{next(names)}"
    async with watching(redis) as seen:
        silent = asyncio.create_task(ask(client, "hello", model=f"fake-{gate}"))
        events = await stream(client, "hello", model=f"fake-{gate}")
        assert await text_until(events, 3) == "word1 word2 word3 "
        await wait_until(lambda: len(seen.times("flush")) >= 5, "renewals of two quiet turns")
        seconds, _ = await redis.time()
        assert await redis.zcount("running", seconds * 1000 + LOCK_MS - 2500, "+inf") == 2
        await release(fake, gate)
        assert (await rest(events))[1] == "response.completed"
        assert await silent == ANSWER
    quiet = seen.times("flush")[-4:]
    assert max(later - one for one, later in itertools.pairwise(quiet)) < 1.3
    assert quiet[-1] - quiet[0] > 0.8, "no more than that without events"
    assert await redis.zcard("running") == 0


async def release(fake: Part, gate: str) -> None:
    async with aiohttp.ClientSession() as http:
        await http.post(f"http://{HOST}:{fake.port}/release/{gate.removeprefix('hold-')}")


async def test_the_end_is_told_only_when_it_is_kept(client: AsyncOpenAI, redis: Redis, fake: Part) -> None:
    """Redis takes no writes while the model says its last words: all comes but the terminal event and the body."""
    gate = f"hold-{next(names)}"
    body = asyncio.create_task(ask(client, "hello", model=f"fake-{gate}"))
    events = await stream(client, "hello", model=f"fake-{gate}")
    await text_until(events, 3)
    await wait_until(lambda: _running(redis, 2), "both turns to have begun")
    depth = await redis.llen(QUEUE)
    await redis.client_pause(30_000, all=False)
    try:
        await release(fake, gate)
        assert await text_until(events, 29) == ANSWER.removeprefix("word1 word2 word3 ")
        terminal = asyncio.create_task(terminal_of(events))
        await asyncio.wait({terminal, body}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        assert not terminal.done()
        assert not body.done()
    finally:
        await redis.client_unpause()
    assert await terminal == "response.completed"
    assert await body == ANSWER
    assert await redis.llen(QUEUE) == depth + 6, "two turns of three entries, once each"


async def _running(redis: Redis, count: int) -> bool:
    return int(await redis.zcard("running")) == count
