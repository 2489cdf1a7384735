"""Whether Redis keeps what it acknowledges: asked once, as soon as it answers, by each process that relies on it."""

import asyncio
import logging

from prometheus_client import Gauge
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.queue import durability_faults

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0

VERIFIED = Gauge(
    "chatbot_redis_durability_verified",
    "1 when Redis was seen to sync every write before it acknowledges it; 0 when it may not, or can't be asked",
)


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
        VERIFIED.set(1)
    for fault in faults:
        log.critical("redis would lose what it acknowledges", extra={"fault": fault})
    return faults
