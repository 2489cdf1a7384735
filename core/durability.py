"""Whether Redis keeps what it acknowledges: asked once, as soon as it answers, by each process that relies on it."""

import asyncio
import logging

from redis.asyncio import Redis
from redis.exceptions import RedisError

from core import metrics
from core.queue import durability_faults

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


async def verify(redis: Redis, appendfsync: str) -> list[str]:
    """Wait for Redis and return what is wrong with its settings; whoever gets any must not go on."""
    while True:
        try:
            faults = await durability_faults(redis, appendfsync)
            break
        except RedisError:
            await asyncio.sleep(RETRY_SECONDS)
    if faults is None:
        log.warning("durability not verified: this Redis does not let its settings be read (CONFIG is denied)")
        return []
    if not faults and appendfsync == "always":
        metrics.DURABILITY_VERIFIED.set(1)
    for fault in faults:
        log.critical("redis would lose what it acknowledges", extra={"fault": fault})
    return faults
