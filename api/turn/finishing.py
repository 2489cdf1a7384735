"""The end of a turn: one step writes everything, and only then it is shown."""

import asyncio
import logging
import time
from typing import Any

import orjson
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api import errors, metrics
from api.connections import Connections
from api.history import steps
from api.history.losses import Ended
from api.history.steps import Outcome
from api.turn.answer import Answer
from api.turn.asking import Question
from api.turn.body import Verdict, conclude, with_output
from api.turn.ending import make_ending
from api.turn.events import terminal_frame
from api.turn.running import Turn
from core import tracing

log = logging.getLogger(__name__)
Json = dict[str, Any]

# How long a finished answer waits for Redis to come back before the client is left to ask with GET.
FINISH_SECONDS = 30.0
FINISH_PAUSE_SECONDS = 0.25


def close_answer(turn: Turn, question: Question, answer: Answer, verdict: Verdict) -> tuple[Json, bytes, bytes]:
    """The final response without its output, with it, and the terminal frame (empty when nobody streams)."""
    turn.finishing = True
    turn.status = verdict.status
    answer.close(whole=verdict.status == "completed")
    final = conclude(question.start, verdict, answer.usage)
    body = with_output(final, [orjson.dumps(item) for item in answer.items])
    return final, body, terminal_frame(verdict.status, turn.sequence, body) if turn.streamed else b""


async def finish(connections: Connections, turn: Turn, question: Question, answer: Answer, verdict: Verdict) -> None:
    """Write everything in one step, then show it."""
    final, body, terminal = close_answer(turn, question, answer, verdict)
    log_blob = turn.unlogged() + terminal
    ending = make_ending(turn.response, final, question.inputs, answer.items, body, log_blob, turn.sequence)
    began = time.monotonic()
    outcome = await _persist(connections, turn, ending)
    metrics.FINISH_SECONDS.observe(time.monotonic() - began, tracing.exemplar())
    match outcome:
        case "ok":
            turn.body = body
            if turn.streamed:
                turn.publish(terminal)
        case "gone":
            turn.interruption = "gone"
            turn.failure = errors.not_found("conversation", turn.thread, "conversation")
        case "lost":
            # Somebody else closed this response; followers read the closing events from the log.
            turn.interruption = "lost"
        case None:
            # It may be written or not: who asks for the response learns it, and nobody is told to try again.
            turn.status = "unknown"


async def _persist(connections: Connections, turn: Turn, ending: steps.Ending) -> Outcome | None:
    """Finish, tried again while Redis is away: an answer that was paid for is not thrown away. None: it stayed away."""
    deadline = time.monotonic() + FINISH_SECONDS
    while True:
        try:
            outcome, queued = await steps.finish(
                connections.lanes, turn.tenant, turn.thread, turn.response, turn.token, ending
            )
        except (RedisConnectionError, RedisTimeoutError):
            pass
        except RedisError:
            # Loading its data after a restart, or a full disk: both pass.
            log.warning("redis refused a finish", extra={"response": turn.response}, exc_info=True)
        else:
            connections.ring.keep(connections.epochs, queued, Ended(turn.tenant, turn.thread, turn.response, ending))
            return outcome
        if time.monotonic() > deadline:
            log.error("a finish could not be written", extra={"response": turn.response, "tenant": turn.tenant})
            return None
        await asyncio.sleep(FINISH_PAUSE_SECONDS)
