"""What this process has acknowledged lately, should Redis come back without it (docs/adr/0007-epochs.md)."""

import asyncio
import logging
import secrets
import time
from collections import deque
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api import metrics
from api.history import losses
from api.history.losses import Ended
from core.epochs import Epochs
from core.put_back import put_back
from core.queue import Epoch, Receipt

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
    """With the entry that comes last."""

    @property
    def size(self) -> int:
        return sum(map(len, self.receipt.entries)) + (0 if self.ended is None else len(self.ended.ending.body))


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
        metrics.ENQUEUED.inc(len(receipt.entries))
        epochs.saw(receipt.epoch, receipt.end)
        one = Kept(time.monotonic(), receipt, ended)
        if epochs.is_over(receipt.epoch):
            self._tasks.create_task(self._recover(epochs, one))
        else:
            self._remember(one)

    def _remember(self, one: Kept) -> None:
        self._kept.append(one)
        self._bytes += one.size
        while self._kept and (self._kept[0].at < one.at - KEPT_SECONDS or self._bytes > KEPT_BYTES):
            self._bytes -= self._kept.popleft().size

    def _take(self, before: int) -> Kept | None:
        """The first one of an epoch before this one, out of the ring."""
        one = next((one for one in self._kept if one.receipt.epoch < before), None)
        if one is not None:
            self._kept.remove(one)
            self._bytes -= one.size
        return one

    async def put_back(self, redis: Redis, over: Epoch, found: Epoch) -> int:
        """Queue and show again what Redis lacks in the epoch `found`, before which the epoch `over` was known here.

        All of it is remembered where it stands now: Redis may be lost again before PostgreSQL has it. What comes in
        meanwhile, from connections that a wipe of Redis left open, may be of any epoch.
        """
        token, restored = secrets.token_hex(16), 0
        while (one := self._take(found.number)) is not None:
            receipt = one.receipt
            start = over.start if receipt.epoch == over.number else receipt.first
            try:
                stands, missing = await put_back(redis, receipt, start, found, token)
                if missing:
                    await _show(redis, one)
            except BaseException:
                self._kept.appendleft(one)
                self._bytes += one.size
                raise
            restored += missing
            self._remember_at(one, stands)
        return restored

    def _remember_at(self, one: Kept, stands: list[Receipt]) -> None:
        """The same where it stands now, as Redis has just confirmed."""
        at, last = time.monotonic(), len(stands) - 1
        for index, receipt in enumerate(stands):
            self._remember(Kept(at, receipt, one.ended if index == last else None))

    async def _recover(self, epochs: Epochs, one: Kept) -> None:
        receipt = one.receipt
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                while True:
                    try:
                        stands = await epochs.recover(receipt, receipt.first, lambda redis: _show(redis, one))
                        return self._remember_at(one, stands)
                    except RedisError:
                        await asyncio.sleep(RECOVERY_PAUSE_SECONDS)
        except TimeoutError:
            log.error("what was acknowledged could not be put back", extra={"entries": len(receipt.entries)})  # noqa: TRY400


async def _show(redis: Redis, one: Kept) -> None:
    if one.ended is not None:
        await losses.restore_response(redis, one.ended, one.receipt.entries[-1])
