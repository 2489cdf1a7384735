"""What an acknowledgement does to the hot copies that its range touched."""

from collections import Counter

import pytest
from redis.asyncio import Redis

from api.history import changes
from core.entry import UNCOUNTED, parse
from tests.entries import TENANT, claim, empty_queue, item, push
from worker import queue
from worker.queue import Stored

pytestmark = pytest.mark.anyio

EXPIRATION = 1800


@pytest.fixture(autouse=True)
async def empty(redis: Redis) -> None:
    await empty_queue(redis)


async def acknowledge(redis: Redis, stored: Stored) -> None:
    await push(redis, item(1))
    assert await queue.ack(redis, await claim(redis), stored, EXPIRATION)


async def hot(redis: Redis, unstored: int, **fields: str) -> None:
    for name, value in {"unstored": str(unstored), "len": "1", **fields}.items():
        await redis.hset(f"conv:{TENANT}:conv_1", name, value)
    await redis.rpush(f"items:{TENANT}:conv_1", "1 {}")


async def lives(redis: Redis) -> tuple[int, int]:
    return await redis.ttl(f"conv:{TENANT}:conv_1"), await redis.ttl(f"items:{TENANT}:conv_1")


async def test_a_conversation_may_expire_once_all_of_it_is_stored(redis: Redis) -> None:
    await hot(redis, 3)
    await acknowledge(redis, Stored(counts=Counter({(TENANT, "conv_1"): 2})))
    assert await lives(redis) == (-1, -1)
    await acknowledge(redis, Stored(counts=Counter({(TENANT, "conv_1"): 1})))
    assert await redis.hget(f"conv:{TENANT}:conv_1", "unstored") == b"0"
    assert all(0 < seconds <= EXPIRATION for seconds in await lives(redis))


async def test_a_locked_conversation_does_not_expire(redis: Redis) -> None:
    await hot(redis, 1, lock="resp_1")
    await acknowledge(redis, Stored(counts=Counter({(TENANT, "conv_1"): 1})))
    assert await redis.hget(f"conv:{TENANT}:conv_1", "unstored") == b"0"
    assert await lives(redis) == (-1, -1)


async def test_an_ack_makes_no_conversation(redis: Redis) -> None:
    await acknowledge(redis, Stored(counts=Counter({(TENANT, "conv_1"): 1}), responses={(TENANT, "resp_1")}))
    assert await redis.keys("*:default:*") == []


async def test_a_tombstone_keeps_its_own_time(redis: Redis) -> None:
    await redis.hset(f"conv:{TENANT}:conv_1", "deleted", "1")
    await redis.hset(f"resp:{TENANT}:resp_1", "status", "deleted")
    ids = {(TENANT, "resp_1")}
    await acknowledge(redis, Stored(counts=Counter({(TENANT, "conv_1"): 1}), responses=ids, removed_responses=ids))
    assert await lives(redis) == (-1, -2)
    assert await redis.ttl(f"resp:{TENANT}:resp_1") == -1
    await acknowledge(redis, Stored(deleted_conversations={(TENANT, "conv_1")}, deleted_responses=ids))
    day = 86_400
    assert day - 60 <= (await lives(redis))[0] <= day
    assert day - 60 <= await redis.ttl(f"resp:{TENANT}:resp_1") <= day


async def test_stored_and_removed_responses(redis: Redis) -> None:
    for name in ("resp_kept", "resp_removed"):
        await redis.hset(f"resp:{TENANT}:{name}", "status", "completed")
        await redis.xadd(f"log:{TENANT}:{name}", {"e": "x"})
    both = {(TENANT, "resp_kept"), (TENANT, "resp_removed")}
    await acknowledge(redis, Stored(responses=both, removed_responses={(TENANT, "resp_removed")}))
    assert 0 < await redis.ttl(f"resp:{TENANT}:resp_kept") <= EXPIRATION
    assert await redis.exists(f"log:{TENANT}:resp_kept") == 1
    assert await redis.exists(f"resp:{TENANT}:resp_removed", f"log:{TENANT}:resp_removed") == 0


@pytest.mark.parametrize(
    ("unstored", "fields", "gone"), [(1, {}, True), (2, {}, False), (1, {"lock": "resp_1"}, False)]
)
async def test_a_stale_copy_goes_unless_it_is_needed(
    redis: Redis, unstored: int, fields: dict[str, str], *, gone: bool
) -> None:
    await hot(redis, unstored, **fields)
    name = {(TENANT, "conv_1")}
    await acknowledge(redis, Stored(counts=Counter(name), stale_conversations=name))
    assert (await lives(redis) == (-2, -2)) is gone


@pytest.mark.parametrize("fields", [{}, {"lock": "resp_1"}])
async def test_a_stale_copy_that_was_needed_goes_later(redis: Redis, fields: dict[str, str]) -> None:
    """Else what was deleted lives on in a branch for as long as somebody talks there."""
    await hot(redis, 2, **fields)
    name = {(TENANT, "conv_1")}
    await acknowledge(redis, Stored(counts=Counter(name), stale_conversations=name))
    assert await lives(redis) == (-1, -1)
    await redis.hdel(f"conv:{TENANT}:conv_1", "lock")
    await acknowledge(redis, Stored(counts=Counter(name)))
    assert await lives(redis) == (-2, -2)


async def test_what_no_hot_copy_counted_takes_nothing_off(redis: Redis) -> None:
    """The delete of a response whose thread was cold then."""
    await changes.delete_response(redis, TENANT, "resp_1", "thr_1", None, None)
    lease = await claim(redis)
    assert [parse(entry).extra for entry in lease.entries] == [(UNCOUNTED,)]
