"""Carries the scripts of all turns to Redis in few round trips.

A call of its own costs redis-py some 150 µs; in a pipeline with others it costs half, and Redis syncs its file once for
all of them. A lane takes everything that waits, so an idle service adds no delay; another lane goes while the first
waits for its answer.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from core.queue import Argument, Script, run_many

LANES = 2
# One very long pipeline would keep the answers of its first calls waiting for those of its last.
LARGEST_BATCH = 64
# How often a Redis that let a call run out of time is asked whether it answers again.
PROBE_SECONDS = 0.1


class Lanes:
    """`call` from any task; `run` in a task of the process's own for as long as it lives.

    Once a call has run out of time all others fail at once, until Redis answers again: one hang is enough.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[Script, tuple[Argument, ...], asyncio.Future[Any]]] = []
        self._filled = asyncio.Event()
        self._silent = False

    async def call(self, script: Script, *arguments: Argument) -> Any:  # noqa: ANN401 - the shape is the script's
        if self._silent:
            raise RedisTimeoutError("Redis does not answer")
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((script, arguments, future))
        self._filled.set()
        with script.span(self._redis):
            return await future

    async def run(self) -> None:
        async with asyncio.TaskGroup() as lanes:
            for _ in range(LANES):
                lanes.create_task(self._lane())

    async def _lane(self) -> None:
        while True:
            await self._filled.wait()
            batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
            if not self._waiting:
                self._filled.clear()
            if batch:
                await self._carry(batch)
            if self._silent:
                await self._wait_for_an_answer()

    async def _wait_for_an_answer(self) -> None:
        while self._silent:
            try:
                await self._redis.ping()
                self._silent = False
            except RedisError:
                await asyncio.sleep(PROBE_SECONDS)

    async def _carry(self, batch: list[tuple[Script, tuple[Argument, ...], asyncio.Future[Any]]]) -> None:
        try:
            replies = await run_many(self._redis, [(script, arguments) for script, arguments, _ in batch])
        except RedisError as error:
            self._silent = isinstance(error, RedisTimeoutError)
            # Who waited behind a batch that timed out has waited long enough, and would only wait for the same again.
            batch, self._waiting = batch + self._waiting, []
            replies = [error] * len(batch)
        for (_, _, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue  # its caller was cancelled
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)
