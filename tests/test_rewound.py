"""A Redis that came back as an older copy of itself, and what is put back into it; no key is left without an owner."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import pytest
from redis.asyncio import Redis

from api.history import changes, losses, steps
from api.history.losses import Ended
from api.lanes import Lanes
from core import queue
from core.put_back import put_back
from core.queue import META, QUEUE, Epoch, Receipt
from tests.entries import TENANT, empty_queue
from tests.hot_turns import (
    CONVERSATION,
    append,
    begun,
    create,
    drain,
    ending,
    entries,
    finish,
    flush,
    opening,
    refusal,
    running_lanes,
    said,
    texts,
)
from tests.ownership import violations

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def clean(redis: Redis) -> AsyncIterator[None]:
    await empty_queue(redis)
    yield
    await drain(redis)
    assert await violations(redis) == []


@pytest.fixture
async def lanes(redis: Redis) -> AsyncIterator[Lanes]:
    async with running_lanes(redis) as one:
        yield one


@dataclass(frozen=True, slots=True)
class Copy:
    keys: dict[bytes, bytes]

    @classmethod
    async def of(cls, redis: Redis) -> "Copy":
        return cls({key: cast("bytes", await redis.dump(key)) async for key in redis.scan_iter()})

    async def restore(self, redis: Redis) -> None:
        """As another run of Redis, and with everybody told of the loss."""
        await redis.flushall()
        for key, value in self.keys.items():
            await redis.restore(key, 0, value)
        await redis.hset(META, "run", "before")
        assert await queue.renew(redis, 5) is not None
        await queue.report(redis, None, lost=True, checked=True)


async def bring_back(redis: Redis, receipt: Receipt | None) -> None:
    assert receipt is not None
    await put_back(redis, receipt, 0, Epoch(receipt.epoch + 1, 0, checked=False, ends={}), "put back")


async def ended(lanes: Lanes, one: steps.Opening, *said: str) -> tuple[Receipt, Ended]:
    end = ending(one.response, *said)
    outcome, receipt = await steps.finish(lanes, TENANT, CONVERSATION, one.response, one.token, end)
    assert outcome == "ok"
    assert receipt is not None
    return receipt, Ended(TENANT, CONVERSATION, one.response, end)


@pytest.mark.parametrize("produced", [("said", "answered"), ()], ids=["with an answer", "without"])
async def test_a_turn_that_has_ended_frees_its_key(redis: Redis, lanes: Lanes, produced: tuple[str, ...]) -> None:
    one = opening(await create(redis), key="key")
    await begun(lanes, one)
    copy = await Copy.of(redis)
    receipt, end = await ended(lanes, one, *produced)
    await copy.restore(redis)
    await bring_back(redis, receipt)
    await losses.restore_response(redis, end, receipt.entries[-1])
    assert (await redis.ttl(f"idem:{TENANT}:key") > 0) == bool(produced)


async def test_a_response_that_was_deleted_holds_no_lock(redis: Redis, lanes: Lanes) -> None:
    """Whoever deleted it may be back before who ran it."""
    one = opening(await create(redis, "a"), key="key")
    await begun(lanes, one)
    copy = await Copy.of(redis)
    receipt, end = await ended(lanes, one, "b", "c")
    deleted = await changes.delete_response(redis, TENANT, one.response, CONVERSATION, None, None)
    await copy.restore(redis)
    await bring_back(redis, deleted.queued)
    await bring_back(redis, receipt)
    await losses.restore_response(redis, end, receipt.entries[-1])
    assert not await redis.hexists(f"conv:{TENANT}:{CONVERSATION}", "lock")


@pytest.mark.parametrize("remembered", [True, False], ids=["put back", "told by PostgreSQL"])
async def test_a_conversation_that_was_deleted_takes_its_turn_along(
    redis: Redis, lanes: Lanes, remembered: bool
) -> None:
    one = opening(await create(redis, "a"), key="key")
    await begun(lanes, one)
    await flush(redis, one, CONVERSATION, b"text", 1)
    copy = await Copy.of(redis)
    deleted = await changes.delete_conversation(redis, TENANT, CONVERSATION)
    await copy.restore(redis)
    if remembered:
        await bring_back(redis, deleted.queued)
    else:
        await redis.hset(META, "lost_ms", 0)
        ticket = await changes.take_ticket(redis, TENANT, CONVERSATION)
        assert ticket is not None
        gone = [("conversation", CONVERSATION)]
        await losses.complete(redis, TENANT, CONVERSATION, ticket.token, None, gone, 1800)
    assert await finish(lanes, one, CONVERSATION, ending(one.response, "b", "c")) == "gone"
    assert not await redis.exists(f"resp:{TENANT}:{one.response}")


async def test_what_comes_late_of_a_deleted_conversation(redis: Redis) -> None:
    """Another process had appended it, and the delete is stored already."""
    await create(redis)
    item = await changes.append(redis, TENANT, CONVERSATION, [("msg_x", said("msg_x", "x"))], 1000)
    deleted = await changes.delete_conversation(redis, TENANT, CONVERSATION)
    await empty_queue(redis)
    await bring_back(redis, deleted.queued)
    await drain(redis)
    await bring_back(redis, item.queued)


async def test_a_conversation_whose_creation_is_lost_goes_on(redis: Redis) -> None:
    await create(redis)
    item = await changes.append(redis, TENANT, CONVERSATION, [("msg_x", said("msg_x", "x"))], 1000)
    await empty_queue(redis)
    await bring_back(redis, item.queued)
    await redis.hset(META, "lost_ms", 0)
    ticket = await changes.take_ticket(redis, TENANT, CONVERSATION)
    assert ticket is not None
    await losses.complete(redis, TENANT, CONVERSATION, ticket.token, None, [], 1800)
    assert [await append(redis, "y", key="key") for _ in range(2)] == ["ok", "replay"]
    changed = await changes.append(redis, TENANT, CONVERSATION, [], 1000, metadata=b'{"a":"b"}')
    assert (changed.reason, changed.detail) == ("ok", "0")
    assert await texts(redis) == ["x", "y"]


async def test_nobody_loads_before_all_have_put_back_what_they_have(redis: Redis, lanes: Lanes) -> None:
    copy = await Copy.of(redis)
    await copy.restore(redis)
    assert await refusal(lanes, opening(CONVERSATION)) == ("cold", CONVERSATION)
    assert await changes.take_ticket(redis, TENANT, CONVERSATION) is None
    await redis.hincrby(META, "lost_ms", -2000)
    assert await changes.take_ticket(redis, TENANT, CONVERSATION) is not None


async def test_large_entries_are_put_back_a_few_at_a_time(redis: Redis) -> None:
    """All at once they would take Redis longer than a client waits, which would send them again."""
    await create(redis)
    items = [(f"msg_{number}", said(f"msg_{number}", "x" * 600_000)) for number in range(8)]
    appended = await changes.append(redis, TENANT, CONVERSATION, items, 1000)
    await empty_queue(redis)
    await redis.config_resetstat()
    await bring_back(redis, appended.queued)
    assert await redis.llen(QUEUE) == len(items)
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == len(items) / 2


async def test_what_is_put_back_twice_is_shown_once(redis: Redis) -> None:
    """Its process may be cut off in the middle, and begin again."""
    item = await changes.append(
        redis, TENANT, await create(redis), [("msg_x", said("msg_x", "x")), ("msg_y", said("msg_y", "y"))], 1000
    )
    await empty_queue(redis)
    for _ in range(2):
        await bring_back(redis, item.queued)
    elements = cast("list[bytes]", await redis.lrange(f"items:{TENANT}:{CONVERSATION}", 0, -1))
    assert [element.partition(b" ")[2] for element in elements] == [said("msg_x", "x"), said("msg_y", "y")]
    await redis.ltrim(QUEUE, 0, -3)  # PostgreSQL absorbs the second ones
    await redis.hincrby(f"conv:{TENANT}:{CONVERSATION}", "unstored", -2)


async def test_only_who_took_a_response_over_forgets_it(redis: Redis, lanes: Lanes) -> None:
    one = opening(await create(redis))
    await begun(lanes, one)
    await losses.forget(redis, TENANT, one.response, CONVERSATION, "another", 1800)
    assert await finish(lanes, one, CONVERSATION, ending(one.response, "a", "b")) == "ok"


async def test_each_epoch_is_checked_and_keeps_the_floor(redis: Redis) -> None:
    """Whatever the process that begins it knows: PostgreSQL may have been away."""
    future = 4_000_000_000_000_000
    for floor in (future, 0):
        await redis.hset(META, "run", "before")
        assert await queue.renew(redis, 5, floor) is not None
        begun_by_another = await queue.renew(redis)
        assert begun_by_another is not None
        assert not begun_by_another.checked
        await queue.report(redis, None, lost=False, checked=True)
    await create(redis, "a")
    assert (await entries(redis))[0].position >= future
