"""The PostgreSQL connections that both processes open alike. Reads are in api/store.py, writes in worker/store.py."""

import functools
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from core import tracing
from core.settings import PostgresSettings

if TYPE_CHECKING:
    _Session = asyncpg.Connection[Any]
else:
    _Session = asyncpg.Connection

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


DOES = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|CREATE|SET|COPY)\b")
TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE|COPY) ([a-z_]+)\b(?!\()")

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
    # jsonb travels as the bytes that it already is: one version byte and the JSON text.
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + value,
        decoder=lambda value: value[1:],
    )


class _Traced(_Session):
    """Where there is a collector: a statement is a span, as far as it is part of what is traced."""

    async def execute(self, query: str, *args: Any, **options: Any) -> str:  # noqa: ANN401 - as it came
        with _span(query):
            return await super().execute(query, *args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as it came
        with _span(query):
            return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as it came
        with _span(query):
            return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as it came
        with _span(query):
            return await super().fetchval(query, *args, **options)

    async def copy_to_table(self, table_name: str, **options: Any) -> str:  # noqa: ANN401 - as it came
        with _span(f"COPY {table_name}"):
            return await super().copy_to_table(table_name, **options)


def _span(query: str) -> tracing.Block | tracing.Nothing:
    """The text may be told: it is a constant of ours, and values travel beside it."""
    if tracing.recorded() is None:
        return tracing.NOTHING
    does, table = _summary(query)
    told = {"db.system.name": "postgresql", "db.operation.name": does, "db.query.text": query}
    if table:
        told["db.collection.name"] = table
    return tracing.span(f"{does} {table}".strip(), "client", told)


def _connection_class() -> type[_Session]:
    return _Traced if tracing.on() else _Session


@functools.lru_cache(maxsize=256)
def _summary(query: str) -> tuple[str, str]:
    """What a statement does, and to which table if to one: `SELECT`, `items`."""
    does, table = DOES.search(query), TABLE.search(query)
    return does[1] if does else "query", table[1] if table else ""


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
        **_arguments(settings, application),
        min_size=0,
        max_size=max_size,
        init=_prepare,
        reset=_leave,
        connection_class=_connection_class(),
    )


async def connect(settings: PostgresSettings, application: str) -> "asyncpg.Connection[Any]":
    """One session of its own, for who must know which one it is."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(
        **_arguments(settings, application), connection_class=_connection_class()
    )
    await _prepare(connection)
    return connection
