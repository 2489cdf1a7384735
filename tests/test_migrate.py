"""`python -m worker migrate` on a real PostgreSQL."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core.settings import PostgresSettings
from local.parts import migrate as run_command
from tests.running import Part, Postgres, service_on
from tests.waiting import wait_until
from worker import migrate
from worker.migrate import versions

pytestmark = pytest.mark.anyio


@pytest.fixture
async def settings(postgres: Postgres) -> PostgresSettings:
    """An empty database of this test's own."""
    return PostgresSettings(postgres.host, postgres.port, postgres.user, "", await postgres.new_database())


async def applied(settings: PostgresSettings) -> Sequence[Any]:
    connection = await asyncpg.connect(
        host=settings.host, port=settings.port, user=settings.user, database=settings.database
    )
    try:
        return await connection.fetch("SELECT version FROM schema_migrations ORDER BY version")
    finally:
        await connection.close()


async def test_the_second_time_there_is_nothing_to_do(settings: PostgresSettings) -> None:
    assert await migrate.migrate(settings) == versions()
    assert await migrate.migrate(settings) == []
    assert [row["version"] for row in await applied(settings)] == versions()


async def test_several_at_the_same_time(settings: PostgresSettings) -> None:
    done = await asyncio.gather(*(migrate.migrate(settings) for _ in range(4)))
    assert sorted(version for own in done for version in own) == versions()


async def test_a_migration_that_fails_leaves_nothing(
    settings: PostgresSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "001_good.sql").write_text("CREATE TABLE good (a int);")
    (tmp_path / "002_bad.sql").write_text("CREATE TABLE half (a int); CREATE TABLE good (a int);")
    monkeypatch.setattr(migrate, "SCHEMA", tmp_path)
    with pytest.raises(asyncpg.DuplicateTableError):
        await migrate.migrate(settings)
    assert [row["version"] for row in await applied(settings)] == ["001_good"]
    (tmp_path / "002_bad.sql").write_text("CREATE TABLE half (a int);")
    assert await migrate.migrate(settings) == ["002_bad"]


async def test_a_worker_waits_for_the_schema(
    valkey: Part, postgres: Postgres, settings: PostgresSettings, folder: Path
) -> None:
    service = service_on(valkey, postgres, settings.database, folder / "waits-for-schema")
    starting = asyncio.create_task(service.worker.start())
    try:
        log = service.logs / "worker.log"
        await wait_until(
            lambda: log.exists() and "lacks 001_initial" in log.read_text(), "the worker says what it lacks"
        )
        assert not starting.done()
        await run_command(service.environment, service.logs)
        await starting
    finally:
        await starting
        await service.worker.close()
