"""The heartbeat of this process's turns: log their events, renew their locks, hear of cancels. One task for all."""

import asyncio
import logging
import time

from redis.exceptions import RedisError

from api.connections import Connections
from api.history import steps
from api.turn.running import Turn

log = logging.getLogger(__name__)

# An event is logged after 100 ms at the latest: it waits until its turn is due, and then for the next beat.
BEAT_SECONDS = 0.025
FLUSH_SECONDS = 0.075
# A cancel is heard with the next renewal, and must be within a second.
QUIET_RENEWAL_SECONDS = 0.75
# In a turn's trace: an answer of minutes has thousands of flushes, and the turn's own span has their number.
MOST_SPANS = 20


async def pulse(connections: Connections) -> None:
    """Runs for as long as the process lives."""
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        due = [turn for turn in connections.running.values() if _due(turn)]
        if due:
            try:
                await _flush(connections, due)
            except RedisError as error:
                # Turns go on within their unlogged limit; the next beat tries again.
                log.warning("flush failed", extra={"turns": len(due), "error": type(error).__name__})


def _due(turn: Turn) -> bool:
    age = time.monotonic() - turn.renewed_at
    return age >= QUIET_RENEWAL_SECONDS or (turn.sequence > turn.logged and age >= FLUSH_SECONDS)


async def _flush(connections: Connections, due: list[Turn]) -> None:
    """One round trip for all that are due."""
    now = time.monotonic()
    flushes = [
        steps.Flush(
            turn.tenant,
            turn.thread,
            turn.response,
            turn.token,
            turn.unlogged(),
            turn.sequence - 1,
            turn.span if turn.flushes < MOST_SPANS else None,
        )
        for turn in due
    ]
    outcomes = await steps.flush(connections.redis, flushes)
    for turn, flushed, outcome in zip(due, flushes, outcomes, strict=True):
        turn.flushes += 1
        match outcome:
            case "ok":
                turn.renewed_at = now
                turn.mark_logged(flushed.last_sequence + 1)
            case "cancel":
                turn.interrupt("cancelled")
            case "failed":
                # Like an absence of Redis, but of this turn's flush alone.
                log.warning("flush refused", extra={"response": turn.response})
            case _ if turn.response in connections.running:
                turn.interrupt(outcome)
            case _:
                pass  # it finished while this flush was under way
