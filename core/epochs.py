"""Notices that Redis is another one than before, and what it then lacks (docs/adr/0007-epochs.md).

Every connection belongs to one run of one Redis, so each new one is greeted. If it leads to a run that this process
does not know, the queue gets an epoch for that run, what this process knows of the last one is told, and what it
remembers and Redis lacks is put back. Only then the connection may be used.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from core import metrics, queue, store
from core.put_back import put_back
from core.queue import Epoch, Receipt
from core.settings import PostgresSettings, RedisSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

# Who waits for a connection waits for this too; a PostgreSQL that is away is asked again later.
STORE_SECONDS = 1.0
SETTLE_SECONDS = 10.0
# How often reports that PostgreSQL does not have yet are looked for.
LOOK_SECONDS = 2.0
# Another process may have brought the report that changes what was lost.
COUNT_SECONDS = 10.0

PutBack = Callable[[Redis, Epoch, Epoch], Awaitable[int]]
"""(redis, the epoch that is over, the one that was found): how many entries were put back."""


async def nothing_remembered(*_: object) -> int:
    """Of a process that acknowledges nothing to clients."""
    return 0


async def nothing_shown(_: Redis) -> None:
    """Of a process that shows nothing to clients."""


class Epochs:
    """What this process knows of the queue's epoch. `greet` each new connection with it; `watch` beside the work."""

    def __init__(self, redis: RedisSettings, postgres: PostgresSettings, application: str, put_back: PutBack) -> None:
        # A connection of its own, that is not greeted.
        self._redis = queue.connect(redis, 1)
        self._postgres = postgres
        self._application = application
        self._put_back = put_back
        self._epoch: Epoch | None = None
        self._tail = 0
        self._unchecked = False
        self._told = 0
        self._counted_at = -COUNT_SECONDS
        self._settling = asyncio.Lock()

    def saw(self, epoch: int, tail: int) -> None:
        """An answer of Redis told how far the queue has come."""
        if self._epoch is not None and epoch == self._epoch.number and tail > self._tail:
            self._tail = tail

    def is_over(self, epoch: int) -> bool:
        """Whether what an answer of this epoch told may not be in Redis any more."""
        return self._epoch is not None and epoch < self._epoch.number

    async def recover(self, told: Receipt, start: int, show: Callable[[Redis], Awaitable[None]]) -> list[Receipt]:
        """Put back what Redis lacks of what it told of in an epoch that is over and began with the offset `start`.

        `show` is called when it lacked some. Tells where all of it stands now. Raises RedisError.
        """
        async with self._settling:
            if self._epoch is None or not self.is_over(told.epoch):
                return []
            stands, missing = await put_back(self._redis, told, start, self._epoch, secrets.token_hex(16))
            if missing:
                await show(self._redis)
                metrics.PUT_BACK.inc(missing)
            return stands

    async def greet(self, connection: Connection) -> None:
        """Make sure of the epoch before a new connection is used. Raises redis's ConnectionError when that fails."""
        await connection.on_connect()
        if self._is_known(await queue.epoch_behind(connection)):
            return
        try:
            async with asyncio.timeout(SETTLE_SECONDS), self._settling:
                # Our own connection may still lead to the Redis of before.
                await self._redis.connection_pool.disconnect()
                await self._settle()
        except TimeoutError as error:
            raise RedisConnectionError("the queue's epoch could not be settled in time") from error

    async def _settle(self) -> None:
        found = await queue.renew(self._redis) or await self._raise_epoch()
        if not self._is_known(found):
            await self._enter(found)

    def _is_known(self, found: Epoch | None) -> bool:
        return found is not None and self._epoch is not None and found.number == self._epoch.number

    async def _raise_epoch(self) -> Epoch:
        """Begin the next epoch, and tell whether PostgreSQL knows of more than Redis has."""
        reached = await self._reached()
        past = 0 if reached is None else reached.epoch
        mine = 0 if self._epoch is None else self._epoch.number
        candidate = max(time.time_ns() // 1_000_000, past + 1, mine + 1)
        found = await queue.renew(self._redis, candidate, 0 if reached is None else reached.position + 1)
        assert found is not None  # noqa: S101 - it has a candidate
        metrics.EPOCHS.inc()
        log.warning("the queue has a new epoch", extra={"epoch": found.number, "start": found.start})
        return found

    async def _enter(self, found: Epoch) -> None:
        """Tell what is known of the epoch that is over for this process, and put back what Redis lacks of it."""
        over, tail = self._epoch, self._tail
        if over is not None:
            has = found.ends.get(over.number, over.start)
            lost = over.number not in found.ends or tail > has
            await queue.report(self._redis, (over.number, over.start, tail), lost=lost, checked=False)
            restored = await self._put_back(self._redis, over, found)
            metrics.PUT_BACK.inc(restored)
            if lost:
                self._tell(found, {"over": over.number, "missing": max(0, tail - has), "put_back": restored})
        self._epoch, self._tail = found, found.start
        self._unchecked = not found.checked
        if self._unchecked:
            await self._check(found)

    async def _check(self, found: Epoch) -> None:
        """Compare Redis with what PostgreSQL knows, once it can be asked; one process's look is enough."""
        reached = await self._reached()
        if reached is None:
            return
        lost = 0 < reached.epoch < found.number and reached.tail > found.ends.get(reached.epoch, -1)
        await queue.report(self._redis, None, lost=lost, checked=True)
        self._unchecked = False
        if lost:
            self._tell(found, {"over": reached.epoch, "known": reached.tail, "has": found.ends.get(reached.epoch)})

    def _tell(self, found: Epoch, fields: dict[str, int | None]) -> None:
        if self._told != found.number:
            metrics.LOSSES.inc()
        self._told = found.number
        log.error("redis lacks what it had acknowledged", extra=fields)

    async def _reached(self) -> store.Reached | None:
        """What PostgreSQL knows; None while it is away."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await self._ask(store.reached)
        except store.UNREACHABLE:
            return None

    async def _ask(self, question: Callable[["asyncpg.Connection[Any]"], Awaitable[T]]) -> T:
        try:
            connection = await store.connect(self._postgres, self._application)
            try:
                answer = await question(connection)
            finally:
                connection.terminate()
        except (asyncpg.PostgresError, *store.UNREACHABLE):
            metrics.STORE_UP.labels("postgresql").set(0)
            raise
        metrics.STORE_UP.labels("postgresql").set(1)
        return answer

    async def watch(self) -> None:
        """For as long as the process lives: bring reports into PostgreSQL, and count what was lost."""
        # Neither waits for the other, so PostgreSQL is looked at also while Redis hangs.
        await asyncio.gather(_repeated(self._bring), _repeated(self._count))

    async def _bring(self) -> None:
        """What can't be brought stays where it is."""
        if self._epoch is None:
            return
        async with self._settling:
            # Wiped under connections that stay, it has been greeted by whoever was the first to meet it.
            await self._settle()
            if self._unchecked and self._epoch is not None:
                await self._check(self._epoch)
            told = await queue.reports(self._redis)
        if not told:
            return
        await self._ask(lambda connection: store.report_epochs(connection, told))
        self._counted_at = -COUNT_SECONDS
        async with self._settling:
            await queue.drop_reports(self._redis, told)

    async def _count(self) -> None:
        """What was counted last stays while PostgreSQL is away: nobody can change it then."""
        if time.monotonic() - self._counted_at < COUNT_SECONDS:
            return

        async def count(connection: "asyncpg.Connection[Any]") -> None:
            metrics.LOST.set(sum(loss.entries for loss in await store.losses(connection)))
            metrics.DEAD_LETTERS.set(await store.dead_letters(connection))

        await self._ask(count)
        self._counted_at = time.monotonic()

    async def aclose(self) -> None:
        await self._redis.aclose()


async def _repeated(look: Callable[[], Awaitable[None]]) -> None:
    """Of what can't be done nothing is told: others tell that a store is away."""
    while True:
        with contextlib.suppress(RedisError, OSError, asyncpg.PostgresError, *store.UNREACHABLE):
            await look()
        await asyncio.sleep(LOOK_SECONDS)
