"""The lists' reads of PostgreSQL."""

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
