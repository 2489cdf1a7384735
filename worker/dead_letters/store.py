"""The table `dead_letters`."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from core.entry import Kind
from worker.batch import Letter

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

# A range that is done again finds its letters here.
INSERT = """
INSERT INTO dead_letters (digest, tenant, conversation, kind, entry_id, response, position, reason, entry)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (digest) DO UPDATE SET reason = excluded.reason"""
DROP = "DELETE FROM dead_letters WHERE id = ANY($1::bigint[])"
_COLUMNS = "id, tenant, conversation, kind, entry_id, reason, octet_length(entry) AS bytes, created_at"
LIST = f"SELECT {_COLUMNS} FROM dead_letters ORDER BY id LIMIT $1"  # noqa: S608 - built of constants
SHOW = "SELECT entry FROM dead_letters WHERE id = $1"


@dataclass(frozen=True, slots=True)
class Listed:
    """A dead letter without its content."""

    id: int
    tenant: str | None
    conversation: str | None
    kind: str | None
    entry_id: str | None
    reason: str
    bytes: int
    created_at: datetime


async def insert(connection: "Connection", letters: Iterable[Letter]) -> None:
    for letter in letters:
        entry, original = letter.entry, letter.original()
        header: tuple[str | int | None, ...] = (None,) * 6
        if entry is not None:
            response = entry.extra[0] if entry.kind is Kind.ITEM and entry.extra else None
            header = (entry.tenant, entry.conversation, entry.kind, entry.id, response, entry.position)
        await connection.execute(INSERT, hashlib.sha256(original).digest(), *header, letter.reason, original)


async def drop(connection: "Connection", ids: list[int]) -> int:
    """Remove letters; tells how many there were."""
    status = await connection.execute(DROP, ids)
    return int(status.rpartition(" ")[2])


async def listed(connection: "Connection", limit: int) -> list[Listed]:
    return [Listed(**row) for row in await connection.fetch(LIST, limit)]


async def entry_of(connection: "Connection", letter: int) -> bytes | None:
    """The whole entry, content included."""
    entry: bytes | None = await connection.fetchval(SHOW, letter)
    return entry
