"""Brings the schema up to date: plain SQL files in order, each in a transaction of its own, run twice without harm."""

import asyncio
import logging
import time
from pathlib import Path

import asyncpg

from core.settings import PostgresSettings
from core.store import UNREACHABLE, connect
from worker.migrations import store
from worker.verdict import describe

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
SCHEMA = Path(__file__).parents[1] / "core" / "schema"


def versions() -> list[str]:
    """The names of all migrations, in order."""
    return sorted(path.stem for path in SCHEMA.glob("*.sql"))


async def migrate(settings: PostgresSettings) -> list[str]:
    """Apply what is missing and tell what that was; several processes may do this at the same time."""
    connection = await connect(settings, "chatbot-migrate")
    try:
        done = []
        for version in versions():
            sql = (SCHEMA / f"{version}.sql").read_text(encoding="utf-8")
            if await store.apply(connection, version, sql):
                log.info("migration applied", extra={"version": version})
                done.append(version)
        return done
    finally:
        await connection.close()


async def migrate_within(settings: PostgresSettings, seconds: float) -> list[str]:
    """As `migrate`, but a PostgreSQL that can't be reached yet is asked again for so long; raises the last error."""
    end = time.monotonic() + seconds
    told: set[str] = set()
    while True:
        try:
            return await migrate(settings)
        except UNREACHABLE as error:
            if time.monotonic() >= end:
                raise
            if describe(error) not in told:
                told.add(describe(error))
                log.warning("waiting for PostgreSQL", extra={"error": describe(error)})
        await asyncio.sleep(RETRY_SECONDS)


async def missing(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """Migrations that this worker needs and the database does not have."""
    try:
        there = await store.applied(connection)
    except asyncpg.UndefinedTableError:
        there = set()
    return [version for version in versions() if version not in there]
