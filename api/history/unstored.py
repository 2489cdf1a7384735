"""The conversations of which PostgreSQL lacks something: what a list must add to PostgreSQL's, or leave out."""

from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis

from api.history.scripts import script

_unstored = script("unstored", allow_oom=True)


@dataclass(frozen=True, slots=True)
class Unstored:
    """A conversation as Redis has it; `doubtful` and `gone` have neither time nor metadata."""

    id: str
    state: Literal["ok", "gone", "doubtful"]
    created_at: int
    metadata: bytes
    since: int
    items: list[bytes]
    """All from the position `since` on, which PostgreSQL may lack; what it has from there on it has here too."""


@dataclass(frozen=True, slots=True)
class UnstoredPage:
    """`more`: there may be others behind the last of these."""

    found: list[Unstored]
    more: bool


async def unstored(redis: Redis, tenant: str, after: str, order: str, count: int, max_bytes: int) -> UnstoredPage:
    """The next ones behind the id `after` ("": from the start), in the order of their ids.

    Fewer than `count` when their items come to `max_bytes` before; 0: without items.
    """
    more, *found = await _unstored(redis, tenant, after, order, count, max_bytes)
    return UnstoredPage([_read(*one) for one in found], bool(more))


def _read(
    name: bytes,
    state: Any,  # noqa: ANN401 - one of three words
    created: bytes = b"0",
    metadata: bytes = b"{}",
    since: bytes = b"0",
    items: list[bytes] | None = None,
) -> Unstored:
    return Unstored(name.decode(), state.decode(), int(created), metadata, int(since), items or [])
