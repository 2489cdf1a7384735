"""A turn that was begun: ask → relay → finish. The terminal event, or the body, goes to the client after finish."""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
from redis.exceptions import RedisError

from api import errors
from api.connections import Connections
from api.errors import ApiError
from api.history import orphans
from api.recent import Remembered
from api.turn.answer import Answer
from api.turn.asking import Question, make_ask, resolve_references
from api.turn.body import COMPLETED, Verdict
from api.turn.finishing import close_answer, finish
from api.turn.measuring import label_of, line, measure
from api.turn.running import Interruption, Turn
from api.turn.shaping import relay_shaped
from api.upstream.exchange import Ask, Finish, UpstreamError
from api.upstream.messages import callable_tools
from api.upstream.routing import Routing
from core import tracing

log = logging.getLogger(__name__)
Json = dict[str, Any]


async def run_stored(
    connections: Connections,
    turn: Turn,
    question: Question,
    generation: bytes | None,
    told: frozenset[bytes] = frozenset(),
) -> None:
    """A stored turn's outermost frame: whatever happens, it ends and its followers learn of it.

    `generation` names the hot list that the history was read from, if that may be remembered; `told` are the kinds of
    events that the log has from a process before this one.
    """
    async with _framed(connections, turn, question):
        connections.running[turn.response] = turn
        answer = Answer(turn.emit)
        announce(turn, question.start, told)
        verdict = await _answer(connections, turn, question, answer)
        if turn.interruption == "shutdown" and turn.repeatable and not answer.produced:
            await _hand_over(connections, turn)
            return
        await finish(connections, turn, question, answer, verdict)
        if generation is not None and turn.body is not None and answer.produced:
            items = question.past + question.inputs + answer.items
            connections.recent.keep(turn.tenant, turn.thread, Remembered(generation, turn.response, items))


async def run_unstored(connections: Connections, turn: Turn, question: Question) -> None:
    """The same without a trace: nothing was begun, nothing is written."""
    async with _framed(connections, turn, question):
        connections.unstored.add(turn)
        answer = Answer(turn.emit)
        announce(turn, question.start)
        verdict = await _answer(connections, turn, question, answer)
        body, terminal = close_answer(turn, question, answer, verdict)[1:]
        turn.body = body
        turn.items = question.past + question.inputs + answer.items
        if turn.streamed:
            turn.publish(terminal)


@contextlib.asynccontextmanager
async def _framed(connections: Connections, turn: Turn, question: Question) -> AsyncIterator[None]:
    turn.course.model, turn.course.begun_at = question.start["model"], time.monotonic()
    with tracing.span("turn") as turn.span:
        try:
            yield
        except Exception as error:
            log.exception("turn failed", extra={"response": turn.response, "tenant": turn.tenant})
            turn.failure = turn.failure or error
        finally:
            connections.running.pop(turn.response, None)
            connections.unstored.discard(turn)
            turn.end()
            measure(turn.course, turn.status, label_of(connections, turn.course.model))
            log.info("turn", extra=_line(turn))


def _line(turn: Turn) -> dict[str, object]:
    names = {"response": turn.response, "conversation": turn.thread, "tenant": turn.tenant, "status": turn.status}
    error = {} if turn.failure is None else {"error": tracing.error_type(turn.failure)}
    return {**names, **error, "streamed": turn.streamed, "stored": turn.stored, **line(turn.course)}


async def wait_for_body(turn: Turn) -> bytes:
    """The final response of a turn that is not streamed; raises what kept it from one."""
    while not turn.ended:
        await turn.changed()
    if turn.failure is not None:
        raise turn.failure
    if turn.body is None:
        raise errors.outcome_unknown(turn.response)
    return turn.body


async def _answer(connections: Connections, turn: Turn, question: Question, answer: Answer) -> Verdict:
    """Ask and relay; every way in which the answer can end becomes a verdict."""
    try:
        tenant, past, inputs = turn.tenant, question.past, question.inputs
        items, question.inputs[:] = await resolve_references(connections, tenant, past, inputs)
        ask = make_ask(question.request, question.start["model"], items)
        answer.callable_tools = callable_tools(ask)
        once = functools.partial(relay, connections.upstream, turn=turn, answer=answer)
        # Who sends the whole conversation each time has its last turn for new.
        newest = len(inputs) if past else 1
        try:
            await relay_shaped(connections.upstream, question.request, ask, items, newest, answer, once)
        finally:
            turn.course.usage = answer.usage
    except (UpstreamError, ApiError) as error:
        turn.failure = error
        if not turn.streamed:
            # Its client gets an error and may simply ask again, so nothing of this may stay in the conversation.
            answer.forget()
        return Verdict("failed", code=error.code, message=error.message)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if turn.interruption is None or task is None:
            raise
        task.uncancel()
        return _interrupted(turn.interruption)
    return verdict_of(answer.finish)


def announce(turn: Turn, start: Json, told: frozenset[bytes] = frozenset()) -> None:
    if not turn.streamed:
        return
    response = b'"response":' + orjson.dumps(start)
    opening = [(b"response.created", response), (b"response.in_progress", response)]
    if start["background"]:
        running = b'"response":' + orjson.dumps({**start, "status": "in_progress"})
        opening[1:] = [(b"response.queued", response), (b"response.in_progress", running)]
    for event, fields in opening:
        if event not in told:
            turn.emit(event, fields)
    turn.notify()


async def relay(upstream: Routing, ask: Ask, turn: Turn, answer: Answer) -> None:
    """Pass every piece of the answer on as it comes."""
    if not turn.streamed:
        answer.add_all(await upstream.complete(ask, turn.course.answered))
        return
    turn.repeatable = turn.repeatable and not answer.produced  # a summary may stand there already
    async with contextlib.aclosing(upstream.stream(ask, turn.course.answered)) as pieces:
        async for deltas in pieces:
            answer.add_all(deltas)
            turn.course.piece()
            turn.repeatable = turn.repeatable and not answer.produced
            turn.notify()
            await turn.room()


def verdict_of(finish: Finish | None) -> Verdict:
    match finish:
        case Finish("length"):
            return Verdict("incomplete", reason="max_output_tokens")
        case Finish("content_filter"):
            return Verdict("incomplete", reason="content_filter")
        case _:
            return COMPLETED


def _interrupted(why: Interruption) -> Verdict:
    return Verdict("cancelled") if why == "cancelled" else Verdict("incomplete", reason="interrupted")


async def _hand_over(connections: Connections, turn: Turn) -> None:
    """Let another process run it again, at its next look; should Redis be away, when the lock has run out."""
    connections.running.pop(turn.response, None)
    turn.status = "handed_over"
    with contextlib.suppress(RedisError):
        await orphans.hand_over(connections.redis, turn.tenant, turn.thread, turn.response, turn.token)
