"""The Redis side that both processes share: the connection, the names of the queue's keys, and how scripts are run.

The protocol is docs/adr/0001-queue-protocol.md. Scripts are Lua files beside the module that calls them. They get no
KEYS: version 1 asks for one Redis primary, and most scripts find further keys in what they read.
"""

import hashlib
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import NoScriptError

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
            replies[index] = await redis.eval(script.source, 0, *arguments)
    return replies


def connect(settings: RedisSettings, max_connections: int) -> Redis:
    """A client that retries once and never waits longer than the socket time-out. Every script is idempotent by id."""
    return Redis(
        host=settings.host,
        port=settings.port,
        username=settings.username or None,
        password=settings.password or None,
        ssl=settings.tls,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(ConstantBackoff(0.05), 1),
        max_connections=max_connections,
    )


async def depth(redis: Redis) -> int:
    """How many entries PostgreSQL does not have yet."""
    return int(await redis.llen(QUEUE))
