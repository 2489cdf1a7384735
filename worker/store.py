"""What a range of the queue becomes in PostgreSQL: one transaction, binary COPY, and what a repetition needs.

Deletes and dead letters of the same transaction have their statements in deletes/store.py and dead_letters/store.py.
"""

import re
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from core.entry import Entry
from worker.batch import Batch, Change, Letter, Row
from worker.dead_letters import store as dead_letters
from worker.deletes import store as deletes
from worker.queue import Ids
from worker.search import store as search
from worker.verdict import Verdict, verdict

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

# Ranges with a delete exclude all others while they commit: no late entry slips in before the tombstone is read.
STORE_LOCK = 7_306_001
# Long enough to roll back.
TERMINATION_TIMEOUT_MS = 5000

LOCK_SHARED = f"SELECT pg_advisory_xact_lock_shared({STORE_LOCK})"
LOCK_EXCLUSIVE = f"SELECT pg_advisory_xact_lock({STORE_LOCK})"

# The signature of binary COPY, its flags and its end.
COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_TRAILER = b"\xff\xff"
COPY_LINE = re.compile(r"COPY (?:incoming_)?(?:items|responses), line (\d+)")


# A range that comes again finds its rows here. A row whose position or id belongs to another one is not equal to any.
@dataclass(frozen=True, slots=True)
class Table:
    """A table that is only inserted into; `clashing` finds the staged lines that it holds no equal of."""

    name: str
    columns: tuple[str, ...]
    stage: str
    merge: str
    clashing: str


def _table(name: str, columns: tuple[str, ...], equal: str) -> Table:
    listed = ", ".join(columns)
    return Table(
        name,
        columns,
        stage=f"CREATE TEMP TABLE incoming_{name} (LIKE {name}, line bigint GENERATED ALWAYS AS IDENTITY)"
        " ON COMMIT DROP",
        # Sorted, so that two that insert the same rows wait for each other instead of deadlocking.
        merge=f"INSERT INTO {name} ({listed}) SELECT {listed} FROM incoming_{name}"  # noqa: S608 - constants
        " ORDER BY tenant, conversation, position, id ON CONFLICT DO NOTHING",
        clashing=f"SELECT line FROM incoming_{name} AS new"  # noqa: S608 - constants
        f" WHERE NOT EXISTS (SELECT FROM {name} AS old WHERE {equal})",
    )


ITEMS = _table(
    "items",
    ("tenant", "conversation", "position", "id", "response", "created_at", "item"),
    "old.tenant = new.tenant AND old.conversation = new.conversation AND old.position = new.position"
    " AND old.id = new.id AND old.response IS NOT DISTINCT FROM new.response AND old.item = new.item",
)
RESPONSES = _table(
    "responses",
    ("tenant", "id", "conversation", "position", "input_count", "output_count", "created_at", "body"),
    "old.tenant = new.tenant AND old.id = new.id AND old.conversation = new.conversation"
    " AND old.position = new.position AND old.input_count = new.input_count AND old.output_count = new.output_count"
    " AND old.body = new.body",
)

UPSERT_CONVERSATIONS = """
INSERT INTO conversations AS old (tenant, id, created_at, hidden, parent, parent_position, position, metadata)
SELECT tenant, id, to_timestamp(created_at), hidden, parent, parent_position, position, metadata
  FROM unnest($1::text[], $2::text[], $3::float8[], $4::bool[], $5::text[], $6::bigint[], $7::bigint[], $8::jsonb[])
       AS new(tenant, id, created_at, hidden, parent, parent_position, position, metadata)
ON CONFLICT (tenant, id) DO UPDATE SET position = excluded.position, metadata = excluded.metadata
 WHERE excluded.position > old.position"""

RECORD_PROGRESS = """
INSERT INTO queue_epochs AS old (epoch, start, tail, kept, position)
VALUES ($1, $2, $3, int8multirange(int8range($4, $5)), $6)
ON CONFLICT (epoch) DO UPDATE SET
    tail = greatest(old.tail, excluded.tail),
    kept = old.kept + excluded.kept,
    position = greatest(old.position, excluded.position)"""

OWN_SESSION = """
SELECT pid || ':' || (extract(epoch FROM backend_start) * 1000000)::bigint
  FROM pg_stat_activity WHERE pid = pg_backend_pid()"""

END_SESSION = """
SELECT pg_terminate_backend(pid, $2) FROM pg_stat_activity
 WHERE pid || ':' || (extract(epoch FROM backend_start) * 1000000)::bigint = ANY(string_to_array($1, ','))
   AND pid <> pg_backend_pid()"""

IS_STORED = """
SELECT $5 = 'item' AND EXISTS (SELECT FROM items
                                WHERE tenant = $1 AND id = $2 AND conversation = $3 AND position = $4)
    OR $5 = 'response' AND EXISTS (SELECT FROM responses
                                    WHERE tenant = $1 AND id = $2 AND conversation = $3 AND position = $4)"""


class PoisonedRowError(Exception):
    """PostgreSQL refuses one row for what it holds, and told which; raised from what it said."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row


@dataclass(frozen=True, slots=True)
class Progress:
    """The offsets [first, end) that are stored with this transaction, and how far the queue of their epoch had come."""

    epoch: int
    start: int
    tail: int
    first: int
    end: int


@dataclass(slots=True)
class Written:
    """What a transaction did beyond its rows."""

    removed_responses: Ids = field(default_factory=set)
    stale_conversations: Ids = field(default_factory=set)
    duplicates: int = 0
    dead_letters: list[Letter] = field(default_factory=list)


async def own_session(connection: "Connection") -> str:
    """Names this session for good: a process id comes again, together with its start it does not."""
    session: str = await connection.fetchval(OWN_SESSION)
    return session


async def end_sessions(connection: "Connection", sessions: str) -> bool:
    """End the sessions of former holders (`,` between them): an open transaction would block the range for ever."""
    return bool(await connection.fetch(END_SESSION, sessions, TERMINATION_TIMEOUT_MS))


async def is_stored(connection: "Connection", entry: Entry) -> bool:
    """Whether an earlier holder has committed this entry and died before it could say so."""
    key = entry.tenant, entry.id, entry.conversation, entry.position
    stored: bool = await connection.fetchval(IS_STORED, *key, str(entry.kind))
    return stored


async def write(connection: "Connection", batch: Batch, progress: Progress, *, again: bool) -> Written:
    """Store a batch in one transaction. `again` takes the slower way that finds rows which are stored already.

    Raises asyncpg.UniqueViolationError (do it again), PoisonedRowError, and whatever else PostgreSQL says.
    """
    written = Written()
    # The level is not left to the server's settings: the tombstones must be read after the lock was got.
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(LOCK_EXCLUSIVE if batch.deletes else LOCK_SHARED)
        if batch.deletes:
            await deletes.bury(connection, batch.deletes)
        gone = await deletes.gone(connection, batch.conversations_named())
        kept = gone.leave_out(batch)
        clashes: list[Letter] = []
        for table, rows in ((ITEMS, kept.items), (RESPONSES, kept.responses)):
            if rows and again:
                repeated = await _merge(connection, table, rows)
                clashes += repeated.clashes
                written.duplicates += repeated.duplicates
            elif rows:
                await _copy(connection, table.name, table.columns, rows)
        await search.note(connection, kept.items)
        if kept.conversations:
            await connection.execute(UPSERT_CONVERSATIONS, *_latest(kept.conversations))
            branches = [
                (change.entry.tenant, change.entry.conversation, change.parent)
                for change in kept.conversations
                if change.parent is not None
            ]
            written.stale_conversations |= await deletes.bereaved(connection, branches)
        if batch.deletes:
            written.removed_responses |= await deletes.carry_out(connection, batch.deletes)
            changed = {(entry.tenant, entry.conversation) for entry in batch.deletes}
            written.stale_conversations |= await deletes.heirs(connection, changed)
        if batch.replayed:
            await dead_letters.drop(connection, batch.replayed)
        written.dead_letters += kept.letters + clashes
        await dead_letters.insert(connection, written.dead_letters)
        await connection.execute(RECORD_PROGRESS, *astuple(progress), batch.last_position())
    # What was left out because it had been deleted must go from Redis too.
    written.removed_responses |= {(row.entry.tenant, row.entry.id) for row in batch.responses if gone.covers(row.entry)}
    return written


async def _copy(connection: "Connection", table: str, columns: tuple[str, ...], rows: list[Row]) -> None:
    # A view, for asyncpg takes bytes for a path; its stubs leave out the buffers that it documents.
    source = memoryview(b"".join([COPY_HEADER, *(row.encoded for row in rows), COPY_TRAILER]))
    try:
        await connection.copy_to_table(table, source=source, columns=columns, format="binary")  # type: ignore[arg-type]
    except asyncpg.PostgresError as error:
        line = COPY_LINE.search(error.context or "")
        if line is None or verdict(error) is not Verdict.POISON:
            raise
        raise PoisonedRowError(rows[int(line[1]) - 1]) from error


@dataclass(frozen=True, slots=True)
class Repeated:
    duplicates: int
    clashes: list[Letter]


async def _merge(connection: "Connection", table: Table, rows: list[Row]) -> Repeated:
    """Insert what is not there yet. What is there and equal is a duplicate, what differs clashes with it."""
    await connection.execute(table.stage)
    await _copy(connection, f"incoming_{table.name}", table.columns, rows)
    status = await connection.execute(table.merge)
    clashes = [rows[record["line"] - 1] for record in await connection.fetch(table.clashing)]
    inserted = int(status.rpartition(" ")[2])
    return Repeated(
        duplicates=len(rows) - inserted - len(clashes),
        clashes=[Letter(row.source, row.entry, "identity clash") for row in clashes],
    )


def _latest(changes: list[Change]) -> tuple[list[Any], ...]:
    """One row per conversation, sorted by key: the last writer's metadata, the first one's all else; as columns."""
    first: dict[tuple[str, str], Change] = {}
    last: dict[tuple[str, str], Change] = {}
    for change in sorted(changes, key=lambda change: change.entry.position):
        key = change.entry.tenant, change.entry.conversation
        first.setdefault(key, change)
        last[key] = change
    keys = sorted(first)
    return (
        [tenant for tenant, _ in keys],
        [conversation for _, conversation in keys],
        [first[key].created_at for key in keys],
        [first[key].hidden for key in keys],
        [first[key].parent for key in keys],
        [first[key].parent_position for key in keys],
        [last[key].entry.position for key in keys],
        [last[key].metadata for key in keys],
    )
