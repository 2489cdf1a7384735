"""Giving back what a begin may have taken although its reply never came."""

import asyncio

from redis.exceptions import RedisError

from api.connections import Connections
from api.history import steps
from api.history.steps import Opening

# Redis may carry out a begin long after we gave it up: when it was stopped and goes on. Until then the sweep, which
# closes what has expired, comes too late for a client that tries again.
PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 0.25
# A begin that Redis has not read yet can't be far behind a call that it has answered.
QUIET_ANSWERS = 4


async def give_back(connections: Connections, opening: Opening) -> None:
    """Ask until the lock is free again, or Redis has answered often enough that there was none."""
    expiration_seconds = connections.settings.expiration_seconds
    answers = 0
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while answers < QUIET_ANSWERS:
                await asyncio.sleep(PAUSE_SECONDS)
                try:
                    if await steps.abandon(connections.redis, opening, expiration_seconds):
                        return
                    answers += 1
                except RedisError:
                    answers = 0
    except TimeoutError:
        pass  # the sweep closes it
