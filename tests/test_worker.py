"""The worker's process on real servers that are killed, stopped and away."""

import asyncio
import random
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from core.entry import Kind
from core.queue import LEASES, QUEUE
from local.parts import migrate
from tests.chaos.gate import gate_to
from tests.entries import TENANT, claim, deletion, empty_queue, expire, forget, item, push, store
from tests.running import Part, Postgres, Service, service_on
from tests.waiting import wait_until
from worker import queue
from worker import store as worker_store
from worker.queue import LEASE_MS

pytestmark = pytest.mark.anyio

ITEMS = 20_000
END_WORKERS_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'chatbot-worker%'"""


@pytest.fixture(scope="module")
async def service(valkey: Part, postgres: Postgres, database: str, folder: Path) -> AsyncIterator[Service]:
    """A worker on a migrated database; each test starts it."""
    one = service_on(valkey, postgres, database, folder / "worker")
    await migrate(one.environment, one.logs)
    yield one
    await one.worker.close()


@pytest.fixture
async def worker(service: Service, redis: Redis, connection: "asyncpg.Connection[Any]") -> AsyncIterator[Part]:
    """Not started yet; queue and tables are empty."""
    await empty_queue(redis)
    await forget(connection)
    yield service.worker
    await service.worker.close()


async def drained(redis: Redis, seconds: float = 30) -> None:
    async def empty() -> bool:
        return await redis.llen(QUEUE) == 0

    await wait_until(empty, "the queue is drained", seconds)


async def stored(connection: "asyncpg.Connection[Any]") -> int:
    """How many items there are; fails when one is not what was queued."""
    rows = await connection.fetch("SELECT id, position, item->>'id' AS inner FROM items")
    assert all(row["id"] == row["inner"] and row["position"] % 1_000_000 == int(row["id"][4:]) for row in rows)
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0
    return len(rows)


async def push_many(redis: Redis, count: int = ITEMS) -> None:
    for start in range(0, count, 2000):
        numbers = range(start, min(start + 2000, count))
        await push(redis, *(item(number, f"conv_{number // 10}") for number in numbers))


def get(service: Service, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{service.worker_url}{path}", timeout=5) as answer:  # noqa: S310 - our own process
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def waits(worker: Part) -> list[str]:
    """The systems that the worker said to wait for since its start."""
    log = worker.child.log.read_bytes()[worker.child.log_start :].splitlines()
    lines = [orjson.loads(line) for line in log if line.startswith(b"{")]
    return [line["system"] for line in lines if line["message"] == "waiting"]


async def metric(service: Service, name: str) -> float:
    _, text = await asyncio.to_thread(get, service, "/metrics")
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


async def test_what_is_queued_is_stored(
    worker: Part, service: Service, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    await worker.start()
    await push_many(redis)
    await drained(redis)
    assert await stored(connection) == ITEMS
    assert (await queue.status(redis)).leases == 0
    assert await metric(service, 'chatbot_worker_stored_entries_total{kind="item"}') == ITEMS


async def under_way(redis: Redis) -> bool:
    return 0 < await redis.llen(QUEUE) < ITEMS


async def test_postgres_killed_while_it_stores(
    worker: Part, service: Service, redis: Redis, postgres: Postgres
) -> None:
    await push_many(redis)
    await worker.start()

    await wait_until(lambda: under_way(redis), "some of it is stored")
    await postgres.kill()
    await wait_until(lambda: get(service, "/readyz")[0] == 503, "the worker notices")
    assert "postgresql can't be reached (" in get(service, "/readyz")[1]
    assert get(service, "/livez")[0] == 200
    # Twice when the other lane's last commit was answered just before, and heard of just after.
    assert set(waits(worker)) == {"postgresql"}
    await postgres.start()
    await drained(redis)
    again = await asyncpg.connect(
        host=postgres.host, port=postgres.port, user=postgres.user, database=service.environment["PG_DATABASE"]
    )
    assert await stored(again) == ITEMS
    await again.close()
    assert get(service, "/readyz") == (200, "ready\n")
    assert set(waits(worker)) == {"postgresql"}


async def test_redis_killed_while_it_stores(
    worker: Part, valkey: Part, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    await push_many(redis)
    await worker.start()

    await wait_until(lambda: under_way(redis), "some of it is stored")
    await valkey.kill()
    await wait_until(lambda: "redis" in waits(worker), "the worker notices")
    await valkey.start()
    # A claim whose reply was lost is not left to its lease.
    await drained(redis, LEASE_MS / 1000 - 5)
    assert await stored(connection) == ITEMS


async def test_a_worker_that_died_after_its_commit(
    worker: Part, service: Service, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    entries = [item(number) for number in range(10)]
    await push(redis, *entries)
    await expire(redis, await claim(redis))
    await store(connection, *entries)
    await worker.start()
    await drained(redis)
    assert await stored(connection) == 10
    assert await metric(service, "chatbot_worker_duplicate_rows_total") == 10
    assert await metric(service, "chatbot_worker_redeliveries_total") == 1


async def test_a_stopped_worker_does_not_block_its_range(
    worker: Part, redis: Redis, postgres: Postgres, service: Service, connection: "asyncpg.Connection[Any]"
) -> None:
    """It was stopped between COPY and COMMIT: only the end of its session frees the keys that it has inserted."""
    await push(redis, item(1), item(2))
    stopped = await asyncpg.connect(
        host=postgres.host, port=postgres.port, user=postgres.user, database=service.environment["PG_DATABASE"]
    )
    lease = await claim(redis, session=await worker_store.own_session(stopped))
    transaction = stopped.transaction()
    await transaction.start()
    await stopped.execute("INSERT INTO items SELECT $1, 'conv_1', 1790000000000001, 'msg_1', NULL, now(), '{}'", TENANT)
    await expire(redis, lease)
    await worker.start()
    await drained(redis)
    assert await stored(connection) == 2
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await transaction.commit()
    stopped.terminate()
    assert not await queue.ack(redis, lease, queue.Stored(), 1)


async def test_sigterm_while_it_stores(worker: Part, redis: Redis, connection: "asyncpg.Connection[Any]") -> None:
    await push_many(redis)
    await worker.start()

    await wait_until(lambda: under_way(redis), "some of it is stored")
    assert await worker.terminate() == 0
    status = await queue.status(redis)
    assert (status.leases, status.acked_out_of_order) == (0, 0)
    assert await stored(connection) == ITEMS - status.depth
    await worker.start()
    await drained(redis)
    assert await stored(connection) == ITEMS


async def test_sigterm_while_postgres_does_not_answer(
    worker: Part, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    await push(redis, item(1))
    await worker.start()
    # Else the lease below could be that of the first item, about to be acknowledged.
    await drained(redis)
    async with connection.transaction():
        await connection.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        await push(redis, item(2))

        async def claimed() -> bool:
            return (await queue.status(redis)).leases > 0

        await wait_until(claimed, "the worker is stuck with a range")
        assert await worker.terminate() == 0
        assert await redis.zcount(LEASES, 0, 0) == 1, "released"
    await worker.start()
    await drained(redis)
    assert await stored(connection) == 2


async def test_a_worker_killed_while_it_stores(
    worker: Part, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    await worker.start()
    async with connection.transaction():
        await connection.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        await push(redis, item(1), item(2))

        async def claimed() -> bool:
            return (await queue.status(redis)).never_leased == 0

        await wait_until(claimed, "the worker has the range")
        await worker.kill()
    for member in await redis.zrange(LEASES, 0, -1):
        assert isinstance(member, bytes)
        await redis.zadd(LEASES, {member: 1})
    await worker.start()
    await drained(redis)
    assert await stored(connection) == 2


async def test_a_table_out_of_reach_is_waited_for(
    worker: Part, service: Service, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    await worker.start()
    await connection.execute("ALTER TABLE items RENAME TO elsewhere")
    try:
        await push(redis, item(1))
        await wait_until(lambda: "its schema is missing" in get(service, "/readyz")[1], "the worker says what is wrong")
        assert await redis.llen(QUEUE) == 1
    finally:
        await connection.execute("ALTER TABLE elsewhere RENAME TO items")
    await drained(redis)
    assert await stored(connection) == 1


async def test_a_session_in_disorder_is_left(
    valkey: Part, postgres: Postgres, database: str, folder: Path, redis: Redis, connection: "asyncpg.Connection[Any]"
) -> None:
    """PostgreSQL says that it ends a session, and the end does not come: asyncpg then fails with whatever is asked."""
    await empty_queue(redis)
    async with gate_to(postgres.port) as gate:
        service = service_on(valkey, postgres, database, folder / "disorder", PG_PORT=str(gate.port))
        await migrate(service.environment, service.logs)
        await forget(connection)
        await service.worker.start()
        try:
            await push(redis, item(1))
            await drained(redis)
            gate.keeps = True
            ended = await connection.fetch(END_WORKERS_SESSIONS)
            assert len(ended) >= 2, "a lane and the index"
            await push(redis, item(2))
            await drained(redis)
            assert await stored(connection) == 2
            assert "InternalClientError" in service.worker.log_text()
            assert "unexpected failure" not in service.worker.log_text(), "it counts against the range"

            async def indexed() -> bool:
                return bool(await connection.fetchval("SELECT count(*) = 2 FROM searchable"))

            await wait_until(indexed, "the index goes on")
        finally:
            await service.worker.close()


@pytest.mark.usefixtures("worker")
async def test_deletes_race_their_own_late_entries_with_three_workers(
    redis: Redis, connection: "asyncpg.Connection[Any]", valkey: Part, postgres: Postgres, database: str, folder: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chosen = random.Random(seed)  # noqa: S311 - nothing secret
    conversations = 300
    lanes = [
        [*(item(c * 10 + n, f"conv_{c}") for n in range(chosen.randrange(1, 9))),
         deletion(Kind.DELETE_CONVERSATION, f"conv_{c}", f"conv_{c}")]
        for c in range(conversations)
    ]  # fmt: skip
    # As the API would: each conversation in its order, all of them mixed.
    entries = []
    while lanes:
        lane = chosen.choice(lanes)
        entries.append(lane.pop(0))
        if not lane:
            lanes.remove(lane)
    await push(redis, *entries)
    others = [
        service_on(valkey, postgres, database, folder / f"racing-{number}", BATCH_ENTRIES="7").worker
        for number in range(3)
    ]
    try:
        await asyncio.gather(*(other.start() for other in others))
        await drained(redis)
    finally:
        for other in others:
            await other.close()
    assert await stored(connection) == 0
    assert await connection.fetchval("SELECT count(*) FROM tombstones") == conversations
