"""The reads of PostgreSQL for lists and exports."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from api.store import ACQUIRE_SECONDS, QUERY_SECONDS

if TYPE_CHECKING:
    import asyncpg

# Ids are letters, digits, "-" and "_": these lie outside of them all.
BELOW_ALL, ABOVE_ALL = "", "~"

# What is due has no words yet, or has them already and is only not crossed off.
_DUE = """
    SELECT items.conversation
      FROM search_due, unnest(tenants, conversations, firsts) AS due(tenant, conversation, first)
      JOIN items ON items.tenant = $1 AND items.conversation = due.conversation AND items.position >= due.first
     WHERE due.tenant = $1{among} AND item_words(items.item) @@ websearch_to_tsquery('simple', {query})
       AND NOT EXISTS (SELECT FROM searchable AS done
                        WHERE done.tenant = $1 AND done.conversation = items.conversation
                          AND done.position = items.position)"""
_HAVING_METADATA = " AND metadata @> {metadata}"
_HAVING_WORDS = f""" AND id IN (
    SELECT conversation FROM searchable
     WHERE tenant = $1 AND words @@ websearch_to_tsquery('simple', {{query}})
  UNION ALL {_DUE.format(among="", query="{query}")})"""  # noqa: S608 - built of constants
_LISTED = """
SELECT id, floor(extract(epoch FROM created_at))::bigint AS created_at, metadata
  FROM conversations
 WHERE tenant = $1 AND NOT hidden AND id COLLATE "C" > $2 AND id COLLATE "C" < $3 AND id <> ALL($4::text[]){having}
 ORDER BY id COLLATE "C" {order} LIMIT $5"""

# $2 the query, $3 and $4 items that PostgreSQL may lack, $5 and $6 the conversations that it has up to a position.
_MATCHING = f"""
SELECT conversation FROM unnest($3::text[], $4::jsonb[]) AS hot(conversation, item)
 WHERE item_words(item) @@ websearch_to_tsquery('simple', $2)
UNION
SELECT conversation
  FROM searchable JOIN unnest($5::text[], $6::bigint[]) AS known(conversation, since) USING (conversation)
 WHERE tenant = $1 AND position < since AND words @@ websearch_to_tsquery('simple', $2)
UNION {
    _DUE.format(
        among=" AND EXISTS (SELECT FROM unnest($5::text[], $6::bigint[]) AS known(conversation, since)"
        " WHERE known.conversation = items.conversation AND items.position < known.since)",
        query="$2",
    )
}"""  # noqa: S608 - built of constants
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
    """The conversations with ids between `above` and `below`, but for `left_out`; with this metadata (JSON), words."""

    above: str
    below: str
    left_out: list[str]
    metadata: bytes | None
    words: str | None


async def listed(pool: "asyncpg.Pool[Any]", tenant: str, part: Part, order: str, limit: int) -> list[ListedRow]:
    """In the order of their ids; raises one of core.store.UNREACHABLE when PostgreSQL does not answer in time."""
    arguments: list[Any] = [tenant, part.above, part.below, part.left_out, limit]
    having = ""
    if part.metadata is not None:
        arguments.append(part.metadata)
        having += _HAVING_METADATA.format(metadata=f"${len(arguments)}")
    if part.words is not None:
        arguments.append(part.words)
        having += _HAVING_WORDS.format(query=f"${len(arguments)}")
    query = _LISTED.format(having=having, order="ASC" if order == "asc" else "DESC")
    rows = await _rows(pool, query, *arguments)
    return [ListedRow(row["id"], row["created_at"], row["metadata"]) for row in rows]


async def matching(
    pool: "asyncpg.Pool[Any]", tenant: str, words: str, items: list[tuple[str, bytes]], known: list[tuple[str, int]]
) -> set[str]:
    """The conversations with an item of these words: among `items` (conversation, JSON), or stored below a position."""
    names, bodies = [name for name, _ in items], [body for _, body in items]
    stored, ends = [name for name, _ in known], [end for _, end in known]
    return {row["conversation"] for row in await _rows(pool, _MATCHING, tenant, words, names, bodies, stored, ends)}


async def _rows(pool: "asyncpg.Pool[Any]", query: str, *arguments: Any) -> "list[asyncpg.Record]":  # noqa: ANN401 - columns
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        return await connection.fetch(query, *arguments, timeout=QUERY_SECONDS)


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
