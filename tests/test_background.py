"""Responses in the background: left, polled, resumed, cancelled, and run again when their process dies."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import orjson
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError
from openai.types.responses import Response, ResponseStreamEvent
from redis.asyncio import Redis

from core.queue import META
from tests.conftest import StartService
from tests.contract import validate_event, validate_stream
from tests.entries import TENANT
from tests.ownership import violations
from tests.running import Part, Postgres, Service
from tests.talking import Json, asked, context, drained, events_of, release, talk
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

OPENING = ["response.created", "response.queued", "response.in_progress"]
BEGINNING = "word1 word2 word3 "


@pytest.fixture
async def client(asking_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(asking_service) as one:
        yield one


@pytest.fixture(scope="module")
async def other_api(start_service: StartService, asking_service: Service) -> Service:
    """Another API of the same service."""
    return await start_service(worker=False, OPENAI_BASE_URL=asking_service.environment["OPENAI_BASE_URL"])


@pytest.fixture
async def doomed(start_service: StartService, asking_service: Service) -> Service:
    """One that dies in the test."""
    return await start_service(worker=False, OPENAI_BASE_URL=asking_service.environment["OPENAI_BASE_URL"])


async def has(client: AsyncOpenAI, response: str, status: str) -> Response:
    async def seen() -> bool:
        return (await client.responses.retrieve(response)).status == status

    await wait_until(seen, f"the response to be {status}")
    return await client.responses.retrieve(response)


async def resumed(client: AsyncOpenAI, response: str, after: int) -> list[ResponseStreamEvent]:
    stream = await client.responses.retrieve(response, stream=True, starting_after=after)
    return [event async for event in stream]


async def running(redis: Redis) -> list[bytes]:
    """What runs, or would if its process lived."""
    return cast("list[bytes]", await redis.zrange("running", 0, -1))


async def end_locks(redis: Redis) -> None:
    """As if no process that runs something had been heard of for the whole lock."""
    for member in await running(redis):
        thread = cast("bytes", await redis.hget(f"resp:{member.decode()}", "thread"))
        await redis.hset(f"conv:{TENANT}:{thread.decode()}", "deadline", "1")
        await redis.zadd("running", {member: 1}, xx=True)


async def upstream_has(upstream: Part, text: str, count: int) -> None:
    async def enough() -> bool:
        return len(await asked(upstream, text)) == count

    await wait_until(enough, f"the upstream to be asked {count} times")


async def test_polled_to_its_end(client: AsyncOpenAI, upstream: Part, redis: Redis) -> None:
    conversation = (await client.conversations.create()).id
    begun = await client.responses.create(
        model="fake-hold-poll", input="poll", background=True, conversation=conversation
    )
    assert (begun.status, begun.background, begun.output) == ("queued", True, [])
    await has(client, begun.id, "in_progress")
    await release(upstream, "poll")
    ended = await has(client, begun.id, "completed")
    assert ended.output_text.startswith(BEGINNING)
    await client.responses.create(input="poll on", conversation=conversation)
    assert (await context(upstream, "poll on"))[0] == "user: poll"
    assert [event.type for event in await resumed(client, begun.id, -1)][:3] == OPENING
    await drained(redis)
    assert await violations(redis) == []


async def test_a_stream_is_left_and_resumed(client: AsyncOpenAI, upstream: Part) -> None:
    events = await client.responses.create(model="fake-hold-left", input="left", background=True, stream=True)
    head = []
    async for event in events:
        head.append(event)
        if event.type == "response.output_text.delta":
            break
    await events.close()
    assert [event.type for event in head[:3]] == OPENING
    first: Any = head[0]
    states = [event.response.status for event in head[:3]]  # type: ignore[union-attr]
    assert states == ["queued", "queued", "in_progress"]
    await release(upstream, "left")
    rest = await resumed(client, first.response.id, head[-1].sequence_number)
    final = validate_stream([event.to_dict() for event in (*head, *rest)])
    assert final["status"] == "completed"


async def test_unstored_it_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as refusal:
        await client.responses.create(input="x", background=True, store=False)
    assert (refusal.value.code, refusal.value.param) == ("invalid_value", "background")


async def test_cancelled_while_it_runs(client: AsyncOpenAI, other_api: Service) -> None:
    """From another process; what it had said stays."""
    begun = await client.responses.create(model="fake-hang-middle", input="stop", background=True)
    await has(client, begun.id, "in_progress")
    async with talk(other_api) as other:
        ended = await asyncio.wait_for(other.responses.cancel(begun.id), 5)
        assert (ended.status, ended.output_text) == ("cancelled", BEGINNING)
        assert await other.responses.cancel(begun.id) == ended
        last: Any = (await resumed(other, begun.id, 0))[-1]
    assert last.response == ended


async def test_a_quiet_stream_costs_little(client: AsyncOpenAI, other_api: Service, redis: Redis) -> None:
    """Whoever follows it from another process does not fetch its long input over and over."""
    begun = await client.responses.create(model="fake-hang-middle", input="x" * 1_000_000, background=True)
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{other_api.url}/responses/{begun.id}?stream=true") as answer,
    ):
        await answer.content.readuntil(b"word3")
        looks, sent = await _looks(redis), await _sent(redis)
        await wait_until(lambda: _looked(redis, looks + 5), "the log to be looked at")
        assert await _sent(redis) - sent < 1_000_000
    await client.responses.cancel(begun.id)


async def _looks(redis: Redis) -> int:
    return int((await redis.info("commandstats"))["cmdstat_xrange"]["calls"])


async def _looked(redis: Redis, count: int) -> bool:
    return await _looks(redis) >= count


async def _sent(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_net_output_bytes"])


async def test_the_same_key_gives_the_same_response(client: AsyncOpenAI, upstream: Part) -> None:
    one, other = [
        await client.responses.create(
            model="fake-gate-key", input="key", background=True, extra_headers={"Idempotency-Key": "background"}
        )
        for _ in range(2)
    ]
    assert one.id == other.id
    await release(upstream, "key")
    await has(client, one.id, "completed")
    await upstream_has(upstream, "key", 1)


async def test_run_again_after_its_process_died(
    client: AsyncOpenAI, doomed: Service, upstream: Part, redis: Redis
) -> None:
    """By another process, under its id, with its history; who resumes its stream sees one whole answer."""
    before = await client.responses.create(input="before")
    async with talk(doomed) as dying:
        begun = await dying.responses.create(
            model="fake-gate-again",
            input="again",
            instructions="be brief",
            background=True,
            stream=True,
            previous_response_id=before.id,
        )
        head = [await anext(aiter(begun)) for _ in range(3)]
        first: Any = head[0]
        await upstream_has(upstream, "again", 1)
        await wait_until(lambda: _logged(redis, first.response.id), "its opening to be logged")
        await doomed.api.kill()
        await begun.close()
    await end_locks(redis)
    await upstream_has(upstream, "again", 2)
    bodies = [one["body"] for one in await asked(upstream, "again")]
    assert bodies[0] == bodies[1]
    await release(upstream, "again")
    rest = await resumed(client, first.response.id, 2)
    final = validate_stream([event.to_dict() for event in (*head, *rest)], gap=True)
    assert (final["status"], final["id"]) == ("completed", first.response.id)
    await drained(redis)
    assert await violations(redis) == []


async def _logged(redis: Redis, response: str) -> bool:
    return bool(await redis.exists(f"log:{TENANT}:{response}"))


async def test_not_run_again(client: AsyncOpenAI, doomed: Service, upstream: Part, redis: Redis) -> None:
    """What had said something, what its client cancels, what has ended every process that ran it."""
    async with talk(doomed) as dying:
        half, unwanted, poison = [
            await dying.responses.create(model=model, input=text, background=True)
            for model, text in (
                ("fake-hang-middle", "half"),
                ("fake-gate-never", "unwanted"),
                ("fake-gate-never", "poison"),
            )
        ]
        await wait_until(lambda: _said(redis, half.id), "its text to be logged")
        for text in ("unwanted", "poison"):
            await upstream_has(upstream, text, 1)
        await doomed.api.kill()
    # Long before its lock ends.
    assert (await asyncio.wait_for(client.responses.cancel(unwanted.id), 5)).status == "cancelled"
    await redis.hset(f"resp:{TENANT}:{poison.id}", "takeups", 3)
    await end_locks(redis)
    assert (await has(client, half.id, "incomplete")).output_text == BEGINNING
    error = (await has(client, poison.id, "failed")).error
    assert error is not None
    assert error.code == "server_error"
    for text in ("half", "unwanted", "poison"):
        await upstream_has(upstream, text, 1)


async def _said(redis: Redis, response: str) -> bool:
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(f"log:{TENANT}:{response}"))
    return b"word3" in b"".join(fields[b"e"] for _, fields in entries)


async def test_handed_over_by_a_process_that_ends(
    client: AsyncOpenAI, doomed: Service, upstream: Part, redis: Redis
) -> None:
    """At once, though it may drain for 30 s; what had spoken already goes on there to its end."""
    async with talk(doomed) as ending:
        begun = await ending.responses.create(model="fake-gate-over", input="hand over", background=True)
        speaking = await ending.responses.create(model="fake-hold-drain", input="still speaking", background=True)
        await upstream_has(upstream, "hand over", 1)
        await wait_until(lambda: _said(redis, speaking.id), "the other to speak")
    stopping = asyncio.create_task(doomed.api.terminate())
    await upstream_has(upstream, "hand over", 2)
    await release(upstream, "over")
    await has(client, begun.id, "completed")
    assert await redis.hget(f"resp:{TENANT}:{begun.id}", "takeups") is None
    await release(upstream, "drain")
    await has(client, speaking.id, "completed")
    assert await stopping == 0


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_retry_with_its_key_runs_it_again(
    asking_service: Service, doomed: Service, upstream: Part, redis: Redis, stream: bool
) -> None:
    """No matter in which process the retry arrives; the answer has the id that the first try had."""
    name = f"retry{stream}"
    headers, body = {"Idempotency-Key": name}, {"model": f"fake-gate-{name}", "input": name, "stream": stream}
    async with aiohttp.ClientSession() as http:
        first = asyncio.create_task(_post(http, doomed, body, headers))
        await upstream_has(upstream, name, 1)
        members = await running(redis)
        await doomed.api.kill()
        with pytest.raises(aiohttp.ClientError):
            await first
        retry = asyncio.create_task(_post(http, asking_service, body, headers))
        await wait_until(lambda: redis.hexists(f"resp:{members[-1].decode()}", "again"), "the retry to be heard")
        await end_locks(redis)
        await upstream_has(upstream, name, 2)
        await release(upstream, name)
        answer = await retry
    response: Json = events_of(answer)[-1]["response"] if stream else _json(answer)
    assert response["status"] == "completed"
    assert f"{TENANT}:{response['id']}".encode() in members


async def _post(http: aiohttp.ClientSession, service: Service, body: Json, headers: dict[str, str]) -> bytes:
    async with http.post(f"{service.url}/responses", json=body, headers=headers) as answer:
        return await answer.read()


def _json(answer: bytes) -> Json:
    body: Json = orjson.loads(answer)
    return body


async def test_who_follows_what_is_deleted_is_told(client: AsyncOpenAI, other_api: Service, redis: Redis) -> None:
    """The one who asked, for whom the SDK raises it, and another one who follows from another process."""
    conversation = (await client.conversations.create()).id
    asking = await client.responses.create(
        model="fake-hang-middle", input="gone with it", conversation=conversation, stream=True
    )
    created: Any = await anext(aiter(asking))
    async with aiohttp.ClientSession() as http:
        following = http.get(f"{other_api.url}/responses/{created.response.id}?stream=true")
        async with following as answer:
            await wait_until(lambda: _said(redis, created.response.id), "its text to be logged")
            read = await answer.content.readuntil(b"word3")
            await client.conversations.delete(conversation)
            with pytest.raises(APIError) as told:
                [event async for event in asking]
            assert told.value.code == "conversation_not_found"
            *before, last = events_of(read + await answer.read())
    validate_event(last)
    assert (last["type"], last["error"]["code"]) == ("error", "response_not_found")
    assert last["sequence_number"] == before[-1]["sequence_number"] + 1
    assert last["message"] == last["error"]["message"]


async def test_the_time_without_postgresql_is_nobody_s_death(
    client: AsyncOpenAI, doomed: Service, upstream: Part, redis: Redis, postgres: Postgres
) -> None:
    """Redis has lost something, so PostgreSQL must say whether it ended long ago."""
    async with talk(doomed) as dying:
        begun = await dying.responses.create(model="fake-gate-doubt", input="doubt", background=True)
        await upstream_has(upstream, "doubt", 1)
        await doomed.api.kill()
    await redis.hset(META, mapping={"lost": await redis.hget(META, "epoch") or b"", "lost_ms": 0})
    name = f"resp:{TENANT}:{begun.id}"
    thread = cast("bytes", await redis.hget(name, "thread")).decode()
    for key in (name, f"conv:{TENANT}:{thread}"):
        await redis.hset(key, "epoch", 0)
    await postgres.kill()
    try:
        for _ in range(5):
            await end_locks(redis)
            await wait_until(lambda: _is_locked(redis, begun.id), "somebody to look")
    finally:
        await postgres.start()
    await end_locks(redis)
    await upstream_has(upstream, "doubt", 2)
    await release(upstream, "doubt")
    await has(client, begun.id, "completed")
    await drained(redis)
    assert await violations(redis) == []


async def _is_locked(redis: Redis, response: str) -> bool:
    """Whoever looks takes it over, and keeps it for as long as a lock lasts."""
    deadline = await redis.zscore("running", f"{TENANT}:{response}")
    return deadline is not None and deadline > 1
