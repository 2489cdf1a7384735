"""Turns without a model: what api/turn/ does to Redis, step by step, and a worker without PostgreSQL."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import orjson
from redis.asyncio import Redis

from api.history import changes, steps
from api.history.changes import HotConversation, HotResponse
from api.history.steps import Begun, Ending, Opening, Refused
from api.idempotency import Idempotency
from api.lanes import Lanes
from core.entry import Entry, Kind, item_tail, parse, response_tail
from core.queue import QUEUE
from tests.entries import TENANT
from worker import queue
from worker.queue import Stored

LIMIT = 1_000_000
EXPIRATION = 1800
CONVERSATION = "conv_1"
numbers = itertools.count(1)


@asynccontextmanager
async def running_lanes(redis: Redis) -> AsyncIterator[Lanes]:
    lanes = Lanes(redis)
    task = asyncio.create_task(lanes.run())
    try:
        yield lanes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def opening(conversation: str = "", previous: str = "", key: str = "", request_hash: str = "h") -> Opening:
    number = next(numbers)
    ids = f"resp_{number}", f"token{number}", f"thr_{number}"
    return Opening(TENANT, *ids, b'{"input":[]}', conversation, previous, Idempotency(key, request_hash, 60))


def ending(response: str, *texts: str, log: bytes = b"", sequence: int = 0) -> Ending:
    """Every text is an item, the first one the input; without any, the turn has produced nothing."""
    ids = [f"msg_{next(numbers)}" for _ in texts]
    items = [item_tail(name, response, said(name, text)) for name, text in zip(ids, texts, strict=True)]
    status, kept = ("completed", b"") if texts else ("failed", b"[]")
    entry = response_tail(response, min(1, len(texts)), max(len(texts) - 1, 0), b"{}")
    return Ending(status, b"{}", entry, items, log, sequence, 1, kept)


def said(item_id: str, text: str) -> bytes:
    return orjson.dumps({"id": item_id, "text": text})


async def begun(lanes: Lanes, one: Opening) -> Begun:
    outcome = await steps.begin(lanes, one, LIMIT)
    assert isinstance(outcome, Begun), outcome
    return outcome


async def refusal(lanes: Lanes, one: Opening, limit: int = LIMIT) -> tuple[str, str]:
    outcome = await steps.begin(lanes, one, limit)
    assert isinstance(outcome, Refused), outcome
    return outcome.reason, outcome.detail


async def finish(lanes: Lanes, one: Opening, thread: str, end: Ending) -> str:
    return (await steps.finish(lanes, TENANT, thread, one.response, one.token, end))[0]


async def flush(redis: Redis, one: Opening, thread: str, log: bytes = b"", last_sequence: int = 0) -> str:
    flushes = [steps.Flush(TENANT, thread, one.response, one.token, log, last_sequence)]
    return (await steps.flush(redis, flushes))[0]


async def turn(lanes: Lanes, one: Opening, *texts: str) -> str:
    """A whole turn; the thread that it went to."""
    thread = (await begun(lanes, one)).thread
    assert await finish(lanes, one, thread, ending(one.response, *texts)) == "ok"
    return thread


async def create(redis: Redis, *texts: str, name: str = CONVERSATION) -> str:
    """A conversation with items whose ids end in their texts."""
    items = [(f"msg_{text}", said(f"msg_{text}", text)) for text in texts]
    changed = await changes.append(redis, TENANT, name, items, LIMIT, created_at=1, metadata=b"{}")
    assert changed.reason == "ok"
    return name


async def append(redis: Redis, text: str, name: str = CONVERSATION, limit: int = LIMIT, key: str = "") -> str:
    item_id = f"msg_{next(numbers)}"
    items, once = [(item_id, said(item_id, text))], Idempotency(key, "h", 60)
    return (await changes.append(redis, TENANT, name, items, limit, idempotency=once, ids=item_id)).reason


async def texts(redis: Redis, thread: str = CONVERSATION) -> list[str]:
    hot = await changes.read(redis, TENANT, thread, items=True)
    assert isinstance(hot, HotConversation), hot
    return texts_of([item for _, item in hot.items])


def texts_of(items: list[bytes]) -> list[str]:
    return [orjson.loads(item)["text"] for item in items]


async def response_of(redis: Redis, one: Opening) -> HotResponse:
    known = await changes.read_response(redis, TENANT, one.response)
    assert isinstance(known, HotResponse), known
    return known


async def entries(redis: Redis, thread: str = CONVERSATION) -> list[Entry]:
    """What is queued of a thread."""
    queued = cast("list[bytes]", await redis.lrange(QUEUE, 0, -1))
    return [entry for entry in map(parse, queued) if entry.conversation == thread]


async def drain(redis: Redis) -> None:
    """What a worker does to Redis once it has stored everything."""
    while lease := await queue.claim(redis, queue.new_token(), "1:1", 1000):
        parsed = [parse(entry) for entry in lease.entries]
        ids = {kind: {(entry.tenant, entry.id) for entry in parsed if entry.kind is kind} for kind in Kind}
        stored = Stored(
            counts=Counter((entry.tenant, entry.conversation) for entry in parsed),
            responses=ids[Kind.RESPONSE],
            deleted_conversations=ids[Kind.DELETE_CONVERSATION],
            deleted_responses=ids[Kind.DELETE_RESPONSE],
        )
        assert await queue.ack(redis, lease, stored, EXPIRATION)


async def expire_lock(redis: Redis, one: Opening, thread: str) -> None:
    """As if its process had not been heard of for the whole lock."""
    await redis.hset(f"conv:{TENANT}:{thread}", "deadline", "1")
    await redis.zadd("running", {f"{TENANT}:{one.response}": 1}, xx=True)
