"""How the queue and its stores are, in numbers and in words that tell what to do: `python -m worker queue status`."""

import dataclasses
from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis

from core.queue_sample import Sample, sample
from core.settings import PostgresSettings
from core.store import UNREACHABLE, connect, dead_letters, losses
from core.troubles import postgres_trouble
from worker import migrate, queue

# A worker stores within a quarter of a second, and its successor takes over within a lease.
OLD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Stored:
    """What PostgreSQL tells; None where it tells nothing."""

    trouble: str | None
    lost_entries: int | None = None
    dead_letters: int | None = None


async def status(postgres: PostgresSettings, redis: Redis) -> tuple[dict[str, object], list[str]]:
    """The numbers, and what is wrong. Raises RedisError."""
    known, seen, stored = await queue.status(redis), await sample(redis), await _stored(postgres)
    numbers = {
        **dataclasses.asdict(known),
        "leases_free": seen.leases_free,
        "oldest_seconds": round(seen.oldest_seconds, 1),
        "memory_bytes": seen.memory_bytes,
        "memory_limit_bytes": seen.memory_limit_bytes,
        "lost_entries": stored.lost_entries,
        "dead_letters": stored.dead_letters,
    }
    return numbers, [*_of_the_queue(seen), *_of_the_store(stored)]


async def _stored(postgres: PostgresSettings) -> Stored:
    try:
        connection = await connect(postgres, "chatbot-queue")
        try:
            if missing := await migrate.missing(connection):
                return Stored(f"postgresql lacks {', '.join(missing)}: run `python -m worker migrate`")
            lost = sum(loss.entries for loss in await losses(connection))
            return Stored(None, lost, await dead_letters(connection))
        finally:
            await connection.close()
    except (asyncpg.PostgresError, *UNREACHABLE) as error:
        return Stored(postgres_trouble(error, "nothing is stored meanwhile, and the queue grows"))


def _of_the_queue(seen: Sample) -> list[str]:
    found = []
    if seen.oldest_seconds > OLD_SECONDS:
        waits = f"{seen.depth} entries wait, the oldest for {seen.oldest_seconds:.0f} s"
        if seen.leases_held:
            found.append(f"{waits}: the workers can't keep up, or can't store them. Read their logs, or add workers.")
        else:
            found.append(f"{waits}, and no worker holds any: start one, or ask /readyz of the one that runs.")
    if seen.failed_ranges:
        found.append(
            f"{seen.failed_ranges} ranges have failed at least once: workers try them again. "
            "Read the workers' logs; an entry that can't be stored becomes a dead letter by itself."
        )
    return found


def _of_the_store(stored: Stored) -> list[str]:
    found = [] if stored.trouble is None else [stored.trouble]
    if stored.dead_letters:
        found.append(
            f"{stored.dead_letters} entries could not be stored: see `python -m worker dead-letters list`, "
            "then replay or drop them."
        )
    if stored.lost_entries:
        found.append(
            f"{stored.lost_entries} acknowledged entries were lost with Redis: "
            "`python -m worker queue losses` tells when. Nothing brings them back."
        )
    return found
