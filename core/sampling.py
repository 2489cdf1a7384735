"""What both processes measure beside their work: the queue, the memory of Redis, their pools and their event loop."""

import asyncio
import dataclasses
import math
from collections.abc import Callable

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import RedisError

from core import metrics
from core.queue_sample import sample

SAMPLE_SECONDS = 5.0
# Redis hangs when it does not answer by now: then nobody shall see what was true before.
ANSWER_SECONDS = 3.0
LOOP_SECONDS = 0.5


async def watch_queue(redis: Redis) -> None:
    """For as long as the process lives. The API does it too, for there may be no worker."""
    up = metrics.STORE_UP.labels("redis")
    # In the order of what is found.
    gauges = (
        metrics.DEPTH,
        metrics.OLDEST_AGE,
        metrics.LEASES.labels("held"),
        metrics.LEASES.labels("free"),
        metrics.FAILED_RANGES,
        metrics.REDIS_MEMORY,
        metrics.REDIS_MEMORY_LIMIT,
    )
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found: tuple[float, ...] = dataclasses.astuple(await sample(redis))
        except (RedisError, OSError, TimeoutError):
            up.set(0)
            found = (math.nan,) * len(gauges)
        else:
            up.set(1)
        for gauge, value in zip(gauges, found, strict=True):
            gauge.set(value)
        await asyncio.sleep(SAMPLE_SECONDS)


async def watch_loop() -> None:
    """How late this task is woken is how long everything else waits for its turn."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOP_SECONDS
        await asyncio.sleep(LOOP_SECONDS)
        metrics.LOOP_LAG.observe(max(0.0, loop.time() - due))


def show_pool(store: str, limit: int, idle: Callable[[], int], used: Callable[[], int]) -> None:
    """Have a pool's connections counted whenever somebody asks for the metrics."""
    metrics.CONNECTIONS_LIMIT.labels(store).set(limit)
    metrics.CONNECTIONS.labels(store, "idle").set_function(idle)
    metrics.CONNECTIONS.labels(store, "used").set_function(used)


def show_redis_pool(pool: ConnectionPool) -> None:
    def count(index: int) -> int:
        return pool.get_connection_count()[index][0]

    show_pool("redis", pool.max_connections, lambda: count(0), lambda: count(1))
