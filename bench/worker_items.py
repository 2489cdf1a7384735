"""Items per second through the queue into PostgreSQL, beside one connection's bare COPY of the same rows.

    python -m bench.worker_items [--items 200000] [--rounds 3]

Both write to the same table of the same server, in transactions of the same size, by turns; the medians are compared.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import orjson
from redis.asyncio import Redis

from core.entry import item_tail
from core.settings import PostgresSettings
from core.store import open_pool
from local.children import HOST, free_port
from local.embedded import DATABASE, USER, start_postgres, start_valkey
from local.parts import migrate, start_module
from worker import queue

TEXT_BYTES = 300
TURN_ITEMS = 2
CONVERSATION_ITEMS = 4
BATCH_ENTRIES = 2000
COLUMNS = ("tenant", "conversation", "position", "id", "response", "created_at", "item")

Row = tuple[str, str, int, str, str, datetime, bytes]


def rows(count: int) -> list[Row]:
    """Messages of about 400 bytes, in turns of two, four to a conversation."""
    first = time.time_ns() // 1000
    made = []
    for index in range(count):
        item_id = f"msg_{index:032x}"
        item = {
            "id": item_id,
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "x" * TEXT_BYTES}],
        }
        conversation, response = f"conv_{index // CONVERSATION_ITEMS:032x}", f"resp_{index // TURN_ITEMS:032x}"
        created_at = datetime.fromtimestamp((first + index) / 1_000_000, UTC)
        made.append(("default", conversation, first + index, item_id, response, created_at, orjson.dumps(item)))
    return made


async def bare_copy(pool: "asyncpg.Pool[asyncpg.Record]", written: list[Row]) -> float:
    await pool.execute("TRUNCATE items, searchable, search_due")
    async with pool.acquire() as connection:
        began = time.perf_counter()
        for start in range(0, len(written), BATCH_ENTRIES):
            await connection.copy_records_to_table(
                "items", records=written[start : start + BATCH_ENTRIES], columns=COLUMNS
            )
        return len(written) / (time.perf_counter() - began)


async def through_the_queue(
    pool: "asyncpg.Pool[asyncpg.Record]", redis: Redis, environment: dict[str, str], logs: Path, written: list[Row]
) -> float:
    await pool.execute("TRUNCATE items, searchable, search_due")
    await redis.flushall()
    for start in range(0, len(written), BATCH_ENTRIES):
        entries = [
            f"1 {tenant} {conversation} {position} ".encode() + item_tail(item_id, response, body)
            for tenant, conversation, position, item_id, response, _, body in written[start : start + BATCH_ENTRIES]
        ]
        await redis.rpush("chatQueue", *entries)
    worker = await start_module("worker", environment, logs, int(environment["HEALTH_PORT"]))
    try:
        began, left = 0.0, 0
        while not began or (await queue.status(redis)).depth:
            if not began and (await queue.status(redis)).never_leased < len(written):
                began, left = time.perf_counter(), (await queue.status(redis)).depth
            await asyncio.sleep(0.002)
        took = time.perf_counter() - began
    finally:
        await worker.stop(20)
    stored = await pool.fetchval("SELECT count(*) FROM items")
    assert stored == len(written), f"{stored} of {len(written)} items are stored"
    return left / took


def _reachable(folder: Path) -> Path:
    """PostgreSQL may run under another account."""
    folder.chmod(0o755)
    return folder


async def main(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="chatbot-bench-") as name:
        folder = _reachable(Path(name))
        redis_port, postgres_port, health_port = free_port(), free_port(), free_port()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "REDIS_PORT": str(redis_port),
            "PG_PORT": str(postgres_port),
            "HEALTH_PORT": str(health_port),
            "BATCH_ENTRIES": str(BATCH_ENTRIES),
        }
        postgres = await start_postgres(folder / "postgres", folder, postgres_port)
        valkey = await start_valkey(folder / "valkey", folder, redis_port)
        try:
            await migrate(environment, folder)
            settings = PostgresSettings(HOST, postgres_port, USER, "", DATABASE)
            async with await open_pool(settings, 1, "bench") as pool, Redis(port=redis_port) as redis:
                written = rows(count)
                bare, queued = [], []
                for _ in range(rounds):
                    bare.append(await bare_copy(pool, written))
                    queued.append(await through_the_queue(pool, redis, environment, folder, written))
                    print(f"bare COPY {bare[-1]:>9,.0f} items/s    worker {queued[-1]:>9,.0f} items/s")
                copy, worker = statistics.median(bare), statistics.median(queued)
                print(f"medians:  {copy:>9,.0f} items/s    worker {worker:>9,.0f} items/s    ratio {worker / copy:.2f}")
        finally:
            await valkey.stop(20)
            await postgres.stop(20)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.items, chosen.rounds))
