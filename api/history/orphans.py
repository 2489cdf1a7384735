"""Running responses that lose their process: found, taken over, given up in order, asked for again."""

from dataclasses import dataclass

from redis.asyncio import Redis

from api.history.scripts import script
from api.history.steps import LOCK_MS

_expired = script("expired", allow_oom=True)
_takeover = script("takeover", allow_oom=True)
_hand_over = script("hand_over", allow_oom=True)
_ask_again = script("ask_again", allow_oom=False)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A response whose pod is gone: what it was asked and the events that it had logged, oldest first.

    `doubtful`: Redis has lost something since it began, so it may have ended long ago. `again`: the body with which its
    client asked once more, without input, if it has. `takeups`: how often a process died on it, this time included.
    """

    thread: str
    request: bytes
    log: list[bytes]
    doubtful: bool
    again: bytes
    cancelled: bool
    takeups: int


async def takeover(redis: Redis, tenant: str, response: str, token: str, *, force: bool = False) -> Orphan | None:
    """Fence off the former holder of an expired lock; None when it is not expired or somebody else was first.

    `force`: also of a lock that has not expired.
    """
    reply = await _takeover(redis, tenant, response, token, LOCK_MS, int(force))
    if reply[0] != b"ok":
        return None
    _, thread, request, entries, doubtful, again, cancelled, takeups = reply
    logged = [fields[1] for _, fields in entries]
    return Orphan(thread.decode(), request, logged, bool(doubtful), again, bool(cancelled), takeups)


async def hand_over(redis: Redis, tenant: str, thread: str, response: str, token: str, *, pause_ms: int = 0) -> None:
    """Give a running response up; after the pause the next look of any process takes it over."""
    await _hand_over(redis, tenant, thread, response, token, pause_ms)


async def ask_again(redis: Redis, tenant: str, response: str, body: bytes) -> None:
    """Keep what it takes to run a running response again, should its process be dead."""
    await _ask_again(redis, tenant, response, body)


async def expired(redis: Redis, limit: int) -> list[tuple[str, str]]:
    """(tenant, response) of running responses whose lock has expired, the oldest first."""
    members: list[bytes] = await _expired(redis, LOCK_MS, limit)
    return [(tenant, response) for tenant, _, response in (member.decode().partition(":") for member in members)]
