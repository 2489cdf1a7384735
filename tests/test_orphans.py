"""One response of a dead process that can't be closed keeps no other open."""

import pytest
from redis.asyncio import Redis

from api.connections import FIRST_TRUCE_SECONDS
from api.history.steps import begin
from tests.conftest import StartService
from tests.entries import empty_queue
from tests.hot_turns import expire_lock, opening, running_lanes
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

# The truce at the start of a process, and a few sweeps.
CLOSED_SECONDS = FIRST_TRUCE_SECONDS + 5


async def test_one_that_cannot_be_read(start_service: StartService, redis: Redis) -> None:
    """As after an upgrade that reads another format; the process goes on, and so do the others."""
    await empty_queue(redis)
    unreadable, readable = opening(), opening()
    async with running_lanes(redis) as lanes:
        for one in (unreadable, readable):
            begun = await begin(lanes, one, 1000)
            await expire_lock(redis, one, begun.thread)  # type: ignore[union-attr]
    request = b'{"response":{"id":"resp_1","status":"in_progress"},"input":[],"stream":false}'
    await redis.hset(f"resp:{readable.tenant}:{readable.response}", "request", request)
    await redis.hset(f"resp:{unreadable.tenant}:{unreadable.response}", "request", b"{")
    service = await start_service()

    async def closed() -> bool:
        status = await redis.hget(f"resp:{readable.tenant}:{readable.response}", "status")
        return bool(status == b"incomplete")

    await wait_until(closed, "the readable one to be closed", CLOSED_SECONDS)
    assert await redis.hget(f"resp:{unreadable.tenant}:{unreadable.response}", "status") == b"in_progress"
    assert service.api.child.running
    assert "can't be closed" in service.api.log_text()
