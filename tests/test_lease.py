"""Leases of the queue on a real Valkey: who holds what, and what an acknowledgement does."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from api.history import orphans
from api.history.steps import LOCK_MS
from core.queue import ACKED, ALONE, ATTEMPTS, BELL, HOT, LEASES, META, QUEUE, SESSIONS, renew
from tests.entries import TENANT, broken_item, claim, empty_queue, expire, item, nothing_to_claim, push
from worker import queue
from worker.queue import LEASE_MS, MAX_BYTES, MAX_FAILURES, MAX_FAILURES_ALONE, Stored

pytestmark = pytest.mark.anyio

NOTHING = Stored()
EXPIRATION = 1800


@pytest.fixture(autouse=True)
async def empty(redis: Redis) -> None:
    await empty_queue(redis)


async def test_entries_stay_queued_until_they_are_acknowledged(redis: Redis) -> None:
    entries = [item(number) for number in range(3)]
    await push(redis, *entries)
    lease = await claim(redis)
    assert lease.entries == entries
    assert (lease.first, lease.end, lease.start, lease.tail, lease.failures) == (0, 3, 0, 3, 0)
    assert await redis.llen(QUEUE) == 3
    assert await nothing_to_claim(redis)
    assert await queue.ack(redis, lease, NOTHING, EXPIRATION)
    assert await redis.llen(QUEUE) == 0
    assert await redis.exists(LEASES, SESSIONS, ATTEMPTS, ALONE, ACKED) == 0


async def test_ranges_do_not_overlap_and_offsets_go_on(redis: Redis) -> None:
    await push(redis, *(item(number) for number in range(5)))
    first, second = await claim(redis, 2), await claim(redis, 2)
    assert (first.first, first.end, second.first, second.end) == (0, 2, 2, 4)
    await queue.ack(redis, first, NOTHING, EXPIRATION)
    third = await claim(redis, 2)
    assert (third.first, third.end, third.entries) == (4, 5, [item(4)])


async def test_acknowledged_out_of_order(redis: Redis) -> None:
    await push(redis, *(item(number) for number in range(6)))
    leases = [await claim(redis, 2) for _ in range(3)]
    for lease in (leases[2], leases[1]):
        assert await queue.ack(redis, lease, NOTHING, EXPIRATION)
        assert await redis.llen(QUEUE) == 6
    assert await queue.ack(redis, leases[0], NOTHING, EXPIRATION)
    assert await redis.llen(QUEUE) == 0
    assert await redis.hget(META, "head") == b"6"
    assert await redis.exists(ACKED) == 0


async def test_a_range_ends_before_it_gets_too_large_but_has_one_entry(redis: Redis) -> None:
    large = broken_item(1, b"x" * (MAX_BYTES // 2))
    await push(redis, large, large, large, broken_item(2, b"x" * (MAX_BYTES + 1)))
    sizes = [len((await claim(redis)).entries) for _ in range(4)]
    assert sizes == [1, 1, 1, 1]
    await push(redis, *(broken_item(number, b"x" * 1_000_000) for number in range(40)))
    assert len((await claim(redis)).entries) == MAX_BYTES // 1_000_100


async def test_who_lost_the_lease_is_refused(redis: Redis) -> None:
    await push(redis, item(1), item(2))
    stale = await claim(redis)
    await expire(redis, stale)
    fresh = await claim(redis, session="2:2")
    assert (fresh.first, fresh.end, fresh.failures, fresh.former) == (0, 2, 1, "1:1")
    assert not await queue.ack(redis, stale, NOTHING, EXPIRATION)
    assert not await queue.extend(redis, stale)
    assert not await queue.release(redis, stale, ended=True, failed=False)
    assert await redis.llen(QUEUE) == 2
    assert await queue.ack(redis, fresh, NOTHING, EXPIRATION)


async def test_an_older_epoch_is_refused(redis: Redis) -> None:
    await push(redis, item(1))
    lease = await claim(redis)
    older = replace(lease, epoch=lease.epoch - 1)
    assert not await queue.ack(redis, older, NOTHING, EXPIRATION)
    assert not await queue.extend(redis, older)
    assert not await queue.release(redis, older, ended=True, failed=False)
    assert await redis.llen(QUEUE) == 1


async def test_a_repeated_ack_trims_nothing_more(redis: Redis) -> None:
    await push(redis, item(1))
    lease = await claim(redis)
    await push(redis, item(2))
    assert await queue.ack(redis, lease, NOTHING, EXPIRATION)
    assert not await queue.ack(redis, lease, NOTHING, EXPIRATION)
    assert await redis.lrange(QUEUE, 0, -1) == [item(2)]


async def test_a_repeated_claim_gets_the_same_range(redis: Redis) -> None:
    await push(redis, *(item(number) for number in range(4)))
    former = await claim(redis, 2)
    await expire(redis, former)
    token = queue.new_token()
    first = await queue.claim(redis, token, "2:2", 2)
    assert first is not None
    assert first.former == "1:1"
    assert await queue.claim(redis, token, "2:2", 2) == first


async def test_a_repeated_claim_of_what_a_new_epoch_gave_back_counts(redis: Redis) -> None:
    """Else each new epoch takes one failure more off the range than there was."""
    await push(redis, item(1))
    token = queue.new_token()
    first = await queue.claim(redis, token, "1:1", 1)
    assert first is not None
    await redis.hset(META, "run", "another")
    await renew(redis, first.epoch + 1)
    again = await queue.claim(redis, token, "1:1", 1)
    assert again is not None
    assert (again.first, again.end, again.failures) == (0, 1, 0)
    assert await queue.claim(redis, token, "1:1", 1) == again
    await expire(redis, again)
    assert (await claim(redis)).failures == 1


async def test_a_repeated_claim_of_what_somebody_else_halved_counts(redis: Redis) -> None:
    """Who comes late finds one half of what it was given, and may die of it as well as anybody."""
    await push(redis, item(0), item(1))
    for _ in range(MAX_FAILURES - 1):
        await expire(redis, await claim(redis))
    token = queue.new_token()
    late = await queue.claim(redis, token, "1:1", 2)
    assert late is not None
    await expire(redis, late)
    assert (await claim(redis)).entries == [item(0)]
    half = await queue.claim(redis, token, "1:1", 2)
    assert half is not None
    assert (half.entries, half.failures) == ([item(1)], MAX_FAILURES - 1)


async def test_an_expired_lease_comes_before_new_entries(redis: Redis) -> None:
    await push(redis, *(item(number) for number in range(4)))
    first = await claim(redis, 2)
    await expire(redis, first)
    assert (await claim(redis, 1)).entries == [item(0), item(1)]
    assert (await claim(redis, 1)).entries == [item(2)]


async def test_a_renewed_lease_does_not_expire(redis: Redis) -> None:
    await push(redis, item(1))
    lease = await claim(redis)
    await expire(redis, lease)
    assert await queue.extend(redis, lease)
    assert await nothing_to_claim(redis)


async def test_a_released_range_is_free_at_once_and_did_not_fail(redis: Redis) -> None:
    await push(redis, item(1))
    for _ in range(2 * MAX_FAILURES):
        lease = await claim(redis)
        assert lease.failures == 0
        assert await queue.release(redis, lease, ended=False, failed=False)
        assert await queue.release(redis, lease, ended=False, failed=False), "the repetition of a lost reply"
        assert not await queue.extend(redis, lease)
    assert (await claim(redis)).former == "1:1"


async def test_a_session_that_ended_its_transaction_is_not_named(redis: Redis) -> None:
    await push(redis, item(1))
    await queue.release(redis, await claim(redis), ended=True, failed=False)
    assert (await claim(redis)).former == "-"


async def test_a_range_that_kills_its_holders_is_halved_down_to_one_entry(redis: Redis) -> None:
    await push(redis, *(item(number) for number in range(8)))
    deadly = item(5)
    stored: list[bytes] = []
    for _ in range(30):
        if not await redis.llen(QUEUE):
            break
        lease = await claim(redis)
        if deadly not in lease.entries:
            stored += lease.entries
            assert await queue.ack(redis, lease, NOTHING, EXPIRATION)
        elif lease.suspect:
            await queue.try_alone(redis, lease)
            assert await queue.ack(redis, lease, NOTHING, EXPIRATION)
        else:
            await expire(redis, lease)
    assert sorted(stored) == sorted(item(number) for number in range(8) if number != 5)
    assert await redis.llen(QUEUE) == 0
    assert await redis.exists(LEASES, SESSIONS, ATTEMPTS, ALONE, ACKED) == 0


async def test_the_last_entry_of_a_deadly_range_is_given_up_once_it_has_failed_alone(redis: Redis) -> None:
    """Its holders may have died of what they held beside it."""
    await push(redis, item(0))
    for _ in range(MAX_FAILURES):
        lease = await claim(redis)
        assert not lease.suspect
        await expire(redis, lease)
    for failed in range(MAX_FAILURES_ALONE + 1):
        lease = await claim(redis)
        assert lease.suspect
        assert await queue.try_alone(redis, lease) == failed
        assert await queue.try_alone(redis, lease) == failed, "the repetition of a lost reply"
        await expire(redis, lease)
    assert await queue.try_alone(redis, lease) == MAX_FAILURES_ALONE, "nobody else has taken it over"
    last = await claim(redis)
    assert await queue.try_alone(redis, lease) is None, "somebody else has it"
    assert await queue.release(redis, last, ended=True, failed=False)
    assert await queue.try_alone(redis, last) is None
    assert await queue.try_alone(redis, await claim(redis)) == 0, "a holder that gave it back did not die of it"


async def test_a_half_is_tried_before_it_is_given_up(redis: Redis) -> None:
    await push(redis, item(0), item(1))
    for _ in range(MAX_FAILURES):
        await expire(redis, await claim(redis))
    halves = [await claim(redis), await claim(redis)]
    assert [half.entries for half in halves] == [[item(0)], [item(1)]]
    assert all(half.failures < MAX_FAILURES and half.former == "1:1" for half in halves)


async def test_an_expired_lease_comes_before_what_was_given_back(redis: Redis) -> None:
    """Its holder may be stopped in a transaction that nobody gets past until somebody ends its session."""
    await push(redis, item(1), item(2))
    given_back, stopped = await claim(redis, 1), await claim(redis, 1, session="2:2")
    assert await queue.release(redis, given_back, ended=True, failed=False)
    await expire(redis, stopped)
    taken = await claim(redis)
    assert (taken.first, taken.former) == (stopped.first, "2:2")
    assert (await claim(redis)).first == given_back.first


async def test_all_former_holders_sessions_are_named(redis: Redis) -> None:
    """The last one may have died before it ended the session of the one before."""
    await push(redis, item(1))
    for session in ("1:1", "2:2", "2:2"):
        await expire(redis, await claim(redis, session=session))
    assert (await claim(redis, session="3:3")).former == "2:2,1:1"


async def test_a_clock_that_went_back_does_not_keep_a_dead_lease(redis: Redis) -> None:
    await push(redis, item(1))
    lease = await claim(redis)
    member = f"{lease.first}:{lease.end}:{lease.token}"
    hour_ms = 3_600_000
    await redis.zincrby(LEASES, hour_ms, member)
    assert await nothing_to_claim(redis)
    deadline = await redis.zscore(LEASES, member)
    seconds, microseconds = await redis.time()
    assert deadline is not None
    assert deadline <= seconds * 1000 + microseconds / 1000 + LEASE_MS


async def test_a_clock_that_went_back_does_not_keep_a_dead_lock(redis: Redis) -> None:
    await redis.zadd("running", {f"{TENANT}:resp_1": 4_000_000_000_000})
    assert await orphans.expired(redis, 10) == []
    seconds, _ = await redis.time()
    assert (await redis.zscore("running", f"{TENANT}:resp_1") or 0) <= seconds * 1000 + 1000 + LOCK_MS


async def test_a_new_redis_has_a_new_epoch(redis: Redis) -> None:
    await push(redis, item(1))
    lease = await claim(redis)
    await redis.flushall()
    await renew(redis, lease.epoch + 1)
    await push(redis, item(2))
    fresh = await claim(redis)
    assert fresh.epoch > lease.epoch
    assert not await queue.ack(redis, replace(lease, token=fresh.token), NOTHING, EXPIRATION)
    assert await redis.llen(QUEUE) == 1


async def test_the_queue_drains_when_redis_is_full(redis: Redis) -> None:
    await push(redis, *(item(number) for number in range(100)))
    limit = (await redis.config_get("maxmemory"))["maxmemory"] or 0
    await redis.config_set("maxmemory", 1)
    try:
        released = await claim(redis, 50)
        assert await queue.release(redis, released, ended=True, failed=False)
        for _ in range(2):
            lease = await claim(redis, 50)
            assert await queue.extend(redis, lease)
            assert await queue.ack(redis, lease, NOTHING, EXPIRATION)
    finally:
        await redis.config_set("maxmemory", limit)
    assert await redis.llen(QUEUE) == 0


async def test_a_busy_worker_is_told_to_keda(redis: Redis) -> None:
    assert await nothing_to_claim(redis)
    assert await redis.exists(HOT) == 0
    await push(redis, item(1), item(2))
    await claim(redis, 1)
    await claim(redis, 1)
    assert await redis.llen(HOT) == 1
    assert 60 <= await redis.ttl(HOT) <= 120


async def test_the_bell_wakes_who_waits(redis: Redis) -> None:
    await redis.rpush(BELL, "1")
    await queue.wait(redis, 100)
    assert await redis.exists(BELL) == 0


async def test_leases_are_renewed_by_their_own_holder_alone(redis: Redis) -> None:
    await push(redis, item(1), item(2))
    leases = [await claim(redis, 1), await claim(redis, 1)]
    await expire(redis, leases[0])
    await expire(redis, leases[1])
    assert await queue.extend(redis, leases[1])
    assert (await claim(redis)).entries == [item(1)]
    assert await nothing_to_claim(redis)
