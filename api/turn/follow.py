"""Reading a response's events from any number on: from memory while it runs here, else from its log in Redis."""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson

from api import errors, reading
from api.connections import Connections
from api.errors import ApiError
from api.history import steps
from api.turn.events import KEEPALIVE, payload, split, terminal_frame
from api.turn.running import KEEPALIVE_SECONDS, Turn

# How often the log of a response that runs elsewhere is looked at.
POLL_SECONDS = 0.1
# Beyond the provider's longest answer: until then a running response has ended or was closed by somebody, unless Redis
# is away for long.
GRACE_SECONDS = 60.0

NOT_FOUND = 404
TERMINAL = ("response.completed", "response.failed", "response.incomplete")


class CutError(Exception):
    """The events end here without a terminal one: the outcome is not known yet, the client must ask again."""


class DeletedError(CutError):
    """What was followed is deleted; `sequence` is the number of the event that tells it."""

    def __init__(self, error: ApiError, sequence: int) -> None:
        super().__init__()
        self.error = error
        self.sequence = sequence


async def follow(connections: Connections, turn: Turn) -> AsyncIterator[list[bytes]]:
    """The events of a turn that runs here, from its first, as lists of frames that are never empty. Raises CutError."""
    sent = 0
    while not turn.ended or turn.sequence > sent:
        frames = await _held_or_logged(connections, turn, sent)
        if frames:
            sent += len(frames)
            yield frames
            turn.mark_sent(sent)
        elif turn.ended:
            # What is missing was dropped from memory, and its log went with its conversation.
            raise _cut(turn, sent)
        elif await turn.changed():
            yield [KEEPALIVE]
    if turn.interruption == "lost":
        async for frames in follow_log(connections, turn.tenant, turn.response, sent):
            yield frames
    elif turn.body is None:
        raise _cut(turn, sent)


def _cut(turn: Turn, sent: int) -> CutError:
    if turn.interruption == "gone" and isinstance(turn.failure, ApiError):
        return DeletedError(turn.failure, sent)
    return CutError()


async def _held_or_logged(connections: Connections, turn: Turn, first: int) -> list[bytes]:
    held = turn.frames_from(first)
    return await _logged(connections, turn.tenant, turn.response, first) if held is None else held


async def _logged(connections: Connections, tenant: str, response: str, first: int) -> list[bytes]:
    """What the log has of the events numbered `first` and above."""
    found: list[bytes] = []
    for last, blob in await steps.log_after(connections.redis, tenant, response, first - 1):
        frames = list(split(blob))
        # A flush that was sent again overlaps the one before it.
        fresh = frames[max(0, first - (last - len(frames) + 1)) :]
        found += fresh
        first = last + 1
    return found


async def follow_log(connections: Connections, tenant: str, response: str, first: int) -> AsyncIterator[list[bytes]]:
    """The events numbered `first` and above of a response that runs in another process or has ended.

    When its log is gone, the final state is its only event. Raises ApiError 503, CutError, DeletedError.
    """
    heard = kept_alive = time.monotonic()
    while True:
        frames, ended = await _look(connections, tenant, response, first)
        now = time.monotonic()
        if frames:
            yield frames
            first = int(str(payload(frames[-1])["sequence_number"])) + 1
            heard = kept_alive = now
        if ended or (frames and payload(frames[-1])["type"] in TERMINAL):
            return
        if now - heard > _patience_seconds(connections):
            raise CutError
        if now - kept_alive > KEEPALIVE_SECONDS:
            kept_alive = now
            yield [KEEPALIVE]
        await asyncio.sleep(POLL_SECONDS)


async def _look(connections: Connections, tenant: str, response: str, first: int) -> tuple[list[bytes], bool]:
    """The next events, and whether there will be no others."""
    frames = await _logged(connections, tenant, response, first)
    if frames:
        return frames, False
    try:
        if not await _ended(connections, tenant, response):
            return [], False
        # Its last events and its end were written in one step, maybe after the look at the log.
        late = await _logged(connections, tenant, response, first)
        return late or await _final(connections, tenant, response, first), True
    except ApiError as error:
        if error.status == NOT_FOUND:
            raise DeletedError(error, first) from None
        raise


def _patience_seconds(connections: Connections) -> float:
    return connections.upstream.longest_seconds + GRACE_SECONDS


async def _ended(connections: Connections, tenant: str, response: str) -> bool:
    """Asked ten times a second, so it fetches the whole response only where that may have ended."""
    if await reading.hot_or_cold(steps.is_running(connections.redis, tenant, response)) is True:
        return False
    state = orjson.loads(await reading.response(connections, tenant, response))
    return state["status"] not in ("in_progress", "queued")


async def _final(connections: Connections, tenant: str, response: str, first: int) -> list[bytes]:
    """The terminal event of a response whose log has expired; nothing when the client has had all that the log has."""
    if await steps.has_log(connections.redis, tenant, response):
        return []
    body = await reading.response(connections, tenant, response)
    return [terminal_frame(orjson.loads(body)["status"], first, body)]


async def ended_body(connections: Connections, tenant: str, response: str, seconds: float | None = None) -> bytes:
    """The final body of a response that may still run elsewhere, for so long. Raises ApiError 404, 503."""
    end = time.monotonic() + (_patience_seconds(connections) if seconds is None else seconds)
    while not await _ended(connections, tenant, response):
        if time.monotonic() > end:
            raise errors.outcome_unknown(response)
        await asyncio.sleep(POLL_SECONDS)
    return await reading.response(connections, tenant, response)
