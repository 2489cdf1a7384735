"""The Redis side that both processes share: the connection, the names of the queue's keys, and how scripts are run.

The protocol is docs/adr/0001-queue-protocol.md. Scripts are Lua files beside the module that calls them. They get no
KEYS: version 1 asks for one Redis primary, and most scripts find further keys in what they read.
"""

import hashlib
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from core.settings import RedisSettings

QUEUE = "chatQueue"
META = "{chatQueue}:m"
LEASES = "{chatQueue}:l"
SESSIONS = "{chatQueue}:s"
ACKED = "{chatQueue}:d"
ATTEMPTS = "{chatQueue}:t"
BELL = "{chatQueue}:bell"
HOT = "chatQueue:hot"

# A reply that takes longer than this is as good as none: a turn rather answers 503 than hangs.
SOCKET_TIMEOUT_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 1.0

PRELUDE = (Path(__file__).parent / "scripts" / "prelude.lua").read_text(encoding="utf-8")
NAMES = {"QUEUE": QUEUE, "META": META, "LEASES": LEASES, "SESSIONS": SESSIONS, "ACKED": ACKED,
         "ATTEMPTS": ATTEMPTS, "BELL": BELL, "HOT": HOT}  # fmt: skip

Argument = str | bytes | int


class Script:
    """One Lua file, run by its hash and loaded again when Redis does not know it.

    `allow_oom` scripts also run when Redis is over `maxmemory`: what was paid for must be kept and drained.
    """

    def __init__(self, path: Path, *, allow_oom: bool) -> None:
        flags = "#!lua flags=allow-oom\n" if allow_oom else "#!lua\n"
        names = "".join(f"local {name} = '{value}'\n" for name, value in NAMES.items())
        self.source = flags + names + PRELUDE + path.read_text(encoding="utf-8")
        # Redis names a script by its SHA-1; nothing here is secret.
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, *arguments: Argument) -> Any:  # noqa: ANN401 - the shape is the caller's
        try:
            return await redis.evalsha(self.sha, 0, *arguments)
        except NoScriptError:
            return await redis.eval(self.source, 0, *arguments)


async def run_many(redis: Redis, calls: list[tuple[Script, tuple[Argument, ...]]]) -> list[Any]:
    """Scripts with their arguments in one round trip; an error stands in the place of its reply."""
    pipeline = redis.pipeline(transaction=False)
    for script, arguments in calls:
        pipeline.evalsha(script.sha, 0, *arguments)
    replies = await pipeline.execute(raise_on_error=False)
    for index, reply in enumerate(replies):
        if isinstance(reply, NoScriptError):
            script, arguments = calls[index]
            try:
                replies[index] = await redis.eval(script.source, 0, *arguments)
            except ResponseError as error:
                replies[index] = error
    return replies


def connect(settings: RedisSettings, max_connections: int) -> Redis:
    """A client that retries once and never waits longer than the socket time-out. Every script is idempotent by id.

    Who finds all connections in use waits for one: a burst of requests does not mean that Redis is away.
    """
    pool = BlockingConnectionPool(
        max_connections=max_connections,
        timeout=SOCKET_TIMEOUT_SECONDS,
        connection_class=SSLConnection if settings.tls else Connection,
        host=settings.host,
        port=settings.port,
        username=settings.username or None,
        password=settings.password or None,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(ConstantBackoff(0.05), 1),
    )
    return Redis.from_pool(pool)


async def depth(redis: Redis) -> int:
    """How many entries PostgreSQL does not have yet."""
    return int(await redis.llen(QUEUE))


# docs/adr/0002-redis-durability.md tells what each of them prevents.
DURABILITY = {
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "volatile-ttl",
}


async def durability_faults(redis: Redis, appendfsync: str) -> list[str] | None:
    """What is wrong with Redis's settings, each with what to do; None where CONFIG is denied (managed services).

    `appendfsync` is what the operator accepts: `everysec` may lose the last seconds before a crash of Redis.
    """
    wanted = {**DURABILITY, "appendfsync": appendfsync}
    try:
        found = await redis.config_get("maxmemory", *wanted)
    except (NoPermissionError, ResponseError):
        return None
    if found["appendfsync"] == "always":
        wanted.pop("appendfsync")
    faults = [
        f"{name} is '{found[name]}', set it to '{value}'" for name, value in wanted.items() if found[name] != value
    ]
    if found["maxmemory"] == "0":
        faults.append("maxmemory is '0', set it to 60-70 % of the memory that Redis may use")
    return faults
