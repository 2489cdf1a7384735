"""Reading a response's events from any number on: from memory while it runs here, else from its log in Redis."""

import asyncio
import time
from collections.abc import AsyncIterator

from api import history
from api.connections import Connections
from api.turn.events import KEEPALIVE, payload, split
from api.turn.running import KEEPALIVE_SECONDS, Turn

# How often the log of a response that runs elsewhere is looked at.
POLL_SECONDS = 0.1
# A running response is closed by somebody well before this; only Redis away for long lets a follower wait so long.
SILENCE_SECONDS = 120.0

TERMINAL = ("response.completed", "response.failed", "response.incomplete")


class CutError(Exception):
    """The events end here without a terminal one: the outcome is not known yet, the client must ask again."""


async def follow(connections: Connections, turn: Turn) -> AsyncIterator[list[bytes]]:
    """The events of a turn that runs here, from its first, as lists of frames that are never empty. Raises CutError."""
    sent = 0
    while not turn.ended or turn.sequence > sent:
        frames = turn.frames_from(sent)
        if frames is None:
            frames = await _logged(connections, turn.tenant, turn.response, sent)
        if frames:
            sent += len(frames)
            yield frames
        elif await turn.changed():
            yield [KEEPALIVE]
    if turn.interruption == "lost":
        async for frames in follow_log(connections, turn.tenant, turn.response, sent):
            yield frames
    elif turn.body is None:
        raise CutError


async def _logged(connections: Connections, tenant: str, response: str, first: int) -> list[bytes]:
    """What the log has of the events numbered `first` and above."""
    found: list[bytes] = []
    for last, blob in await history.log_after(connections.redis, tenant, response, first - 1):
        frames = list(split(blob))
        # A flush that was sent again overlaps the one before it.
        fresh = frames[max(0, first - (last - len(frames) + 1)) :]
        found += fresh
        first = last + 1
    return found


async def follow_log(connections: Connections, tenant: str, response: str, first: int) -> AsyncIterator[list[bytes]]:
    """The events numbered `first` and above of a response that may run in another process. Raises CutError."""
    heard = time.monotonic()
    kept_alive = heard
    while True:
        now = time.monotonic()
        frames = await _logged(connections, tenant, response, first)
        if frames:
            yield frames
            last = payload(frames[-1])
            if last["type"] in TERMINAL:
                return
            first = int(str(last["sequence_number"])) + 1
            heard = kept_alive = now
        if now - heard > SILENCE_SECONDS:
            raise CutError
        if now - kept_alive > KEEPALIVE_SECONDS:
            kept_alive = now
            yield [KEEPALIVE]
        await asyncio.sleep(POLL_SECONDS)
