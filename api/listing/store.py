"""The reads of PostgreSQL for lists and exports."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from api.store import ACQUIRE_SECONDS, QUERY_SECONDS

if TYPE_CHECKING:
    import asyncpg

# Ids are letters, digits, "-" and "_": these lie outside of them all.
BELOW_ALL, ABOVE_ALL = "", "~"

_LISTED = """
SELECT id, floor(extract(epoch FROM created_at))::bigint AS created_at, metadata
  FROM conversations
 WHERE tenant = $1 AND NOT hidden AND id COLLATE "C" > $2 AND id COLLATE "C" < $3 AND id <> ALL($4::text[]){having}
 ORDER BY id COLLATE "C" {order} LIMIT $5"""
_HAVING_METADATA = " AND metadata @> $6"

_ITEMS_BEHIND = (
    "SELECT position, item FROM items WHERE tenant = $1 AND conversation = $2 AND position > $3 ORDER BY position"
)
MOST_ROWS = 256


@dataclass(frozen=True, slots=True)
class ListedRow:
    id: str
    created_at: int
    metadata: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """The conversations with ids between `above` and `below`, but for `left_out`; with these metadata (JSON)."""

    above: str
    below: str
    left_out: list[str]
    metadata: bytes | None


async def listed(pool: "asyncpg.Pool[Any]", tenant: str, part: Part, order: str, limit: int) -> list[ListedRow]:
    """In the order of their ids; raises one of core.store.UNREACHABLE when PostgreSQL does not answer in time."""
    having = "" if part.metadata is None else _HAVING_METADATA
    query = _LISTED.format(having=having, order="ASC" if order == "asc" else "DESC")
    arguments: list[Any] = [tenant, part.above, part.below, part.left_out, limit]
    if part.metadata is not None:
        arguments.append(part.metadata)
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        rows = await connection.fetch(query, *arguments, timeout=QUERY_SECONDS)
    return [ListedRow(row["id"], row["created_at"], row["metadata"]) for row in rows]


async def page_behind(
    pool: "asyncpg.Pool[Any]", tenant: str, conversation: str, after: int, max_bytes: int
) -> list[tuple[int, bytes]]:
    """(position, JSON) of the next items behind a position, some `max_bytes` of them; none at the end.

    Fetched a few at a time: how large they are is known only when they are here.
    """
    page: list[tuple[int, bytes]] = []
    size, count = 0, 1
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection, connection.transaction(readonly=True):
        cursor = await connection.cursor(_ITEMS_BEHIND, tenant, conversation, after, timeout=QUERY_SECONDS)
        while size < max_bytes and (rows := await cursor.fetch(count, timeout=QUERY_SECONDS)):
            page += [(row["position"], row["item"]) for row in rows]
            size = sum(len(item) for _, item in page)
            count = max(1, min(MOST_ROWS, (max_bytes - size) * len(page) // size))
    return page
