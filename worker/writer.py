"""The worker's loop: claim a range of the queue, write it to PostgreSQL, acknowledge it.

Two lanes do this side by side, each with a PostgreSQL session of its own: while one waits for a commit, the other
encodes. Ranges may commit in any order (docs/adr/0001-queue-protocol.md).
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core import tracing
from core.epochs import Epochs, nothing_shown
from core.keepers import end
from core.sampling import watch_loop, watch_queue
from core.store import connect
from core.troubles import postgres_trouble, redis_trouble
from worker import metrics, migrate, queue, store, traced
from worker.indexing import keep_indexed
from worker.outage import Outage
from worker.queue import Lease
from worker.room import Room
from worker.settings import Settings
from worker.storing import store_range
from worker.verdict import TROUBLES, describe, verdict

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

log = logging.getLogger(__name__)

LANES = 2
# After a range that was not full the next one is left to grow for this long: each transaction and each script costs the
# same for one entry as for a hundred. It is most of an entry's way into PostgreSQL while little happens.
GATHER_SECONDS = 0.05
GRACE_SECONDS = 5.0  # to finish what is being written at SIGTERM; Kubernetes kills after 30 s
RELEASE_SECONDS = 2.0  # after that: to give the ranges back

WAITING = "nothing is stored meanwhile, and the queue grows"


class SchemaMissingError(Exception):
    """Migrations are missing; the worker waits for somebody to run them."""


@dataclass(slots=True)
class Writer:
    settings: Settings
    redis: Redis
    epochs: Epochs
    stop: asyncio.Event
    redis_outage: Outage
    postgres_outage: Outage
    room: Room = field(default_factory=Room)
    held: dict[str, Lease] = field(default_factory=dict)
    """The leases to renew, by token."""
    backlog: bool = False  # The last range was as large as a range may be, so there is more.
    gather_until: float = 0.0
    """No lane claims before this moment of the monotonic clock."""


@dataclass(slots=True)
class Lane:
    connection: "Connection | None" = None
    session: str = ""
    token: str = field(default_factory=queue.new_token)
    """Of the next claim, until one was answered: what a lost reply has leased is then ours at once."""


async def run(writer: Writer) -> None:
    """Work until `stop` is set, then finish or give back what is claimed."""
    async with asyncio.TaskGroup() as group:
        keeping = (_renew(writer), writer.epochs.watch(), keep_indexed(writer), watch_queue(writer.redis), watch_loop())
        keepers = [group.create_task(keeper) for keeper in keeping]
        lanes = [group.create_task(_work(writer, Lane())) for _ in range(LANES)]
        await writer.stop.wait()
        _, late = await asyncio.wait(lanes, timeout=GRACE_SECONDS)
        for lane in late:
            lane.cancel()
        if late:
            await asyncio.wait(late)
        await end(keepers)


async def _work(writer: Writer, lane: Lane) -> None:
    try:
        while not writer.stop.is_set():
            async with writer.room.shared():
                lease = await _claim(writer, lane)
                if lease is not None and not lease.suspect:
                    await _carry(writer, lane, lease)
            if lease is not None and lease.suspect:
                await _carry_alone(writer, lane, lease)
    finally:
        if lane.connection is not None:
            lane.connection.terminate()


async def _claim(writer: Writer, lane: Lane) -> Lease | None:
    """The next range, once both sides answer; None after a pause or when the bell has rung."""
    try:
        session = await _ready_session(writer, lane)
    except SchemaMissingError as error:
        await writer.postgres_outage.pause(str(error))
        return None
    except TROUBLES as error:
        await writer.postgres_outage.pause(postgres_trouble(error, WAITING))
        return None
    await asyncio.sleep(max(0.0, writer.gather_until - time.monotonic()))
    try:
        lease = await queue.claim(writer.redis, lane.token, session, writer.settings.batch_entries)
        lane.token = queue.new_token()
        writer.redis_outage.over()
        if lease is not None:
            writer.epochs.saw(lease.epoch, lease.tail)
        if lease is None:
            await queue.wait(writer.redis, queue.IDLE_WAIT_SECONDS)
        writer.backlog = lease is not None and len(lease.entries) >= writer.settings.batch_entries
        if not writer.backlog:
            writer.gather_until = time.monotonic() + GATHER_SECONDS
    except (RedisError, OSError) as error:
        await writer.redis_outage.pause(redis_trouble(error, WAITING))
        return None
    return lease


async def _ready_session(writer: Writer, lane: Lane) -> str:
    """A session on a database that has the schema; connects again when the last one has ended."""
    if lane.connection is not None and not lane.connection.is_closed():
        return lane.session
    connection = await connect(writer.settings.postgres, "chatbot-worker")
    try:
        await _require_schema(connection)
        lane.session = await store.own_session(connection)
    except BaseException:
        connection.terminate()
        raise
    lane.connection = connection
    writer.postgres_outage.over()
    return lane.session


async def _require_schema(connection: "Connection") -> None:
    missing = await migrate.missing(connection)
    if missing:
        raise SchemaMissingError(f"postgresql lacks {', '.join(missing)}: run `python -m worker migrate`")


async def _carry_alone(writer: Writer, lane: Lane, lease: Lease) -> None:
    """Nothing else is in this worker's hands meanwhile, so that whatever it dies of counts against the right entry."""
    writer.held[lease.token] = lease
    async with writer.room.alone():
        try:
            failed = await queue.try_alone(writer.redis, lease)
        except (RedisError, OSError) as error:
            failed = None
            await writer.redis_outage.pause(redis_trouble(error, WAITING))
        if failed is None:
            # Its lease is over or runs out.
            writer.held.pop(lease.token, None)
        else:
            await _carry(writer, lane, lease, hopeless=failed >= queue.MAX_FAILURES_ALONE)


async def _carry(writer: Writer, lane: Lane, lease: Lease, *, hopeless: bool = False) -> None:
    """Bring one range to its end: stored and acknowledged, or given back."""
    assert lane.connection is not None  # noqa: S101 - _claim had it
    writer.held[lease.token] = lease
    started = time.monotonic()
    with traced.carrying(lease, writer.redis) as writers:
        try:
            stored = await store_range(lane.connection, lease, hopeless=hopeless)
        except asyncio.CancelledError:
            lane.connection.terminate()
            await _release(writer, lease, ended=False, failed=False)
            raise
        except Exception as error:  # noqa: BLE001 - the worker's outermost frame: whatever it is, the entries stay queued
            tracing.failed(error)
            await _after_failure(writer, lane, lease, error)
        else:
            traced.committed(lease, writers)
            writer.postgres_outage.over()
            await _acknowledge(writer, lease, stored, started)
        finally:
            writer.held.pop(lease.token, None)


async def _acknowledge(writer: Writer, lease: Lease, stored: queue.Stored, started: float) -> None:
    """Keeps at it while Redis is away: a range that nobody acknowledges is only written again, for nothing."""
    while True:
        try:
            await queue.ack(writer.redis, lease, stored, writer.settings.expiration_seconds)
            break
        except (RedisError, OSError) as error:
            await writer.redis_outage.pause(redis_trouble(error, WAITING))
            if writer.stop.is_set():
                return
    seconds = time.monotonic() - started
    metrics.BATCH_SECONDS.observe(seconds, tracing.exemplar())
    metrics.BATCH_ENTRIES.observe(len(lease.entries))
    fields = {"entries": len(lease.entries), "first": lease.first, "failures": lease.failures}
    log.info("stored", extra={**fields, "seconds": round(seconds, 4), "lag_seconds": round(stored.lag_seconds, 4)})


async def _after_failure(writer: Writer, lane: Lane, lease: Lease, error: Exception) -> None:
    """Give the range back and wait: nothing that failed here is the fault of a row."""
    assert lane.connection is not None  # noqa: S101 - _claim had it
    ended = not lane.connection.is_closed() and not lane.connection.is_in_transaction()
    if not ended:
        lane.connection.terminate()
    known = isinstance(error, TROUBLES)
    metrics.FAILURES.labels(verdict(error).name.lower() if known else "unexpected").inc()
    if not known:
        # A mistake of ours. Should an entry have caused it, the range is halved until that one is alone.
        log.error("unexpected failure", exc_info=error, extra={"first": lease.first, "end": lease.end})
    writer.held.pop(lease.token, None)
    await _release(writer, lease, ended=ended, failed=not known)
    await writer.postgres_outage.pause(postgres_trouble(error, WAITING))


async def _release(writer: Writer, lease: Lease, *, ended: bool, failed: bool) -> None:
    try:
        async with asyncio.timeout(RELEASE_SECONDS):
            if not await queue.release(writer.redis, lease, ended=ended, failed=failed):
                # Should Redis have lost the range, this was the last copy of it.
                await writer.epochs.recover(lease.told, lease.start, nothing_shown)
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("a range could not be given back, its lease runs out", extra={"trouble": describe(error)})


async def _renew(writer: Writer) -> None:
    while True:
        await asyncio.sleep(queue.RENEWAL_SECONDS)
        for lease in list(writer.held.values()):
            try:
                kept = await queue.extend(writer.redis, lease)
            except (RedisError, OSError):
                # The writing goes on; should somebody else do it too, identity absorbs that.
                continue
            if not kept and writer.held.pop(lease.token, None) is not None:
                metrics.LEASES_LOST.inc()
                log.warning("lost a lease", extra={"first": lease.first, "end": lease.end})
