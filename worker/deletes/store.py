"""Deletes in PostgreSQL: what goes with what, and the tombstones that stay."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import asyncpg

from core.entry import Entry, Kind
from worker.batch import Batch
from worker.queue import Ids

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

TARGETS = {
    Kind.DELETE_CONVERSATION: "conversation",
    Kind.DELETE_RESPONSE: "response",
    Kind.DELETE_ITEM: "item",
}
# Nothing but its responses shows a thread without a conversation, so its items go with them.
HIDDEN_PREFIX = "thr_"

BURY = """
INSERT INTO tombstones (tenant, kind, id, conversation)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) ON CONFLICT DO NOTHING"""

TOMBSTONES = """
SELECT tombstones.tenant, tombstones.kind, tombstones.id
  FROM unnest($1::text[], $2::text[]) AS asked(tenant, conversation)
  JOIN tombstones USING (tenant, conversation)"""

# Carried out in this order. What they return are the responses that were removed.
DELETE_CONVERSATION = (
    """
    DELETE FROM responses USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE responses.tenant = gone.tenant AND responses.conversation = gone.id
    RETURNING responses.tenant, responses.id""",
    """
    DELETE FROM items USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE items.tenant = gone.tenant AND items.conversation = gone.id""",
    """
    DELETE FROM conversations USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE conversations.tenant = gone.tenant AND conversations.id = gone.id""",
    """
    DELETE FROM dead_letters USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE dead_letters.tenant = gone.tenant AND dead_letters.conversation = gone.id""",
)
# In a hidden thread the items go along. They are found by the response that they name, whose own row may still be on
# its way.
DELETE_RESPONSE = (
    """
    DELETE FROM responses USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE responses.tenant = gone.tenant AND responses.id = gone.id
    RETURNING responses.tenant, responses.id""",
    """
    DELETE FROM items USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE items.tenant = gone.tenant AND items.conversation = gone.conversation AND items.response = gone.id
       AND starts_with(gone.conversation, 'thr_')""",
    """
    DELETE FROM dead_letters USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE dead_letters.tenant = gone.tenant AND dead_letters.conversation = gone.conversation
       AND (dead_letters.kind = 'response' AND dead_letters.entry_id = gone.id
            OR dead_letters.response = gone.id AND starts_with(gone.conversation, 'thr_'))""",
)
DELETE_ITEM = (
    """
    DELETE FROM items USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE items.tenant = gone.tenant AND items.id = gone.id""",
    """
    DELETE FROM dead_letters USING unnest($1::text[], $2::text[], $3::text[]) AS gone(tenant, id, conversation)
     WHERE dead_letters.tenant = gone.tenant AND dead_letters.conversation = gone.conversation
       AND dead_letters.kind = 'item' AND dead_letters.entry_id = gone.id""",
)
# A conversation may have millions of items; the lease is renewed meanwhile.
DELETE_SECONDS = 600
ALLOW_TIME = f"SET LOCAL statement_timeout = '{DELETE_SECONDS}s'"
STATEMENTS = {
    Kind.DELETE_CONVERSATION: DELETE_CONVERSATION,
    Kind.DELETE_RESPONSE: DELETE_RESPONSE,
    Kind.DELETE_ITEM: DELETE_ITEM,
}

HEIRS = """
WITH RECURSIVE heirs AS (
    SELECT child.tenant, child.id
      FROM unnest($1::text[], $2::text[]) AS gone(tenant, id)
      JOIN conversations child ON child.tenant = gone.tenant AND child.parent = gone.id
  UNION
    SELECT child.tenant, child.id
      FROM heirs JOIN conversations child ON child.tenant = heirs.tenant AND child.parent = heirs.id
)
SELECT tenant, id FROM heirs"""

# A branch that is stored after the delete: anything deleted from any thread that it descends from.
BEREAVED = """
WITH RECURSIVE lineage AS (
    SELECT tenant, id AS heir, parent AS ancestor
      FROM unnest($1::text[], $2::text[], $3::text[]) AS new(tenant, id, parent)
  UNION
    SELECT lineage.tenant, lineage.heir, elder.parent
      FROM lineage JOIN conversations elder ON elder.tenant = lineage.tenant AND elder.id = lineage.ancestor
     WHERE elder.parent IS NOT NULL
)
SELECT DISTINCT lineage.tenant, lineage.heir
  FROM lineage JOIN tombstones ON tombstones.tenant = lineage.tenant AND tombstones.conversation = lineage.ancestor"""


@dataclass(frozen=True, slots=True)
class Gone:
    """The tombstones that concern one batch: (tenant, kind, id)."""

    ids: frozenset[tuple[str, str, str]]

    def covers(self, entry: Entry) -> bool:
        """Whether this entry came too late: what it would store has been deleted."""
        tenant, conversation = entry.tenant, entry.conversation
        if (tenant, "conversation", conversation) in self.ids or (tenant, str(entry.kind), entry.id) in self.ids:
            return True
        in_hidden_thread = entry.kind is Kind.ITEM and conversation.startswith(HIDDEN_PREFIX)
        return in_hidden_thread and (tenant, "response", entry.extra[0]) in self.ids

    def leave_out(self, batch: Batch) -> Batch:
        """The batch without what these tombstones cover."""
        if not self.ids:
            return batch
        return replace(
            batch,
            items=[row for row in batch.items if not self.covers(row.entry)],
            responses=[row for row in batch.responses if not self.covers(row.entry)],
            conversations=[change for change in batch.conversations if not self.covers(change.entry)],
            letters=[letter for letter in batch.letters if letter.entry is None or not self.covers(letter.entry)],
        )


async def bury(connection: "Connection", entries: list[Entry]) -> None:
    """Leave the tombstones of a batch's deletes, before they are read for that same batch."""
    tenants, kinds = [entry.tenant for entry in entries], [TARGETS[entry.kind] for entry in entries]
    ids, conversations = [entry.id for entry in entries], [entry.conversation for entry in entries]
    await connection.execute(BURY, tenants, kinds, ids, conversations)


async def gone(connection: "Connection", conversations: Ids) -> Gone:
    """What is deleted of these conversations."""
    asked = list(conversations)
    rows = await connection.fetch(TOMBSTONES, [tenant for tenant, _ in asked], [name for _, name in asked])
    return Gone(frozenset((row["tenant"], row["kind"], row["id"]) for row in rows))


async def carry_out(connection: "Connection", entries: list[Entry]) -> Ids:
    """Delete what the entries name; tells which responses that removed."""
    removed: Ids = set()
    await connection.execute(ALLOW_TIME)
    for kind, statements in STATEMENTS.items():
        named = [entry for entry in entries if entry.kind is kind]
        if not named:
            continue
        columns = [entry.tenant for entry in named], [entry.id for entry in named], [e.conversation for e in named]
        for statement in statements:
            rows = await connection.fetch(statement, *columns, timeout=DELETE_SECONDS)
            removed.update((row["tenant"], row["id"]) for row in rows)
    return removed


async def bereaved(connection: "Connection", branches: list[tuple[str, str, str]]) -> Ids:
    """Which of these new branches (tenant, id, parent) inherit from something that was deleted before they came."""
    if not branches:
        return set()
    rows = await connection.fetch(BEREAVED, *(list(column) for column in zip(*branches, strict=True)))
    return {(row["tenant"], row["heir"]) for row in rows}


async def heirs(connection: "Connection", conversations: Iterable[tuple[str, str]]) -> Ids:
    """Threads that inherit items from these, at any distance."""
    asked = list(conversations)
    rows = await connection.fetch(HEIRS, [tenant for tenant, _ in asked], [name for _, name in asked])
    return {(row["tenant"], row["id"]) for row in rows}
