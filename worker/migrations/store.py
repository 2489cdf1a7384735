"""The table `schema_migrations`."""

from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

MIGRATION_LOCK = 7_306_002
# A migration of a large table takes its time, and so does waiting for another process that runs it.
TIMEOUT_SECONDS = 3600.0

# The lock comes first: two that create the table at once would collide.
BEGIN = f"SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"""
APPLIED = "SELECT version FROM schema_migrations"
RECORD = "INSERT INTO schema_migrations (version) VALUES ($1)"


async def applied(connection: "Connection") -> set[str]:
    """Raises asyncpg.UndefinedTableError on a database without any."""
    return {row["version"] for row in await connection.fetch(APPLIED)}


async def apply(connection: "Connection", version: str, sql: str) -> bool:
    """Run one migration in one transaction; False when it was applied already."""
    async with connection.transaction():
        await connection.execute(BEGIN, timeout=TIMEOUT_SECONDS)
        await connection.execute(CREATE_TABLE)
        if version in await applied(connection):
            return False
        await connection.execute(sql, timeout=TIMEOUT_SECONDS)
        await connection.execute(RECORD, version)
        return True
