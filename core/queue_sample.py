"""How the queue stands, as operators see it: read by both processes for their metrics and for words about it."""

from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from core.queue import Script

_sample = Script(Path(__file__).parent / "scripts" / "sample.lua", allow_oom=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """`oldest_seconds` is 0 for an empty queue. Free leases are those that were given back or ran out."""

    depth: int
    oldest_seconds: float
    leases_held: int
    leases_free: int
    failed_ranges: int
    memory_bytes: int
    memory_limit_bytes: int


async def sample(redis: Redis) -> Sample:
    """One round trip. Raises RedisError."""
    depth, age_us, held, free, failed, used, limit = await _sample(redis)
    return Sample(depth, int(age_us) / 1_000_000, held, free, failed, int(used), int(limit))
