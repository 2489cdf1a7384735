"""What is wrong with a store, in words that tell an operator what to do. No error's own text: it can quote a row."""

from typing import NamedTuple

import asyncpg
from asyncpg import exceptions as postgres
from redis import exceptions as redis

from core.tls import refusal


class Trouble(NamedTuple):
    why: str
    mend: str


SLOW = Trouble("it does not answer in time", "Look at its load, its disk and the network to it.")
_REDIS_RIGHTS = Trouble("it refuses the user or the password", "Check REDIS_USERNAME and REDIS_PASSWORD.")
_POSTGRES_STARTS = Trouble("it starts or stops", "Wait; if it stays so, read its log.")

# The first that fits counts: subclasses stand before their parents.
_REDIS: tuple[tuple[type[Exception], Trouble], ...] = (
    (redis.AuthenticationError, _REDIS_RIGHTS),
    (redis.AuthorizationError, _REDIS_RIGHTS),
    (redis.NoPermissionError, Trouble("its user lacks a right", "docs/operations.md tells which ones it needs.")),
    (redis.BusyLoadingError, Trouble("it loads its data", "Wait; much data takes minutes.")),
    (redis.ReadOnlyError, Trouble("it is a replica", "Let REDIS_HOST name the primary.")),
    (redis.OutOfMemoryError, Trouble("it is full", "Let workers drain the queue, or raise its maxmemory.")),
    (redis.TimeoutError, SLOW),
    (TimeoutError, SLOW),
    (redis.ConnectionError, Trouble("nobody answers there", "See that it runs; check REDIS_HOST and REDIS_PORT.")),
)
_POSTGRES: tuple[tuple[type[BaseException], Trouble], ...] = (
    (
        postgres.InvalidAuthorizationSpecificationError,
        Trouble("it refuses the user or the password", "Check PG_USER and PG_PASSWORD."),
    ),
    (postgres.InvalidCatalogNameError, Trouble("it has no such database", "Check PG_DATABASE.")),
    (postgres.UndefinedTableError, Trouble("its schema is missing", "Run `python -m worker migrate`.")),
    (postgres.InsufficientPrivilegeError, Trouble("its user lacks a right", "Grant it, or let it own the database.")),
    (
        postgres.TooManyConnectionsError,
        Trouble("all of its connections are taken", "Raise its max_connections, or run fewer processes."),
    ),
    (postgres.DiskFullError, Trouble("its disk is full", "Enlarge its volume.")),
    (postgres.CannotConnectNowError, _POSTGRES_STARTS),
    (postgres.AdminShutdownError, _POSTGRES_STARTS),
    (postgres.CrashShutdownError, _POSTGRES_STARTS),
    (postgres.QueryCanceledError, SLOW),
    (TimeoutError, SLOW),
    (OSError, Trouble("nobody answers there", "See that it runs; check PG_HOST and PG_PORT.")),
)


def redis_trouble(error: BaseException, meaning: str) -> str:
    """`meaning`: what does not work now."""
    return _sentence("redis", _found(error, _REDIS, "REDIS"), meaning)


def postgres_trouble(error: BaseException, meaning: str) -> str:
    return _sentence("postgresql", _found(error, _POSTGRES, "PG"), meaning)


def _sentence(store: str, trouble: Trouble, meaning: str) -> str:
    return f"{store} can't be reached ({trouble.why}): {meaning}. {trouble.mend}"


def _found(error: BaseException, known: tuple[tuple[type[BaseException], Trouble], ...], prefix: str) -> Trouble:
    if told := refusal(error):
        return Trouble(told, f"Compare {prefix}_TLS and {prefix}_TLS_CA with what it has.")
    for kind, trouble in known:
        if isinstance(error, kind):
            return trouble
    state = f" {error.sqlstate}" if isinstance(error, asyncpg.PostgresError) else ""
    return Trouble(f"{type(error).__name__}{state}", "Read its log.")
