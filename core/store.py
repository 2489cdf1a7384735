"""The PostgreSQL connections that both processes open alike. Reads are in api/store.py, writes in worker/store.py."""

import functools
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from core import tracing
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
    # It went away in the middle of a call, which asyncpg finds to be in a state that it does not expect.
    asyncpg.exceptions.InternalClientError,
)


DOES = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|CREATE|SET)\b")
TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE) ([a-z_]+)\b(?!\()")

REACHED = """
SELECT coalesce(max(epoch), 0) AS epoch, coalesce(max(position), 0) AS position,
       coalesce((SELECT greatest(tail, upper(kept)) FROM queue_epochs ORDER BY epoch DESC LIMIT 1), 0) AS tail
  FROM queue_epochs"""

REPORT_EPOCHS = """
INSERT INTO queue_epochs AS old (epoch, start, tail, kept, position)
SELECT epoch, min(start), max(tail), range_agg(int8range(first, beyond)), 0
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
       AS told(epoch, start, tail, first, beyond)
 GROUP BY epoch ORDER BY epoch
ON CONFLICT (epoch) DO UPDATE SET tail = greatest(old.tail, excluded.tail), kept = old.kept + excluded.kept"""

# An epoch that has ended lost whatever is neither stored nor went on into the next one.
LOSSES = """
SELECT epoch, lost, begun_at
  FROM (SELECT epoch, begun_at, max(epoch) OVER () AS newest,
               (SELECT sum(upper(gap) - lower(gap))::bigint
                  FROM unnest(int8multirange(int8range(start, greatest(start, tail))) - kept) AS gap) AS lost
          FROM queue_epochs) AS epochs
 WHERE epoch < newest AND lost > 0
 ORDER BY epoch"""


# Counted no further: an operator does not look at a hundred thousand any differently than at ten.
DEAD_LETTERS = "SELECT count(*) FROM (SELECT FROM dead_letters LIMIT 100000) AS letters"


@dataclass(frozen=True, slots=True)
class Reached:
    """How far PostgreSQL saw the queue come: its last epoch, the offset behind that one's last entry, a position.

    All are 0 when it has never seen any.
    """

    epoch: int
    tail: int
    position: int


@dataclass(frozen=True, slots=True)
class Loss:
    """An epoch of the queue that lost entries with Redis, and how many."""

    epoch: int
    entries: int
    begun_at: datetime


async def reached(connection: "asyncpg.Connection[Any]") -> Reached:
    row = await connection.fetchrow(REACHED)
    assert row is not None  # noqa: S101 - an aggregate always has one
    return Reached(row["epoch"], row["tail"], row["position"])


async def report_epochs(connection: "asyncpg.Connection[Any]", told: list[bytes]) -> None:
    """Keep what was told of epochs, `EPOCH START TAIL FIRST BEYOND` each; the same again changes nothing."""
    rows = [[int(word) for word in line.split()] for line in told]
    await connection.execute(REPORT_EPOCHS, *(list(column) for column in zip(*rows, strict=True)))


async def losses(connection: "asyncpg.Connection[Any]") -> list[Loss]:
    """Every loss so far, the oldest first. A late report, or a late commit of an old epoch, makes one smaller."""
    return [Loss(row["epoch"], row["lost"], row["begun_at"]) for row in await connection.fetch(LOSSES)]


async def dead_letters(connection: "asyncpg.Connection[Any]") -> int:
    """How many entries wait in `dead_letters` for somebody to replay or drop them."""
    count: int = await connection.fetchval(DEAD_LETTERS)
    return count


async def _prepare(connection: "asyncpg.Connection[Any]") -> None:
    if tracing.on():
        connection.add_query_logger(_record)
    # jsonb travels as the bytes that it already is: one version byte and the JSON text.
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + value,
        decoder=lambda value: value[1:],
    )


def _record(logged: asyncpg.connection.LoggedQuery) -> None:
    """A span for a statement. Its text is a constant of ours: values travel beside it."""
    if tracing.recorded() is None:
        return
    summary = _summary(logged.query)
    told = {
        "db.system.name": "postgresql",
        "db.operation.name": summary.partition(" ")[0],
        "db.query.summary": summary,
        "db.query.text": logged.query,
    }
    start_ns = time.time_ns() - int(logged.elapsed * 1e9)
    tracing.record(summary, "client", told, start_ns=start_ns, error=logged.exception)


@functools.lru_cache(maxsize=256)
def _summary(query: str) -> str:
    """`SELECT items`: what is done, and to which table if to one."""
    does, table = DOES.search(query), TABLE.search(query)
    return " ".join(found[1] for found in (does, table) if found) or "query"


def _arguments(settings: PostgresSettings, application: str) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "user": settings.user,
        "password": settings.password or None,
        "database": settings.database,
        "ssl": settings.tls or False,
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
