"""The worker's commands for people, and its settings."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from tests.chaos.gate import gate_to
from tests.entries import TENANT, broken_item, empty_queue, forget, item, push, store, writing_to
from tests.running import Part, Postgres, Service, service_on, worker_command
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def writing(postgres: Postgres, database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    async with writing_to(postgres, database) as connection:
        yield connection


@pytest.fixture
async def service(
    writing: "asyncpg.Connection[Any]", redis: Redis, valkey: Part, postgres: Postgres, database: str, folder: Path
) -> AsyncIterator[Service]:
    """A worker that a test may start; queue and tables are empty."""
    await empty_queue(redis)
    await forget(writing)
    one = service_on(valkey, postgres, database, folder / "commands")
    yield one
    await one.worker.close()


async def test_what_is_queued(service: Service, redis: Redis) -> None:
    await push(redis, item(1), item(2))
    status, output, _ = await worker_command(service, "queue", "status", "--json")
    told = orjson.loads(output)
    assert (status, told["depth"], told["never_leased"], told["leases"]) == (0, 2, 2, 0)
    assert "depth=2" in (await worker_command(service, "queue", "status"))[1]


async def test_dead_letters_are_listed_and_shown(service: Service, writing: "asyncpg.Connection[Any]") -> None:
    bad = broken_item(7, b'{"text":"secret\\u0000"}')
    await store(writing, bad, broken_item(8, b"{"))
    status, output, _ = await worker_command(service, "dead-letters", "list", "--json")
    first, second = map(orjson.loads, output.splitlines())
    assert (status, first["entry_id"], second["entry_id"]) == (0, "msg_7", "msg_8")
    assert first["conversation"] == "conv_1"
    assert "secret" not in output
    assert "msg_7" in (await worker_command(service, "dead-letters", "list", "--limit", "1"))[1]
    assert (await worker_command(service, "dead-letters", "show", str(first["id"])))[1] == bad.decode() + "\n"


async def test_a_dropped_dead_letter_is_gone(service: Service, writing: "asyncpg.Connection[Any]") -> None:
    await store(writing, broken_item(7, b"{"))
    letter = str(await writing.fetchval("SELECT id FROM dead_letters"))
    assert (await worker_command(service, "dead-letters", "drop", letter))[:2] == (0, "dropped 1\n")
    for action in ("show", "replay"):
        assert (await worker_command(service, "dead-letters", action, letter))[0] == 1


async def test_a_replayed_dead_letter_is_stored_and_gone(
    service: Service, redis: Redis, writing: "asyncpg.Connection[Any]"
) -> None:
    await writing.execute("ALTER TABLE items ADD CONSTRAINT no_tea CHECK (item->>'content' <> 'tea')")
    await store(writing, item(1, text="tea"), item(2))
    await writing.execute("ALTER TABLE items DROP CONSTRAINT no_tea")
    await redis.hset(f"conv:{TENANT}:conv_1", mapping={"unstored": "0", "len": "1"})
    await redis.rpush(f"items:{TENANT}:conv_1", "a copy that was read while the item was missing")
    letter = str(await writing.fetchval("SELECT id FROM dead_letters"))
    assert (await worker_command(service, "dead-letters", "replay", letter))[:2] == (0, f"queued {letter} again\n")
    assert await redis.hget(f"conv:{TENANT}:conv_1", "unstored") == b"1"
    await service.worker.start()

    async def replayed() -> bool:
        return await redis.llen("chatQueue") == 0

    await wait_until(replayed, "the entry is stored")
    assert await writing.fetchval("SELECT item->>'content' FROM items WHERE id = 'msg_1'") == "tea"
    assert await writing.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert await redis.keys("*:default:conv_1") == []


async def test_a_replay_that_fails_again_leaves_the_same_entry(
    service: Service, redis: Redis, writing: "asyncpg.Connection[Any]"
) -> None:
    bad = broken_item(7, b"{")
    await store(writing, bad)
    letter = str(await writing.fetchval("SELECT id FROM dead_letters"))
    await worker_command(service, "dead-letters", "replay", letter)
    await service.worker.start()

    async def tried() -> bool:
        return await redis.llen("chatQueue") == 0

    await wait_until(tried, "the entry was tried again")
    assert [row["entry"] for row in await writing.fetch("SELECT entry FROM dead_letters")] == [bad]


async def test_wrong_settings_are_told_together(service: Service) -> None:
    status, _, errors = await worker_command(service, REDIS_PORT="many", BATCH_ENTRIES="0", LOG_LEVEL="loud")
    assert status == 2
    assert all(name in errors for name in ("REDIS_PORT", "BATCH_ENTRIES", "LOG_LEVEL"))
    assert "Traceback" not in errors


async def test_a_store_out_of_reach_is_told_in_a_line(service: Service) -> None:
    for arguments, setting in (
        (("queue", "status"), "REDIS_PORT"),
        (("dead-letters", "list"), "PG_PORT"),
        (("migrate",), "PG_PORT"),
    ):
        status, _, errors = await worker_command(service, *arguments, **{setting: "1"})
        assert status == 1
        assert "Traceback" not in errors
        assert errors


async def test_a_migration_waits_for_postgres(service: Service, postgres: Postgres) -> None:
    async with gate_to(postgres.port) as gate:
        gate.shut = True
        command = worker_command(service, "migrate", "--wait-seconds", "15", PG_PORT=str(gate.port))
        migrating = asyncio.create_task(command)

        async def refused() -> bool:
            return gate.refused > 0

        await wait_until(refused, "the migration has found PostgreSQL away")
        gate.shut = False
        assert (await migrating)[0] == 0


async def test_help_tells_the_commands(service: Service) -> None:
    status, output, _ = await worker_command(service, "--help")
    assert status == 0
    assert all(command in output for command in ("migrate", "dead-letters", "queue"))
