"""Queue entries as the API writes them, and the worker's own steps on them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
from redis.asyncio import Redis

from core.entry import Kind, item_tail, response_tail, tail
from core.queue import LEASES, QUEUE, renew
from core.settings import PostgresSettings
from core.store import connect
from tests.running import Postgres
from worker import queue
from worker.migrate import migrate
from worker.queue import Lease, Stored
from worker.storing import store_range

TENANT = "default"
FIRST_POSITION = 1_790_000_000_000_000
SESSION = "1:1"


def header(conversation: str, position: int) -> bytes:
    return f"1 {TENANT} {conversation} {position} ".encode()


def item(number: int, conversation: str = "conv_1", response: str | None = None, text: str = "hello") -> bytes:
    """The item `msg_NUMBER` at the position of the same number."""
    body = orjson.dumps({"id": f"msg_{number}", "type": "message", "content": text})
    return header(conversation, FIRST_POSITION + number) + item_tail(f"msg_{number}", response, body)


def broken_item(number: int, body: bytes, conversation: str = "conv_1") -> bytes:
    return header(conversation, FIRST_POSITION + number) + item_tail(f"msg_{number}", None, body)


def response(number: int, inputs: int, outputs: int, conversation: str = "conv_1", status: str = "completed") -> bytes:
    """The response `resp_NUMBER`, whose first item is `msg_NUMBER`."""
    body = orjson.dumps({"id": f"resp_{number}", "status": status, "created_at": 1_790_000_000})
    start = header(conversation, FIRST_POSITION + number)
    return start + response_tail(f"resp_{number}", inputs, outputs, body)


def conversation(name: str, number: int, metadata: dict[str, str], parent: str | None = None) -> bytes:
    body = {
        "created_at": 1_790_000_000,
        "metadata": metadata,
        "hidden": parent is not None,
        "parent": parent,
        "parent_position": None if parent is None else FIRST_POSITION + number,
    }
    return header(name, FIRST_POSITION + number) + tail(Kind.CONVERSATION, name, orjson.dumps(body))


def deletion(kind: Kind, name: str, conversation: str, number: int = 900) -> bytes:
    return header(conversation, FIRST_POSITION + number) + tail(kind, name)


async def empty_queue(redis: Redis) -> None:
    """Nothing in Redis, and an epoch for the queue, as the first process makes it."""
    await redis.flushall()
    await renew(redis, 1)


async def push(redis: Redis, *entries: bytes) -> None:
    await redis.rpush(QUEUE, *entries)


async def claim(redis: Redis, max_entries: int = 1000, session: str = SESSION) -> Lease:
    lease = await queue.claim(redis, queue.new_token(), session, max_entries)
    assert lease is not None, "nothing to claim"
    return lease


async def nothing_to_claim(redis: Redis) -> bool:
    return await queue.claim(redis, queue.new_token(), SESSION, 1000) is None


async def expire(redis: Redis, lease: Lease) -> None:
    """As if its holder had not been heard of for the whole lease."""
    await redis.zadd(LEASES, {f"{lease.first}:{lease.end}:{lease.token}": 1}, xx=True)


@asynccontextmanager
async def writing_to(postgres: Postgres, database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A connection as the worker's, to a database with the schema."""
    settings = PostgresSettings(postgres.host, postgres.port, postgres.user, "", database)
    await migrate(settings)
    connection = await connect(settings, "test")
    try:
        yield connection
    finally:
        await connection.close()


async def forget(connection: "asyncpg.Connection[Any]") -> None:
    """Empty all tables."""
    await connection.execute(
        "TRUNCATE conversations, items, searchable, search_due, responses, dead_letters, tombstones, queue_epochs"
    )


async def store(
    connection: "asyncpg.Connection[Any]",
    *entries: bytes,
    failures: int = 0,
    first: int = 0,
    hopeless: bool = False,
) -> Stored:
    """Store the entries as one range with these offsets."""
    end = first + len(entries)
    lease = Lease(7, 0, "token", first, end, end, failures, "-", list(entries))
    return await store_range(connection, lease, hopeless=hopeless)
