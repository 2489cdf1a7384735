"""Whether Redis keeps what it acknowledges: asked once, as soon as it answers, by each process that relies on it."""

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from core import metrics
from core.troubles import redis_trouble

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0

# docs/adr/0002-redis-durability.md tells what each of them prevents.
DURABILITY = {
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "volatile-ttl",
}


async def verify(redis: Redis, appendfsync: str, tell: Callable[[str], None] | None = None) -> list[str]:
    """Wait for Redis and return what is wrong with its settings; whoever gets any must not go on.

    `tell` is told in words why it waits.
    """
    told = None
    while True:
        try:
            faults = await _faults(redis, appendfsync)
            break
        except RedisError as error:
            trouble = redis_trouble(error, "what it keeps can't be verified")
            if trouble != told:
                log.warning("waiting for redis", extra={"trouble": trouble})
                told = trouble
                if tell is not None:
                    tell(trouble)
            await asyncio.sleep(RETRY_SECONDS)
    if faults is None:
        log.warning("durability not verified: this Redis does not let its settings be read (CONFIG is denied)")
        return []
    if not faults and appendfsync == "always":
        metrics.DURABILITY_VERIFIED.set(1)
    for fault in faults:
        log.critical("redis would lose what it acknowledges", extra={"fault": fault})
    return faults


async def _faults(redis: Redis, appendfsync: str) -> list[str] | None:
    """What is wrong with Redis's settings, each with what to do; None where CONFIG is denied (managed services).

    `appendfsync` is what the operator accepts: `everysec` may lose the last seconds before a crash of Redis.
    """
    wanted = {**DURABILITY, "appendfsync": appendfsync}
    try:
        found = await redis.config_get("maxmemory", *wanted)
    except (NoPermissionError, ResponseError):
        return None
    if found["appendfsync"] == "always":
        wanted.pop("appendfsync")
    faults = [
        f"{name} is '{found[name]}', set it to '{value}'" for name, value in wanted.items() if found[name] != value
    ]
    if found["maxmemory"] == "0":
        faults.append("maxmemory is '0', set it to 60-70 % of the memory that Redis may use")
    return faults
