"""Stores the entries of one leased range, whatever they hold: what PostgreSQL refuses becomes a dead letter."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg

from core import tracing
from core.entry import UNCOUNTED, Entry, Kind
from worker import metrics, store
from worker.batch import Batch, Letter, arrange, header_of, replayed
from worker.queue import Lease, Stored
from worker.verdict import Verdict, describe, verdict

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

log = logging.getLogger(__name__)

# So many refused rows are dropped one by one; a batch with more is halved.
MAX_DROPPED = 8


async def store_range(connection: "Connection", lease: Lease, *, hopeless: bool = False) -> Stored:
    """Everything that the range holds is in PostgreSQL afterwards, in one transaction unless rows had to be isolated.

    `hopeless`: its one entry is not tried any more. May be repeated for the same range at any time. Raises what is not
    the fault of a row.
    """
    if lease.failures > 0:
        metrics.REDELIVERIES.inc()
    if await store.end_sessions(connection, lease.former):
        log.warning("ended the session of a range's former holder", extra={"first": lease.first, "end": lease.end})
    stored = Stored()
    progress = store.Progress(lease.epoch, lease.start, lease.tail, lease.first, lease.end)
    sources: Sequence[bytes] = lease.entries
    letters: list[Letter] = []
    if hopeless:
        letters = await _given_up(connection, sources[0], lease.failures, stored)
        sources = []
    await _store(connection, sources, letters, progress, stored)
    return stored


async def _given_up(connection: "Connection", source: bytes, failures: int, stored: Stored) -> list[Letter]:
    """An entry on which its holders die becomes a dead letter unparsed, unless one of them had come to the end."""
    entry = header_of(source)
    if entry is not None and await store.is_stored(connection, entry):
        _note_entries(stored, [entry])
        return []
    return [Letter(source, entry, f"its worker failed {failures} times")]


async def _store(
    connection: "Connection",
    sources: Sequence[bytes],
    letters: list[Letter],
    progress: store.Progress,
    stored: Stored,
) -> None:
    again, dropped = False, 0
    while True:
        batch = arrange(sources, letters)
        try:
            written = await store.write(connection, batch, progress, again=again)
        except asyncpg.UniqueViolationError:
            if again:
                raise
            again = True
        except (store.PoisonedRowError, asyncpg.PostgresError) as error:
            culprit = _culprit(error, sources, alone=dropped < MAX_DROPPED)
            if culprit is None:
                return await _halve(connection, sources, letters, progress, stored)
            dropped += 1
            letters = [*letters, Letter(culprit, header_of(culprit), f"refused: {describe(error.__cause__ or error)}")]
            sources = _without(sources, culprit)
        else:
            return _note(stored, batch, written)


async def _halve(
    connection: "Connection",
    sources: Sequence[bytes],
    letters: list[Letter],
    progress: store.Progress,
    stored: Stored,
) -> None:
    middle = len(sources) // 2
    # The range is stored only with its last part.
    await _store(connection, sources[:middle], letters, replace(progress, end=progress.first), stored)
    await _store(connection, sources[middle:], [], progress, stored)


def _culprit(
    error: store.PoisonedRowError | asyncpg.PostgresError, sources: Sequence[bytes], *, alone: bool
) -> bytes | None:
    """The entry that PostgreSQL refuses, None when it takes halving to find it. Raises what is no entry's fault."""
    if isinstance(error, store.PoisonedRowError) and alone:
        return error.row.source
    if isinstance(error, asyncpg.PostgresError) and (verdict(error) is not Verdict.POISON or not sources):
        raise error
    return sources[0] if len(sources) == 1 else None


def _without(sources: Sequence[bytes], culprit: bytes) -> list[bytes]:
    index = sources.index(culprit)
    return [*sources[:index], *sources[index + 1 :]]


def _note_entries(stored: Stored, entries: list[Entry]) -> None:
    stored.counts.update((entry.tenant, entry.conversation) for entry in entries if UNCOUNTED not in entry.extra)
    # A dead-lettered response too: its key must not live for ever.
    stored.responses.update((entry.tenant, entry.id) for entry in entries if entry.kind is Kind.RESPONSE)


def _note_lag(stored: Stored, entries: list[Entry]) -> None:
    if positions := [entry.position for entry in entries if entry.position]:
        lag_seconds = max(0.0, time.time() - min(positions) / 1_000_000)
        metrics.LAG_SECONDS.observe(lag_seconds, tracing.exemplar())
        stored.lag_seconds = max(stored.lag_seconds, lag_seconds)


def _note(stored: Stored, batch: Batch, written: store.Written) -> None:
    """Tell the acknowledgement what this batch means to the hot copies."""
    entries = batch.entries()
    _note_entries(stored, entries)
    stored.removed_responses |= written.removed_responses
    stored.stale_conversations |= written.stale_conversations
    if batch.replayed:
        # The hot copies were read while this was missing.
        stored.stale_conversations |= {
            (entry.tenant, entry.conversation) for entry in entries if replayed(entry) is not None
        }
    for entry in batch.deletes:
        match entry.kind:
            case Kind.DELETE_CONVERSATION:
                stored.deleted_conversations.add((entry.tenant, entry.id))
            case Kind.DELETE_RESPONSE:
                stored.deleted_responses.add((entry.tenant, entry.id))
    _note_lag(stored, entries if not batch.replayed else [entry for entry in entries if replayed(entry) is None])
    metrics.STORED.labels("item").inc(len(batch.items))
    metrics.STORED.labels("response").inc(len(batch.responses))
    metrics.STORED.labels("conversation").inc(len(batch.conversations))
    metrics.STORED.labels("delete").inc(len(batch.deletes))
    metrics.DUPLICATES.inc(written.duplicates)
    metrics.DEAD_LETTERS.inc(len(written.dead_letters))
    if written.dead_letters:
        reasons = dict(Counter(letter.reason for letter in written.dead_letters))
        log.error("entries became dead letters", extra={"reasons": reasons})
