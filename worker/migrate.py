"""Brings the schema up to date: plain SQL files in order, each in a transaction of its own, run twice without harm."""

import logging
from pathlib import Path

from core.settings import PostgresSettings
from worker import store

log = logging.getLogger(__name__)

SCHEMA = Path(__file__).parents[1] / "core" / "schema"


def versions() -> list[str]:
    """The names of all migrations, in order."""
    return sorted(path.stem for path in SCHEMA.glob("*.sql"))


async def migrate(settings: PostgresSettings) -> list[str]:
    """Apply what is missing and tell what that was; several processes may do this at the same time."""
    connection = await store.connect(settings, "chatbot-migrate")
    try:
        applied = []
        for version in versions():
            sql = (SCHEMA / f"{version}.sql").read_text(encoding="utf-8")
            if await store.apply_migration(connection, version, sql):
                log.info("migration applied", extra={"version": version})
                applied.append(version)
        return applied
    finally:
        await connection.close()
