"""Hot copies after a loss of Redis: completed from PostgreSQL before anybody uses them, or shown again."""

from dataclasses import dataclass

from redis.asyncio import Redis

from api.history.scripts import script
from api.history.steps import Ending
from api.store import StoredConversation
from core.entry import parse

_complete = script("complete", allow_oom=True)
_restore_response = script("restore_response", allow_oom=True)
_forget = script("forget", allow_oom=True)

NOTHING_STORED = StoredConversation(0, b"", False, [], 0, None, [])


async def complete(
    redis: Redis,
    tenant: str,
    thread: str,
    ticket: str,
    stored: StoredConversation | None,
    deleted: list[tuple[str, str]],
    expiration_seconds: int,
) -> None:
    """Make a hot copy that is older than a loss whole again: the union by position of itself and PostgreSQL.

    `deleted` are (kind, id) of what was deleted of it. Does nothing when the ticket was lost to a writer.
    """
    known = stored or NOTHING_STORED
    gone = ("conversation", thread) in deleted
    parts = [one for one in deleted if one[0] != "conversation"]
    await _complete(
        redis,
        tenant,
        thread,
        ticket,
        expiration_seconds,
        known.created_at or "",
        known.metadata,
        known.last_position,
        known.last_response or "",
        int(gone),
        len(parts),
        *(word for part in parts for word in part),
        *(b"%d %b" % (position, item) for position, item in known.items),
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished turn as its client was told of it."""

    tenant: str
    thread: str
    response: str
    ending: Ending


async def restore_response(redis: Redis, ended: Ended, entry: bytes) -> None:
    """Show a response again that Redis lacks; `entry` is the one that it left in the queue."""
    position, ending = parse(entry).position, ended.ending
    bounds: tuple[int | str, int | str] = ("", "")
    if ending.items:
        bounds = (position, position + len(ending.items) - 1)
    await _restore_response(
        redis,
        ended.tenant,
        ended.response,
        ended.thread,
        ending.status,
        ending.body,
        *bounds,
        ending.input_count,
        ending.input,
    )


async def forget(redis: Redis, tenant: str, response: str, thread: str, token: str, expiration_seconds: int) -> None:
    """Drop a response that was taken over with `token` although PostgreSQL has its end."""
    await _forget(redis, tenant, response, thread, token, expiration_seconds)
