"""Keeps the full text up to date in the time that storing leaves. Nobody waits for it: searches read what is due."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import asyncpg

from core.store import connect
from worker import store
from worker.search.store import index_some
from worker.verdict import TROUBLES, describe

if TYPE_CHECKING:
    from worker.writer import Writer

    Connection = asyncpg.Connection[Any]

log = logging.getLogger(__name__)

# How long to wait when nothing is due, and while a backlog is being stored, which comes first.
LOOK_SECONDS = 0.5
# So many times as long as a step took: the index takes half of one core of PostgreSQL at most.
PAUSES_PER_STEP = 1
AWAY_SECONDS = 5.0


async def keep_indexed(writer: "Writer") -> None:
    """For as long as the worker lives."""
    connection: Connection | None = None
    try:
        while True:
            try:
                if connection is None or connection.is_closed():
                    connection = await connect(writer.settings.postgres, "chatbot-worker-index")
                began = time.monotonic()
                more = not writer.backlog and await index_some(connection, store.LOCK_SHARED)
                await asyncio.sleep((time.monotonic() - began) * PAUSES_PER_STEP if more else LOOK_SECONDS)
            except TROUBLES as error:
                # PostgreSQL is away, or its schema is not there yet: the lanes tell so.
                log.info("the index waits", extra={"trouble": describe(error)})
                await asyncio.sleep(AWAY_SECONDS)
    finally:
        if connection is not None:
            connection.terminate()
