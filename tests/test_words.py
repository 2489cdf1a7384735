"""What the probes and `queue status` say when something is wrong, and that a probe never waits for a store."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from core.entry import response_tail
from local.children import HOST
from tests.entries import broken_item, empty_queue, forget, header, item, push, store, writing_to
from tests.running import Part, Postgres, Service, service_on, worker_command
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

# What the kubelet gives a probe unless it is told otherwise.
PROBE_SECONDS = 1.0


@pytest.fixture(scope="module")
async def writing(postgres: Postgres, database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    async with writing_to(postgres, database) as connection:
        yield connection


@pytest.fixture
async def idle(
    writing: "asyncpg.Connection[Any]", redis: Redis, valkey: Part, postgres: Postgres, database: str, folder: Path
) -> Service:
    """No process runs; queue and tables are empty."""
    await empty_queue(redis)
    await forget(writing)
    return service_on(valkey, postgres, database, folder / "words")


async def status_of(service: Service, **settings: str) -> dict[str, Any]:
    exit_status, output, errors = await worker_command(service, "queue", "status", "--json", **settings)
    assert (exit_status, errors) == (0, "")
    told: dict[str, Any] = orjson.loads(output)
    return told


async def test_nothing_is_wrong(idle: Service) -> None:
    assert (await status_of(idle))["troubles"] == []
    assert (await worker_command(idle, "queue", "status"))[1].endswith("\nnothing is wrong\n")


async def test_old_entries_and_dead_letters_are_told(
    idle: Service, redis: Redis, writing: "asyncpg.Connection[Any]"
) -> None:
    await store(writing, broken_item(7, b"{"))
    await push(redis, item(1), item(2))
    told = await status_of(idle)
    waits, letters = told["troubles"]
    assert told["oldest_seconds"] > 60
    assert (told["depth"], told["dead_letters"], told["lost_entries"], told["leases_free"]) == (2, 1, 0, 0)
    assert waits.startswith("2 entries wait, the oldest for ")
    assert waits.endswith("and no worker holds any: start one, or ask /readyz of the one that runs.")
    assert letters.startswith("1 entries could not be stored: see `python -m worker dead-letters list`")


async def test_a_failed_response_is_as_old_as_it_is(idle: Service, redis: Redis) -> None:
    """It has no position, and when every turn fails there is nothing else in the queue."""
    body = orjson.dumps({"id": "resp_1", "created_at": 1_790_000_000, "input": []})
    await push(redis, header("conv_1", 0) + response_tail("resp_1", 0, 0, body))
    assert (await status_of(idle))["oldest_seconds"] > 60


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"PG_PORT": "1"}, "postgresql can't be reached (nobody answers there): nothing is stored meanwhile"),
        ({"PG_DATABASE": "nowhere"}, "postgresql can't be reached (it has no such database)"),
        ({"PG_DATABASE": "postgres"}, "postgresql lacks 001_initial, "),
    ],
)
async def test_what_is_wrong_with_postgresql_is_told(idle: Service, settings: dict[str, str], told: str) -> None:
    found = await status_of(idle, **settings)
    assert [trouble[: len(told)] for trouble in found["troubles"]] == [told]
    assert found["dead_letters"] is None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"REDIS_PORT": "1"}, "(nobody answers there): "),
        ({"REDIS_USERNAME": "nobody", "REDIS_PASSWORD": "wrong"}, "(it refuses the user or the password): "),
    ],
)
async def test_what_is_wrong_with_redis_is_told(idle: Service, settings: dict[str, str], why: str) -> None:
    exit_status, output, errors = await worker_command(idle, "queue", "status", **settings)
    assert (exit_status, output) == (1, "")
    assert errors.startswith(f"redis can't be reached {why}")
    assert all(name in errors for name in settings)


async def probe(url: str) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_probe_waits_for_no_store(valkey: Part, postgres: Postgres, database: str, folder: Path) -> None:
    """They hang: every pod would leave the Service if its readiness waited for them, and hot chats with them."""
    left = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, HOST, 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        service = service_on(valkey, postgres, database, folder / "hanging", PG_PORT=str(port))
        try:
            await service.api.start()
            valkey.pause()
            api = service.url.removesuffix("/v1")
            status, body = await probe(f"{api}/readyz")
            redis_told, postgres_told = orjson.loads(body)["missing"]
            assert (status, (await probe(f"{api}/livez"))[0]) == (200, 200)
        finally:
            valkey.resume()
            await service.close()
            left.set()
    slow, mend = "can't be reached (it does not answer in time): ", "Look at its load, its disk and the network to it."
    assert redis_told == f"redis {slow}new stored turns are answered with 503. {mend}"
    assert postgres_told == f"postgresql {slow}hot conversations go on, cold ones are answered with 503. {mend}"


async def test_the_worker_tells_why_it_waits(idle: Service, valkey: Part) -> None:
    await idle.worker.start()
    assert await probe(f"{idle.worker_url}/readyz") == (200, "ready\n")
    valkey.pause()

    async def says() -> str:
        status, body = await probe(f"{idle.worker_url}/readyz")
        return body if status == 503 else ""

    try:
        told = await wait_until(says, "the worker to notice", 20)
    finally:
        valkey.resume()
    assert told.startswith("redis can't be reached (")
    assert "nothing is stored meanwhile" in told
    await idle.worker.close()
