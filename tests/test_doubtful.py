"""Hot copies after a loss of Redis: completed from PostgreSQL before anybody uses them, never with an older state."""

import pytest
from redis.asyncio import Redis

from api.history import changes, losses
from api.history.changes import HotConversation, Ticket
from api.store import StoredConversation
from core.queue import META
from tests.entries import TENANT, empty_queue
from tests.hot_turns import (
    CONVERSATION,
    EXPIRATION,
    append,
    create,
    drain,
    opening,
    refusal,
    running_lanes,
    said,
    texts,
    turn,
)

pytestmark = pytest.mark.anyio

DELETED = [("item", "msg_deleted")]
EARLIER = StoredConversation(7, b"{}", False, [], 11, None, [(11, said("msg_earlier", "earlier"))])


@pytest.fixture(autouse=True)
async def empty(redis: Redis) -> None:
    await empty_queue(redis)


async def doubt_all(redis: Redis) -> None:
    """As after a loss: every hot copy that there is may lack something."""
    await redis.hincrby(META, "lost", int(await redis.hget(META, "epoch") or 0) + 1)


async def complete(redis: Redis, ticket: Ticket, stored: StoredConversation | None) -> None:
    await losses.complete(redis, TENANT, CONVERSATION, ticket.token, stored, DELETED, EXPIRATION)


async def test_a_doubtful_copy_is_completed_with_what_is_queued(redis: Redis) -> None:
    await create(redis, "queued", "deleted")
    await doubt_all(redis)
    assert await changes.read(redis, TENANT, CONVERSATION, items=True) == "doubtful"
    ticket = await changes.take_ticket(redis, TENANT, CONVERSATION)
    assert ticket is not None
    assert ticket.doubtful
    await redis.hset(META, "lost", "1")
    await complete(redis, ticket, EARLIER)
    assert await texts(redis) == ["earlier", "queued"]
    await drain(redis)
    assert await changes.read(redis, TENANT, CONVERSATION, items=True) == "cold", "it is read anew"


async def test_what_was_stored_meanwhile_is_not_taken_for_gone(redis: Redis) -> None:
    """PostgreSQL was asked before the last of it was there, and the loader comes back after."""
    await create(redis, "queued")
    await doubt_all(redis)
    slow = await changes.take_ticket(redis, TENANT, CONVERSATION)
    assert slow is not None
    assert await changes.take_ticket(redis, TENANT, CONVERSATION) is None
    await drain(redis)
    await complete(redis, slow, EARLIER)
    await redis.hset(META, "lost", "1")
    hot = await changes.read(redis, TENANT, CONVERSATION, items=True)
    assert isinstance(hot, HotConversation)
    assert await texts(redis) == ["queued"], "its loader asks again"
    await append(redis, "later")
    assert await texts(redis) == ["queued", "later"]


async def test_nobody_uses_a_doubtful_copy(redis: Redis) -> None:
    await create(redis, "a")
    await doubt_all(redis)
    assert await append(redis, "b") == "cold"
    assert (await changes.delete_item(redis, TENANT, CONVERSATION, "msg_a")).reason == "cold"
    async with running_lanes(redis) as lanes:
        assert await refusal(lanes, opening(CONVERSATION)) == ("cold", CONVERSATION)


async def test_what_branches_off_a_stale_copy_is_stale(redis: Redis) -> None:
    """It has what was deleted of its parent, so it is read anew as soon as it is stored."""
    async with running_lanes(redis) as lanes:
        first = opening(await create(redis))
        await turn(lanes, first, "a", "b")
        await redis.hset(f"conv:{TENANT}:{CONVERSATION}", "stale", "1")
        branch = await turn(lanes, opening(previous=first.response), "c", "d")
    assert await texts(redis, branch) == ["a", "b", "c", "d"]
    await drain(redis)
    assert await changes.read(redis, TENANT, branch, items=True) == "cold"
