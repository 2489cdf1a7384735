"""The Redis side that both processes share: the connection, the names of the queue's keys, and how scripts are run.

The protocol is docs/adr/0001-queue-protocol.md. Scripts are Lua files beside the module that calls them. They get no
KEYS: version 1 asks for one Redis primary, and most scripts find further keys in what they read.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import NoScriptError, ResponseError

from core import tracing
from core.settings import RedisSettings

QUEUE = "chatQueue"
META = "{chatQueue}:m"
LEASES = "{chatQueue}:l"
SESSIONS = "{chatQueue}:s"
ACKED = "{chatQueue}:d"
ATTEMPTS = "{chatQueue}:t"
ALONE = "{chatQueue}:a"
REPORTS = "{chatQueue}:e"
BELL = "{chatQueue}:bell"
HOT = "chatQueue:hot"
WROTE = "wrote"

# A reply that takes longer than this is as good as none: a turn rather answers 503 than hangs.
SOCKET_TIMEOUT_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 1.0

_SCRIPTS = Path(__file__).parent / "scripts"
PRELUDE = (_SCRIPTS / "prelude.lua").read_text(encoding="utf-8")
HAS_EPOCH = (_SCRIPTS / "epoch.lua").read_text(encoding="utf-8")
NAMES = {"QUEUE": QUEUE, "META": META, "LEASES": LEASES, "SESSIONS": SESSIONS, "ACKED": ACKED,
         "ATTEMPTS": ATTEMPTS, "ALONE": ALONE, "REPORTS": REPORTS, "BELL": BELL, "HOT": HOT,
         "WROTE": WROTE}  # fmt: skip

Argument = str | bytes | int


class Script:
    """One Lua file, run by its hash and loaded again when Redis does not know it.

    `allow_oom` scripts also run when Redis is over `maxmemory`: what was paid for must be kept and drained.
    `library` is put in front of it.
    `opens_epoch`: it is what makes the queue's bookkeeping, without which every other script is refused.
    """

    def __init__(self, path: Path, *, allow_oom: bool, opens_epoch: bool = False, library: str = "") -> None:
        self._name = path.stem
        flags = "#!lua flags=allow-oom\n" if allow_oom else "#!lua\n"
        names = "".join(f"local {name} = '{value}'\n" for name, value in NAMES.items())
        check = "" if opens_epoch else HAS_EPOCH
        self.source = flags + names + check + PRELUDE + library + path.read_text(encoding="utf-8")
        # Redis names a script by its SHA-1; nothing here is secret.
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, *arguments: Argument) -> Any:  # noqa: ANN401 - the shape is the caller's
        with self.span(redis):
            try:
                return await self._run(redis, *arguments)
            except ResponseError as error:
                if not _lost_epoch(error):
                    raise
                await _greet_anew(redis)
                return await self._run(redis, *arguments)

    def span(self, redis: Redis) -> tracing.Block | tracing.Nothing:
        """Of one call, where that is traced."""
        if tracing.recorded() is None:
            return tracing.NOTHING
        return tracing.span(f"EVALSHA {self._name}", "client", self._attributes(redis))

    def record(self, redis: Redis, start_ns: int, end_ns: int | None = None, error: Exception | None = None) -> None:
        """A call that is over, as a part of what is traced now."""
        if tracing.recorded() is not None:
            name, told = f"EVALSHA {self._name}", self._attributes(redis)
            tracing.record(name, "client", told, start_ns=start_ns, end_ns=end_ns, error=error)

    def _attributes(self, redis: Redis) -> tracing.Attributes:
        kwargs = redis.connection_pool.connection_kwargs
        return {
            "db.system.name": "redis",
            "db.operation.name": "EVALSHA",
            "db.stored_procedure.name": self._name,
            "server.address": kwargs["host"],
            "server.port": kwargs["port"],
        }

    async def _run(self, redis: Redis, *arguments: Argument) -> Any:  # noqa: ANN401 - the shape is the caller's
        try:
            return await redis.evalsha(self.sha, 0, *arguments)
        except NoScriptError:
            return await redis.eval(self.source, 0, *arguments)


def _lost_epoch(error: Exception) -> bool:
    return str(error).startswith("EPOCH ")


async def _greet_anew(redis: Redis) -> None:
    """The next command connects again, and every new connection is greeted (core/epochs.py)."""
    await redis.connection_pool.disconnect(inuse_connections=False)


async def run_many(redis: Redis, calls: list[tuple[Script, tuple[Argument, ...]]]) -> list[Any]:
    """Scripts with their arguments in one round trip; an error stands in the place of its reply."""
    pipeline = redis.pipeline(transaction=False)
    for script, arguments in calls:
        pipeline.evalsha(script.sha, 0, *arguments)
    replies = await pipeline.execute(raise_on_error=False)
    for index, reply in enumerate(replies):
        if isinstance(reply, NoScriptError) or (isinstance(reply, ResponseError) and _lost_epoch(reply)):
            script, arguments = calls[index]
            try:
                replies[index] = await script(redis, *arguments)
            except ResponseError as error:
                replies[index] = error
    return replies


Greeting = Callable[[Connection], Awaitable[None]]


class TlsConnection(SSLConnection):
    """One of many that share a context; redis-py would make one for each."""

    def __init__(self, *, context: SSLContext, **arguments: Any) -> None:  # noqa: ANN401 - redis-py's own
        super().__init__(**arguments)
        self.ssl_context.context = context


def connect(settings: RedisSettings, max_connections: int, greet: Greeting | None = None) -> Redis:
    """A client that retries once and never waits longer than the socket time-out. Every script is idempotent by id.

    Who finds all connections in use waits for one: a burst of requests does not mean that Redis is away. `greet` is
    called with every new connection before its first command (core/epochs.py).
    """
    tls: dict[str, Any] = {"connection_class": TlsConnection, "context": settings.tls} if settings.tls else {}
    pool = BlockingConnectionPool(
        max_connections=max_connections,
        timeout=SOCKET_TIMEOUT_SECONDS,
        **tls,
        host=settings.host,
        port=settings.port,
        username=settings.username or None,
        password=settings.password or None,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(ConstantBackoff(0.05), 1),
        redis_connect_func=greet,
    )
    return Redis.from_pool(pool)


async def depth(redis: Redis) -> int:
    """How many entries PostgreSQL does not have yet."""
    return int(await redis.llen(QUEUE))


_renew = Script(_SCRIPTS / "renew.lua", allow_oom=True, opens_epoch=True)
_report = Script(_SCRIPTS / "report.lua", allow_oom=True)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one step queued: its entries, and the offset behind the last of them in this epoch of the queue."""

    epoch: int
    end: int
    entries: list[bytes]

    @property
    def first(self) -> int:
        return self.end - len(self.entries)


def receipt(reply: Any) -> Receipt:  # noqa: ANN401 - what prelude.lua's receipt() answers
    epoch, end, entries = reply
    return Receipt(int(epoch), end, entries)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The queue's present epoch. `ends` tells behind which offset each of the last ones ended, if that is known."""

    number: int
    start: int
    checked: bool
    ends: dict[int, int]


async def renew(redis: Redis, candidate: int | None = None, floor: int = 0) -> Epoch | None:
    """Bind the queue to the present run of Redis; None when that takes a new epoch and no `candidate` was brought."""
    return _epoch(await _renew(redis, "" if candidate is None else candidate, floor))


async def epoch_behind(connection: Connection) -> Epoch | None:
    """The epoch of the Redis that this very connection leads to; None when the queue is not bound to that run of it."""
    await connection.send_command("EVAL", _renew.source, 0, "", 0)
    return _epoch(await connection.read_response())


def _epoch(reply: Any) -> Epoch | None:  # noqa: ANN401 - what renew.lua answers
    if not reply:
        return None
    number, start, checked, ends = reply
    pairs = (pair.partition(b":") for pair in (ends or b"").split())
    return Epoch(int(number), int(start), checked == b"1", {int(epoch): int(end) for epoch, _, end in pairs})


async def report(redis: Redis, known: tuple[int, int, int] | None, *, lost: bool, checked: bool) -> None:
    """Tell what is known of an ended epoch, (epoch, start, tail), and whether Redis lacks some of it."""
    await _report(redis, *(known or ("", "", "")), int(lost), int(checked))


async def reports(redis: Redis) -> list[bytes]:
    """What was told of ended epochs and is not in PostgreSQL yet: `EPOCH START TAIL FIRST BEYOND` each."""
    return list(cast("set[bytes]", await redis.smembers(REPORTS)))


async def drop_reports(redis: Redis, told: list[bytes]) -> None:
    await redis.srem(REPORTS, *told)
