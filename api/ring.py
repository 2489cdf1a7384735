"""What this process has acknowledged lately, should Redis come back without it (docs/adr/0007-epochs.md)."""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api import history_losses
from api.history_losses import Ended
from core import queue
from core.epochs import Epochs
from core.queue import Receipt

log = logging.getLogger(__name__)

# Counted back from Redis's last answer: nothing grows old while Redis is away.
KEPT_SECONDS = 10.0
KEPT_BYTES = 64 * 1024 * 1024
# Redis went between its answer and our taking note of it: how long, and how often, to try to put that back.
RECOVERY_SECONDS = 30.0
RECOVERY_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Kept:
    at: float
    receipt: Receipt
    ended: Ended | None
    size: int


class Ring:
    """`keep` what Redis has acknowledged before its client learns of it."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._kept: deque[Kept] = deque()
        self._bytes = 0

    def keep(self, epochs: Epochs, receipt: Receipt | None, ended: Ended | None = None) -> None:
        """None: a repetition after a lost reply, which tells nothing."""
        if receipt is None:
            return
        epochs.saw(receipt.epoch, receipt.end)
        size = sum(map(len, receipt.entries)) + (0 if ended is None else len(ended.ending.body))
        one = Kept(time.monotonic(), receipt, ended, size)
        if epochs.is_over(receipt.epoch):
            self._tasks.create_task(self._recover(epochs, one))
            return
        self._kept.append(one)
        self._bytes += size
        while self._kept and (self._kept[0].at < one.at - KEPT_SECONDS or self._bytes > KEPT_BYTES):
            self._bytes -= self._kept.popleft().size

    async def put_back(self, redis: Redis, epoch: int, start: int, has: int, token: str) -> int:
        """Queue and show again what Redis lacks of an epoch, of which it has all before the offset `has`."""
        restored = 0
        for one in [one for one in self._kept if one.receipt.epoch == epoch]:
            missing = one.receipt.entries[max(0, has - one.receipt.first) :]
            if missing:
                await queue.put_back(redis, epoch, start, one.receipt.end - len(missing), missing, token)
                await _show(redis, one)
                restored += len(missing)
        # Connections that a wipe of Redis left open tell of the next epoch before it is entered here.
        self._kept = deque(one for one in self._kept if one.receipt.epoch > epoch)
        self._bytes = sum(one.size for one in self._kept)
        return restored

    async def _recover(self, epochs: Epochs, one: Kept) -> None:
        receipt = one.receipt
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                while True:
                    try:
                        return await epochs.recover(receipt.epoch, receipt.first, receipt.first, receipt.entries)
                    except RedisError:
                        await asyncio.sleep(RECOVERY_PAUSE_SECONDS)
        except TimeoutError:
            log.error("what was acknowledged could not be put back", extra={"entries": len(receipt.entries)})  # noqa: TRY400


async def _show(redis: Redis, one: Kept) -> None:
    if one.ended is not None:
        await history_losses.restore_response(redis, one.ended, one.receipt.entries[-1])
