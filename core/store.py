"""The PostgreSQL connections that both processes open alike. Reads are in api/store.py, writes in worker/store.py."""

from typing import Any

import asyncpg

from core.settings import PostgresSettings

CONNECT_TIMEOUT_SECONDS = 3.0
COMMAND_TIMEOUT_SECONDS = 10.0

# Every statement sees these limits, so that a session whose client was stopped or cut off ends by itself.
# The keepalives find a dead peer in 10 s, below the worker's lease of 15 s.
SESSION = {
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "client_min_messages": "warning",
}

# What asyncpg raises while PostgreSQL can't be reached, restarts, or does not answer in time.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.exceptions.PostgresConnectionError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.QueryCanceledError,
    # Not migrated yet, or a wrong password or database: the operator mends it, the client comes again.
    asyncpg.exceptions.UndefinedTableError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    asyncpg.exceptions.InterfaceError,
)


async def _prepare(connection: "asyncpg.Connection[Any]") -> None:
    # jsonb travels as the bytes that it already is: one version byte and the JSON text.
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + value,
        decoder=lambda value: value[1:],
    )


def _arguments(settings: PostgresSettings, application: str) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "user": settings.user,
        "password": settings.password or None,
        "database": settings.database,
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "command_timeout": COMMAND_TIMEOUT_SECONDS,
        "server_settings": {**SESSION, "application_name": application},
    }


async def _leave(connection: "asyncpg.Connection[Any]") -> None:
    """Reads leave nothing behind in a session, so its return to the pool costs no round trip."""


async def open_pool(settings: PostgresSettings, max_size: int, application: str) -> "asyncpg.Pool[Any]":
    """A pool that connects at the first use, so that a process starts while PostgreSQL is away."""
    return await asyncpg.create_pool(
        **_arguments(settings, application), min_size=0, max_size=max_size, init=_prepare, reset=_leave
    )


async def connect(settings: PostgresSettings, application: str) -> "asyncpg.Connection[Any]":
    """One session of its own, for who must know which one it is."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(**_arguments(settings, application))
    await _prepare(connection)
    return connection
