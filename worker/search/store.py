"""The words of stored items, and what is due to get them (core/schema/004_search.sql)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import asyncpg

from worker.batch import Row

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

# What is in no list needs no words.
LISTED_PREFIX = "conv_"
# Items at a time: each may hold 100,000 characters, which takes some 20 ms.
STEP_ITEMS = 200
STEP_SECONDS = 60

NOTE = "INSERT INTO search_due (tenants, conversations, firsts) VALUES ($1::text[], $2::text[], $3::bigint[])"

ALLOW_TIME = f"SET LOCAL statement_timeout = '{STEP_SECONDS}s'"
NEXT = "SELECT id, tenants, conversations, firsts FROM search_due ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
INDEX = """
INSERT INTO searchable (tenant, conversation, position, words)
SELECT tenant, conversation, position, item_words(item)
  FROM (SELECT items.tenant, items.conversation, items.position, items.item
          FROM unnest($1::text[], $2::text[], $3::bigint[]) AS due(tenant, conversation, first)
          JOIN items ON items.tenant = due.tenant AND items.conversation = due.conversation AND items.position >= first
         WHERE NOT EXISTS (SELECT FROM searchable AS done
                            WHERE done.tenant = items.tenant AND done.conversation = items.conversation
                              AND done.position = items.position)
         LIMIT $4) AS next
ON CONFLICT DO NOTHING"""
CROSS_OFF = "DELETE FROM search_due WHERE id = $1"


async def note(connection: "Connection", rows: Iterable[Row]) -> None:
    """Tell what a range brings, in its own transaction."""
    firsts: dict[tuple[str, str], int] = {}
    for _, entry, _ in rows:
        if entry.conversation.startswith(LISTED_PREFIX):
            key = entry.tenant, entry.conversation
            firsts[key] = min(entry.position, firsts.get(key, entry.position))
    if firsts:
        tenants, conversations = [tenant for tenant, _ in firsts], [name for _, name in firsts]
        await connection.execute(NOTE, tenants, conversations, list(firsts.values()))


async def index_some(connection: "Connection", lock: str) -> bool:
    """Give the next items their words; False when nothing is due.

    `lock` keeps deletes out: they and the index would wait for each other's rows.
    """
    async with connection.transaction():
        await connection.execute(lock)
        await connection.execute(ALLOW_TIME)
        due = await connection.fetchrow(NEXT)
        if due is None:
            return False
        columns = due["tenants"], due["conversations"], due["firsts"]
        status = await connection.execute(INDEX, *columns, STEP_ITEMS, timeout=STEP_SECONDS)
        if int(status.rpartition(" ")[2]) < STEP_ITEMS:
            await connection.execute(CROSS_OFF, due["id"])
    return True
