"""The API's reads of PostgreSQL. Each is one query; items and metadata come as the JSON text that jsonb gives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import asyncpg

Items = list[tuple[str, bytes]]

# What a reader waits at most for a PostgreSQL that hangs: for a session, for the query, and for the query's end once
# it has been given up, which takes as long as a session may.
ACQUIRE_SECONDS = 2.0
QUERY_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """A conversation or hidden thread with all that it inherits; `items` are (position, JSON), oldest first.

    `ancestors` are (id, last position that is inherited) from the parent upwards.
    """

    created_at: int
    metadata: bytes
    hidden: bool
    ancestors: list[tuple[str, int]]
    last_position: int
    last_response: str | None
    items: list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response's body has no output; `input` and `output` are (id, JSON) in order."""

    conversation: str
    body: bytes
    input: Items
    output: Items


@dataclass(frozen=True, slots=True)
class StoredItem:
    conversation: str
    item: bytes


@dataclass(frozen=True, slots=True)
class ConversationRow:
    created_at: int
    metadata: bytes


# $1 tenant; `wanted` names the thread. A hidden thread that is no fork has no row of its own, only items or responses.
# The lineage goes from the thread to its parents; of each only what the child has seen counts.
_THREAD = """
lineage(id, upto, depth) AS (
    SELECT wanted.id, 9223372036854775807::bigint, 0 FROM wanted
  UNION ALL
    SELECT child.parent, least(child.parent_position, lineage.upto), lineage.depth + 1
      FROM lineage JOIN conversations child ON child.tenant = $1 AND child.id = lineage.id
     WHERE child.parent IS NOT NULL
),
inherited AS (
    SELECT items.position, items.item, lineage.depth
      FROM lineage JOIN items
        ON items.tenant = $1 AND items.conversation = lineage.id AND items.position <= lineage.upto
),
thread AS (
    SELECT wanted.id,
           coalesce(row.created_at, (SELECT min(created_at) FROM responses
                                      WHERE tenant = $1 AND conversation = wanted.id)) AS created_at,
           coalesce(row.metadata, '{}'::jsonb) AS metadata,
           coalesce(row.hidden, true) AS hidden,
           greatest(row.position,
                    (SELECT max(position) FROM items WHERE tenant = $1 AND conversation = wanted.id),
                    last.position) AS last_position,
           last.id AS last_response
      FROM wanted
      LEFT JOIN conversations row ON row.tenant = $1 AND row.id = wanted.id
      LEFT JOIN LATERAL (SELECT id, position FROM responses
                          WHERE tenant = $1 AND conversation = wanted.id AND position > 0
                          ORDER BY position DESC LIMIT 1) last ON true
)"""

_THREAD_COLUMNS = """
       floor(coalesce(extract(epoch FROM thread.created_at), 0))::bigint AS created_at, thread.metadata, thread.hidden,
       thread.last_response,
       ARRAY(SELECT id FROM lineage WHERE depth > 0 ORDER BY depth) AS ancestors,
       ARRAY(SELECT upto FROM lineage WHERE depth > 0 ORDER BY depth) AS inherited_ends,
       greatest(thread.last_position, (SELECT max(position) FROM dead_letters
                                        WHERE tenant = $1 AND conversation = thread.id)) AS last_position,
       ARRAY(SELECT position FROM inherited ORDER BY depth DESC, position) AS positions,
       ARRAY(SELECT item FROM inherited ORDER BY depth DESC, position) AS items"""

LOAD_CONVERSATION = f"""
WITH RECURSIVE wanted(id) AS (SELECT $2::text), {_THREAD}
SELECT {_THREAD_COLUMNS} FROM thread WHERE thread.last_position IS NOT NULL"""  # noqa: S608 - built of constants

RESPONSE_SPAN = """
SELECT conversation, nullif(position, 0) AS first,
       CASE WHEN position > 0 THEN position + input_count + output_count - 1 END AS end
  FROM responses WHERE tenant = $1 AND id = $2"""

LOAD_RESPONSE = """
WITH response AS (SELECT * FROM responses WHERE tenant = $1 AND id = $2),
said AS (
    SELECT items.id, items.item, items.position, items.position < response.position + response.input_count AS is_input
      FROM response JOIN items
        ON items.tenant = $1 AND items.conversation = response.conversation
       AND items.position >= response.position
       AND items.position < response.position + response.input_count + response.output_count
     WHERE response.position > 0
  UNION ALL
    SELECT kept.item->>'id', kept.item, kept.position, true
      FROM response, jsonb_array_elements(response.body->'input') WITH ORDINALITY kept(item, position)
     WHERE response.position = 0
)
SELECT conversation,
       CASE WHEN position = 0 THEN body - 'input' ELSE body END AS body,
       ARRAY(SELECT id FROM said WHERE is_input ORDER BY position) AS input_ids,
       ARRAY(SELECT item FROM said WHERE is_input ORDER BY position) AS input,
       ARRAY(SELECT id FROM said WHERE NOT is_input ORDER BY position) AS output_ids,
       ARRAY(SELECT item FROM said WHERE NOT is_input ORDER BY position) AS output
  FROM response"""

_LIST_ITEMS = """
WITH anchor AS (SELECT position FROM items WHERE tenant = $1 AND conversation = $2 AND id = $3),
page AS (
    SELECT id, item, position FROM items
     WHERE tenant = $1 AND conversation = $2 AND ($3::text IS NULL OR position {beyond} (SELECT position FROM anchor))
     ORDER BY position {order} LIMIT $4
)
SELECT ($3::text IS NULL OR EXISTS (SELECT FROM anchor)) AS anchored,
       ARRAY(SELECT id FROM page ORDER BY position {order}) AS ids,
       ARRAY(SELECT item FROM page ORDER BY position {order}) AS items
  FROM conversations WHERE tenant = $1 AND id = $2 AND NOT hidden"""
LIST_ITEMS_ASCENDING = _LIST_ITEMS.format(beyond=">", order="ASC")
LIST_ITEMS_DESCENDING = _LIST_ITEMS.format(beyond="<", order="DESC")

FIND_ITEM = """
SELECT item FROM items JOIN conversations ON conversations.tenant = $1 AND conversations.id = $2 AND NOT hidden
 WHERE items.tenant = $1 AND items.id = $3 AND conversation = $2"""

ITEM_BY_ID = "SELECT conversation, item FROM items WHERE tenant = $1 AND id = $2"

DELETED_OF = "SELECT kind, id FROM tombstones WHERE tenant = $1 AND conversation = $2"

CONVERSATION_ROW = """
SELECT floor(extract(epoch FROM created_at))::bigint AS created_at, metadata
  FROM conversations WHERE tenant = $1 AND id = $2 AND NOT hidden"""


async def _row(pool: "asyncpg.Pool[Any]", query: str, *arguments: str | int | None) -> "asyncpg.Record | None":
    """The first row; raises one of core.store.UNREACHABLE when PostgreSQL does not answer in time."""
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        return await connection.fetchrow(query, *arguments, timeout=QUERY_SECONDS)


def _conversation(row: "asyncpg.Record") -> StoredConversation:
    return StoredConversation(
        created_at=row["created_at"],
        metadata=row["metadata"],
        hidden=row["hidden"],
        ancestors=list(zip(row["ancestors"], row["inherited_ends"], strict=True)),
        last_position=row["last_position"] or 0,
        last_response=row["last_response"],
        items=list(zip(row["positions"], row["items"], strict=True)),
    )


async def load_conversation(pool: "asyncpg.Pool[Any]", tenant: str, conversation: str) -> StoredConversation | None:
    """A conversation or hidden thread with its items and those it inherits; None when it is unknown."""
    row = await _row(pool, LOAD_CONVERSATION, tenant, conversation)
    return None if row is None else _conversation(row)


@dataclass(frozen=True, slots=True)
class ResponseSpan:
    """Where a response's items stand in its conversation; no positions when it left the conversation as it was."""

    conversation: str
    first: int | None
    end: int | None


async def response_span(pool: "asyncpg.Pool[Any]", tenant: str, response: str) -> ResponseSpan | None:
    row = await _row(pool, RESPONSE_SPAN, tenant, response)
    return None if row is None else ResponseSpan(row["conversation"], row["first"], row["end"])


async def load_response(pool: "asyncpg.Pool[Any]", tenant: str, response: str) -> StoredResponse | None:
    row = await _row(pool, LOAD_RESPONSE, tenant, response)
    if row is None:
        return None
    return StoredResponse(
        conversation=row["conversation"],
        body=row["body"],
        input=list(zip(row["input_ids"], row["input"], strict=True)),
        output=list(zip(row["output_ids"], row["output"], strict=True)),
    )


async def list_items(
    pool: "asyncpg.Pool[Any]", tenant: str, conversation: str, after: str | None, limit: int, descending: bool
) -> Items | Literal["unknown_cursor"] | None:
    """One page behind the item `after`; None when the conversation is unknown."""
    query = LIST_ITEMS_DESCENDING if descending else LIST_ITEMS_ASCENDING
    row = await _row(pool, query, tenant, conversation, after, limit)
    if row is None:
        return None
    if not row["anchored"]:
        return "unknown_cursor"
    return list(zip(row["ids"], row["items"], strict=True))


async def find_item(pool: "asyncpg.Pool[Any]", tenant: str, conversation: str, item: str) -> bytes | None:
    row = await _row(pool, FIND_ITEM, tenant, conversation, item)
    return None if row is None else row["item"]


async def item_by_id(pool: "asyncpg.Pool[Any]", tenant: str, item: str) -> StoredItem | None:
    """An item of any of the tenant's conversations."""
    row = await _row(pool, ITEM_BY_ID, tenant, item)
    return None if row is None else StoredItem(row["conversation"], row["item"])


async def conversation_row(pool: "asyncpg.Pool[Any]", tenant: str, conversation: str) -> ConversationRow | None:
    row = await _row(pool, CONVERSATION_ROW, tenant, conversation)
    return None if row is None else ConversationRow(row["created_at"], row["metadata"])


async def deleted_of(pool: "asyncpg.Pool[Any]", tenant: str, conversation: str) -> list[tuple[str, str]]:
    """(kind, id) of everything that was deleted of a conversation, itself among it."""
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        rows = await connection.fetch(DELETED_OF, tenant, conversation, timeout=QUERY_SECONDS)
    return [(row["kind"], row["id"]) for row in rows]


async def ping(pool: "asyncpg.Pool[Any]") -> None:
    """Raises one of core.store.UNREACHABLE while PostgreSQL does not answer."""
    await _row(pool, "SELECT 1")
