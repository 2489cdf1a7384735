"""A turn: begin → ask → relay → finish. The terminal event, or the body, goes to the client only after finish."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api import errors, history, metrics
from api.connections import Connections
from api.errors import ApiError
from api.history import Opening, Outcome
from api.history_losses import Ended
from api.idempotency import Idempotency
from api.ids import THREAD, new_id
from api.recent import Remembered
from api.schemas.responses import CreateResponse
from api.tenants import Caller
from api.turn.answer import Answer
from api.turn.asking import make_ask, resolve_references
from api.turn.body import COMPLETED, Verdict, conclude, skeleton, with_output
from api.turn.ending import make_ending
from api.turn.events import terminal_frame
from api.turn.opening import new_token, open_turn
from api.turn.running import Interruption, Turn
from api.upstream.exchange import Ask, Finish, UpstreamError
from api.upstream.messages import callable_tools
from api.upstream.routing import Routing

log = logging.getLogger(__name__)
Json = dict[str, Any]

# How long a finished answer waits for Redis to come back before the client is left to ask with GET.
FINISH_SECONDS = 30.0
FINISH_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Question:
    """What the client asked, the response as it stands at the start, the history, and the new items."""

    request: CreateResponse
    start: Json
    past: list[Json]
    inputs: list[Json]


async def start_turn(
    connections: Connections, caller: Caller, request: CreateResponse, idempotency: Idempotency
) -> Turn:
    """Begin a stored turn and let it run in a task of its own; the client may leave."""
    tenant, response, token = caller.tenant, new_id("resp_"), new_token()
    model = request.model or connections.settings.model
    connections.upstream.route(model)  # nothing is begun for a model that nobody answers for
    start = skeleton(request, response, model, request.conversation_id)
    inputs = request.new_items()
    previous = request.previous_response_id or ""
    known = connections.recent.find(tenant, request.conversation_id, previous)
    opening = Opening(
        tenant=tenant,
        response=response,
        token=token,
        new_thread=new_id(THREAD),
        request=orjson.dumps({"response": start, "input": inputs, "stream": request.stream}),
        conversation=request.conversation_id,
        previous_response=previous,
        idempotency=idempotency,
        known_generation=known.generation,
        known_count=len(known.items),
    )
    begun = await open_turn(connections, opening)
    past = known.items[: begun.left_out] + [orjson.loads(item) for item in begun.items]
    turn = Turn(tenant, response, begun.thread, token, streamed=request.stream)
    question = Question(request, start, past, inputs)
    turn.task = connections.tasks.create_task(_run(connections, turn, question, begun.generation))
    return turn


async def _run(connections: Connections, turn: Turn, question: Question, generation: bytes) -> None:
    """A stored turn's outermost frame: whatever happens, it ends and its followers learn of it."""
    async with _framed(connections, turn):
        connections.running[turn.response] = turn
        answer = Answer(turn.emit)
        announce(turn, question.start)
        verdict = await _answer(connections, turn, question, answer)
        await _finish(connections, turn, question, answer, verdict)
        if turn.body is not None and answer.produced:
            items = question.past + question.inputs + answer.items
            connections.recent.keep(turn.tenant, turn.thread, Remembered(generation, turn.response, items))


async def run_unstored(connections: Connections, turn: Turn, question: Question) -> None:
    """The same without a trace: nothing was begun, nothing is written."""
    async with _framed(connections, turn):
        connections.unstored.add(turn)
        answer = Answer(turn.emit)
        announce(turn, question.start)
        verdict = await _answer(connections, turn, question, answer)
        body, terminal = _conclude(turn, question, answer, verdict)[1:]
        turn.body = body
        if turn.streamed:
            turn.publish(terminal)


@contextlib.asynccontextmanager
async def _framed(connections: Connections, turn: Turn) -> AsyncIterator[None]:
    began = time.monotonic()
    try:
        yield
    except Exception as error:
        log.exception("turn failed", extra={"response": turn.response, "tenant": turn.tenant})
        turn.failure = turn.failure or error
    finally:
        connections.running.pop(turn.response, None)
        connections.unstored.discard(turn)
        turn.end()
        seconds = time.monotonic() - began
        metrics.TURNS.labels(turn.status).inc()
        metrics.TURN_SECONDS.observe(seconds)
        names = {"response": turn.response, "conversation": turn.thread, "tenant": turn.tenant}
        log.info("turn", extra={**names, "status": turn.status, "seconds": round(seconds, 4)})


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
        await relay(connections.upstream, ask, turn, answer)
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


def announce(turn: Turn, start: Json) -> None:
    if turn.streamed:
        response = b'"response":' + orjson.dumps(start)
        turn.emit(b"response.created", response)
        turn.emit(b"response.in_progress", response)
        turn.notify()


async def relay(upstream: Routing, ask: Ask, turn: Turn, answer: Answer) -> None:
    """Pass every piece of the answer on as it comes."""
    if not turn.streamed:
        answer.add_all(await upstream.complete(ask))
        return
    async with contextlib.aclosing(upstream.stream(ask)) as pieces:
        async for deltas in pieces:
            answer.add_all(deltas)
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


def _conclude(turn: Turn, question: Question, answer: Answer, verdict: Verdict) -> tuple[Json, bytes, bytes]:
    """The final response without its output, with it, and the terminal frame (empty when nobody streams)."""
    turn.finishing = True
    turn.status = verdict.status
    answer.close(whole=verdict.status == "completed")
    final = conclude(question.start, verdict, answer.usage)
    body = with_output(final, [orjson.dumps(item) for item in answer.items])
    return final, body, terminal_frame(verdict.status, turn.sequence, body) if turn.streamed else b""


async def _finish(connections: Connections, turn: Turn, question: Question, answer: Answer, verdict: Verdict) -> None:
    """Write everything in one step, then show it."""
    final, body, terminal = _conclude(turn, question, answer, verdict)
    log_blob = turn.unlogged() + terminal
    ending = make_ending(turn.response, final, question.inputs, answer.items, body, log_blob, turn.sequence)
    match await _persist(connections, turn, ending):
        case "ok":
            turn.body = body
            if turn.streamed:
                turn.publish(terminal)
        case "gone":
            turn.failure = errors.not_found("conversation", turn.thread, "conversation")
        case "lost":
            # Somebody else closed this response; followers read the closing events from the log.
            turn.interruption = "lost"
        case None:
            # It may be written or not: who asks for the response learns it, and nobody is told to try again.
            turn.status = "unknown"


async def _persist(connections: Connections, turn: Turn, ending: history.Ending) -> Outcome | None:
    """Finish, tried again while Redis is away: an answer that was paid for is not thrown away. None: it stayed away."""
    deadline = time.monotonic() + FINISH_SECONDS
    while True:
        try:
            outcome, queued = await history.finish(
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
