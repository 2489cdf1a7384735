"""Closing the responses of dead processes, or running them again: none stays in progress, no client waits for ever."""

import asyncio
import logging
import secrets
from typing import Any

import orjson
from redis.exceptions import RedisError, ResponseError

from api import errors, metrics, store
from api.connections import Connections
from api.errors import ApiError
from api.history import losses, orphans, steps
from api.history.losses import Ended
from api.history.orphans import Orphan
from api.history.steps import Ending
from api.turn.body import Verdict, conclude, with_output
from api.turn.ending import make_ending
from api.turn.events import payload, split, terminal_frame
from api.turn.follow import ended_body
from api.turn.rebuilding import rebuild
from api.turn.takeup import MOST_TAKEUPS, take_up
from core import tracing
from core.places import Place, read_carried
from core.store import UNREACHABLE

log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
SWEEP_LIMIT = 100
# Who runs a response hears of a cancel within a second.
HEARD_SECONDS = 2.0
# Above every number that the dead pod may have sent (running.UNLOGGED_LIMIT): no client skips the closing events.
SEQUENCE_GAP = 10_000
INTERRUPTED = Verdict("incomplete", reason="interrupted")
CANCELLED = Verdict("cancelled")
GIVEN_UP = Verdict(
    "failed", code="server_error", message="Every process that ran this response ended before it produced anything."
)
Json = dict[str, Any]


async def cancel_response(connections: Connections, tenant: str, response: str) -> bytes:
    """The response as it ended; one that had ended before is left as it is. Raises ApiError 404, 503."""
    await steps.cancel(connections.redis, tenant, response)
    try:
        return await ended_body(connections, tenant, response, HEARD_SECONDS)
    except ApiError as error:
        if error.code != "outcome_unknown":
            raise
    # Its process is dead, or as good as dead: nobody needs to wait for the lock's end.
    await close_orphan(connections, tenant, response, force=True)
    return await ended_body(connections, tenant, response)


async def close_orphan(connections: Connections, tenant: str, response: str, *, force: bool = False) -> None:
    """End one response whose lock has expired, with the text that was logged, or run it again; idempotent.

    Does nothing while the truce after an absence of Redis holds; `force` asks for neither. Raises ApiError 503.
    """
    if connections.truce.holds and not force:
        return
    token = secrets.token_hex(16)
    orphan = await orphans.takeover(connections.redis, tenant, response, token, force=force)
    if orphan is None:
        return
    try:
        with tracing.under(_trace(orphan)):
            await _end(connections, tenant, response, token, orphan)
    except ApiError:
        # One of the stores is away. No process died of it, so it must not count as if one had.
        await orphans.hand_over(connections.redis, tenant, orphan.thread, response, token, pause_ms=steps.LOCK_MS)
        raise


def _trace(orphan: Orphan) -> Place | None:
    """Where its request was traced: what becomes of it is told there."""
    return read_carried(orjson.loads(orphan.request).get("trace", "")) if tracing.on() else None


async def _end(connections: Connections, tenant: str, response: str, token: str, orphan: Orphan) -> None:
    if orphan.doubtful and await _ended_long_ago(connections, tenant, response, token, orphan):
        return
    frames = [one for blob in orphan.log for one in split(blob)]
    # A flush that was sent again may overlap the one before it.
    events = list({event["sequence_number"]: event for event in map(payload, frames)}.values())
    sequence = int(str(events[-1]["sequence_number"])) + SEQUENCE_GAP if events else SEQUENCE_GAP
    if not await take_up(connections, tenant, response, token, orphan, events, sequence):
        await _close(connections, tenant, response, token, orphan, events, sequence)


async def _close(
    connections: Connections, tenant: str, response: str, token: str, orphan: Orphan, events: list[Json], sequence: int
) -> None:
    request = orjson.loads(orphan.request)
    output = rebuild(events)
    verdict = _verdict(orphan)
    final = conclude(request["response"], verdict, None)
    body = with_output(final, [orjson.dumps(item) for item in output])
    closing = terminal_frame(verdict.status, sequence, body) if request["stream"] else b""
    inputs = [item for item in request["input"] if item["type"] != "item_reference"]
    ending: Ending = make_ending(response, final, inputs, output, body, closing, sequence)
    outcome, queued = await steps.finish(connections.lanes, tenant, orphan.thread, response, token, ending)
    connections.ring.keep(connections.epochs, queued, Ended(tenant, orphan.thread, response, ending))
    metrics.ORPHANS.inc()
    log.warning("response of a dead process closed", extra={"response": response, "tenant": tenant, "outcome": outcome})


def _verdict(orphan: Orphan) -> Verdict:
    if orphan.cancelled:
        return CANCELLED
    return GIVEN_UP if orphan.takeups > MOST_TAKEUPS else INTERRUPTED


async def _ended_long_ago(connections: Connections, tenant: str, response: str, token: str, orphan: Orphan) -> bool:
    """An older copy of Redis takes for running what has ended: PostgreSQL knows, or must be asked before anything."""
    try:
        span = await store.response_span(connections.store, tenant, response)
    except UNREACHABLE as error:
        raise errors.store_unavailable("PostgreSQL, which may have its end, can't be reached") from error
    if span is None:
        return False
    expiration = connections.settings.expiration_seconds
    await losses.forget(connections.redis, tenant, response, orphan.thread, token, expiration)
    return True


async def sweep(connections: Connections) -> None:
    """Once a second, for as long as the process lives: close what expired."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            for tenant, response in await orphans.expired(connections.redis, SWEEP_LIMIT):
                if response not in connections.running:
                    await _close_or_tell(connections, tenant, response)
        except RedisError:
            connections.truce.begin()


async def _close_or_tell(connections: Connections, tenant: str, response: str) -> None:
    """One that can't be read, or that Redis refuses to end, must not keep the others open."""
    try:
        await close_orphan(connections, tenant, response)
    except ApiError as error:
        # PostgreSQL is away; the lock runs out again, and somebody looks again.
        log.warning("response of a dead process must wait", extra={"response": response, "reason": error.message})
    except (ResponseError, LookupError, TypeError, ValueError):
        log.exception("response of a dead process can't be closed", extra={"response": response, "tenant": tenant})
